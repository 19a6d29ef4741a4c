"""Checks for authors of layers: `check_layer` for the whole contract of a layer, `check_gradients` for any network.

A complete layer with its check:

    from dataclasses import dataclass
    import gpunn as gn
    from gpunn.backends.elementwise import elementwise
    from gpunn.frame import Plan
    from gpunn.parameters import Parameter
    from gpunn.testing import check_layer

    @elementwise
    def soft_square(xp, X, s):
        return xp.sqrt(X * X + s * s)

    @elementwise
    def soft_square_gradient(xp, dA, X, s, A):
        return dA * X / A, dA * s / A

    @dataclass(frozen=True)
    class SoftSquare(gn.Layer):
        '''A = √(X² + s²) with one trained s a column; dX = dA X / A, ds = Σ dA s / A.'''

        start: float = 1.0

        def plan(self, shape):
            s = Parameter((1, shape[0]), gn.initializers.Constant(self.start))
            return Plan(output=shape, parameters={"s": s}, buffers={"A": shape}, backward={"dX": shape, "terms": shape})

        def forward(self, t, X):
            t.X = X
            t.ops.elementwise(soft_square, (X, t.s), (t.A,))
            return t.A

        def backward(self, t, dA):
            dX = t.dX if t.wants_dX else t.A
            t.ops.elementwise(soft_square_gradient, (dA, t.X, t.s, t.A), (dX, t.terms))
            t.ops.sum(t.terms, -2, out=t.ds)
            return dX if t.wants_dX else None

    check_layer(SoftSquare(), (5,))
"""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.backends import available_devices, get_backend
from gpunn.backends.reference.backend import Backend
from gpunn.layers import Dense, Flatten, Layer, Reshape
from gpunn.losses import Loss, SquaredError
from gpunn.network import Network
from gpunn.recordable import Trial
from gpunn.types import Array, Shape
from gpunn.value import from_json, to_json

STEP = 1e-5  # for central differences of fourth order in float64: truncation error 1e-20, rounding error 1e-11
SHORT_STEP = 1e-7
COMPLEX_STEP = 1e-30
WARM_STEPS = 20
SMALL = 8192  # bytes that Python itself may keep; an array of the test has 256 KiB
TWINS = 128  # changed copies that are evaluated as one population


def check_gradients(
    network: Network,
    X: Any,
    y: Any,
    loss: Loss,
    *,
    training: bool = True,
    coordinates: int | None = None,
    tolerance: float = 1e-7,
    complex_tolerance: float = 1e-12,
) -> float:
    """Compare `network.gradients` with central differences and the complex step; return the larger relative error.

    It changes every parameter, or `coordinates` of them drawn at random. Errors are relative to the largest derivative
    in the same array, or to a thousandth of the largest in any array. An array of zeros may have errors of 16 roundings
    of the largest derivative. At a kink the gradient may lie anywhere between the two slopes. It needs memory for up to
    128 copies of the network; a float32 network may have float32's errors.
    """
    _, gradients = network.gradients(X, y, loss, training=training)
    if network.dtype != np.float64:
        tolerance, complex_tolerance = max(tolerance, 1e-3), max(complex_tolerance, 1e-4)
    worst = 0.0
    for k in range(network.models or 1):
        single = network if network.models is None else network.member(k)
        of_model = {name: _on_host(network, g if network.models is None else g[k]) for name, g in gradients.items()}
        own_X = _of_member(X, k, network.models is not None, len(network.inputs) + 1)
        labels = loss.target in ("classes", "one_hot") and np.asarray(y).dtype.kind != "f"
        own_y = _of_member(y, k, own_X is not X, 1 if labels else len(network.outputs) + 1)
        probe = _Probe(single, own_X, own_y, loss, training, of_model, coordinates)
        worst = max(worst, probe.check(tolerance, complex_tolerance))
    return worst


def _on_host(network: Network, array: Array) -> Array:
    return array if isinstance(array, np.ndarray) else network.ops.to_host(array)


def _of_member(data: Any, k: int, population: bool, rank: int) -> Any:
    """Model k's part of the data; data with `rank` axes are shared by all models."""
    return data[k] if population and np.ndim(data) == rank + 1 else data


class _Probe:
    """Compares one network's gradient with changes of the loss when parameters change."""

    def __init__(
        self,
        network: Network,
        X: Any,
        y: Any,
        loss: Loss,
        training: bool,
        gradients: dict[str, Array],
        limit: int | None,
    ) -> None:
        self.network, self.X, self.y, self.loss, self.training = network, X, y, loss, training
        self.values = {name: network.ops.to_host(view) for name, view in network.parameters.items()}
        self.state = {name: network.ops.to_host(view) for name, view in network.state.items()}
        places = [(name, i) for name, value in self.values.items() for i in range(value.size)]
        if limit is not None and limit < len(places):
            chosen = np.random.default_rng(0).choice(len(places), limit, replace=False)
            places = [places[i] for i in chosen]
        self.places = places
        largest = max((float(np.abs(g).max()) for g in gradients.values()), default=0.0)
        self.largest = largest
        self.sizes = {name: float(np.abs(g).max()) for name, g in gradients.items()}
        self.scale = {name: max(size, 1e-3 * largest, 1e-12) for name, size in self.sizes.items()}
        self.analytic = np.array([float(gradients[name].reshape(-1)[i]) for name, i in places])

    def check(self, tolerance: float, complex_tolerance: float) -> float:
        scale = np.array([self.scale[name] for name, _ in self.places])
        exact = self._moved("complex128", 1j * COMPLEX_STEP).imag / COMPLEX_STEP
        f = {m: self._moved("float64", m * STEP) for m in (-2, -1, 1, 2)}
        numeric = (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * STEP)
        noise = (
            8 * np.finfo(float).eps * max(np.abs(v).max(initial=0.0) for v in f.values())
        )  # of one value of the loss
        # The complex step has no such noise. It may differ only where a gradient is pure rounding: the whole gradient,
        # or one array, such as that of a bias which batch normalisation removes again.
        cancelled = 16 * np.finfo(float).eps * self.largest
        slack = np.array([cancelled if self.sizes[name] <= cancelled else 0.0 for name, _ in self.places])
        slack = np.where(np.abs(exact) <= cancelled, slack, 0.0) if self.largest > noise else noise
        exact_errors = np.maximum(np.abs(self.analytic - exact) - slack, 0.0) / scale
        numeric_errors = np.maximum(np.abs(self.analytic - numeric) - noise / STEP, 0.0) / scale
        doubted = np.flatnonzero(~((exact_errors <= complex_tolerance) & (numeric_errors <= tolerance)))
        if doubted.size:
            at_kink, numeric[doubted] = self._look_closer(doubted, scale[doubted])
            off = np.abs(self.analytic - numeric)[doubted] - noise / SHORT_STEP
            numeric_errors[doubted] = np.maximum(off, 0.0) / scale[doubted]
            exact_errors[doubted[at_kink]] = numeric_errors[doubted[at_kink]] = 0.0
        self._judge(exact_errors, exact, complex_tolerance, "the complex step")
        self._judge(numeric_errors, numeric, tolerance, "central differences")
        return float(max(exact_errors.max(initial=0.0), numeric_errors.max(initial=0.0)))

    def _look_closer(self, doubted: Array, scale: Array) -> tuple[Array, Array]:
        """Which of these coordinates are at a kink, with the gradient between its two slopes; and differences with a
        shorter step, because a kink may be near."""
        every, self.places = self.places, [self.places[i] for i in doubted]
        below, here, above = (self._moved("float64", by) for by in (-SHORT_STEP, 0.0, SHORT_STEP))
        self.places = every
        left, right = (here - below) / SHORT_STEP, (above - here) / SHORT_STEP
        analytic, slack = self.analytic[doubted], 1e-6 * scale
        between = (np.minimum(left, right) - slack <= analytic) & (analytic <= np.maximum(left, right) + slack)
        return between & (np.abs(right - left) > 1e-3 * scale), (above - below) / (2 * SHORT_STEP)

    def _judge(self, errors: Array, numeric: Array, tolerance: float, oracle: str) -> None:
        if errors.size and not errors.max() <= tolerance:  # NaN fails too
            worst = int(np.nanargmax(np.where(np.isnan(errors), np.inf, errors)))
            name, i = self.places[worst]
            index = tuple(map(int, np.unravel_index(i, self.values[name].shape)))
            raise AssertionError(
                f"gradient of {name}{list(index)} is {self.analytic[worst]:.17g}, {oracle} give {numeric[worst]:.17g}: "
                f"relative error {errors[worst]:.2g}, allowed {tolerance:.2g}"
            )

    def _moved(self, dtype: str, by: complex) -> Array:
        """The loss after changing each coordinate alone, in copies of the network that are one population."""
        results = []
        for start in range(0, len(self.places), TWINS):
            part = self.places[start : start + TWINS]
            twins = Network(
                self.network.network, self.network.inputs, device=Backend(), dtype=dtype,
                models=len(part), seed=[self.network.seeds[0]] * len(part),
            )  # fmt: skip
            twins.load_parameters({
                name: np.broadcast_to(value, (len(part), *value.shape))
                for name, value in {**self.values, **self.state}.items()
            })  # fmt: skip
            twins.step[...] = self.network.ops.to_host(self.network.step)
            for k, (name, i) in enumerate(part):
                twins.parameters[name][k].reshape(-1)[i] += by if dtype == "complex128" else by.real
            results.append(twins.loss_of(self.X, self.y, self.loss, training=self.training))
        return np.concatenate(results)


def check_layer(layer: Layer, shape: Shape, *, backends: Sequence[Backend] | None = None, rows: int = 5) -> None:
    """Check the contract of a layer: exact gradients, K models equal to K single ones, float32 close to float64, no
    allocation after the first steps, the same numbers on every available backend, JSON and back, and that its steps may
    be recorded. Raises AssertionError."""
    if from_json(to_json(layer)) != layer:
        raise AssertionError(f"{layer} comes back from JSON as {from_json(to_json(layer))}")
    at_hand = backends or [get_backend(device) for device in available_devices()]
    X, y, make = _around(layer, shape, rows)
    reference = make(Backend(), "float64", None)
    for training in (True, False):
        check_gradients(reference, X, y, SquaredError(), training=training)
        expected = reference.gradients(X, y, SquaredError(), training=training)
        for backend in at_hand:
            for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
                network = make(backend, dtype, None)
                network.load_parameters({**_host(reference, reference.parameters), **_host(reference, reference.state)})
                result = network.gradients(X, y, SquaredError(), training=training)
                _compare(f"{layer} on {backend.name} in {dtype}", result, expected, tolerance)
    _check_dA(reference, X, y, layer)
    for backend in at_hand:
        _check_population(make(backend, "float64", 3), X, y, f"{layer} on {backend.name}")
    _check_allocation(layer, shape)
    _check_recordable(reference, y, layer)


def _around(layer: Layer, shape: Shape, rows: int) -> tuple[Array, Array, Any]:
    """Data, and a function that makes networks with a trained layer before this one."""
    rng = np.random.default_rng(0)
    size = math.prod(shape)
    if layer.integer_input:
        X: Array = rng.integers(0, getattr(layer, "categories", 2), (rows, *shape))
        before: list[Layer] = []
        inputs = shape
    else:
        X, inputs = rng.normal(size=(rows, 3)), (3,)
        before = [Dense(size, "tanh"), *([Reshape(shape)] if len(shape) != 1 else [])]

    def make(backend: Backend, dtype: str, models: int | None) -> Network:
        return Network([*before, layer, Flatten()], inputs, device=backend, dtype=dtype, models=models, seed=1)

    return X, rng.normal(size=(rows, *make(Backend(), "float64", None).outputs)), make


def _host(network: Network, views: Any) -> dict[str, Array]:
    return {name: network.ops.to_host(view) for name, view in views.items()}


def _compare(what: str, result: Any, expected: Any, tolerance: float) -> None:
    """Compare loss and gradients with the expected ones, relative to their largest number."""
    largest = max([1e-3 * float(np.abs(g).max()) for g in expected[1].values()], default=0.0)
    pairs = [("loss", result[0], expected[0])] + [(name, result[1][name], g) for name, g in expected[1].items()]
    for name, got, wanted in pairs:
        scale = max(float(np.abs(wanted).max()), largest, 1e-12)
        error = float(np.abs(np.asarray(got) - wanted).max()) / scale
        if not error <= tolerance:
            raise AssertionError(f"{what}: {name} is off by {error:.2g} of its size, allowed {tolerance:.2g}")


def _check_dA(network: Network, X: Array, y: Array, layer: Layer) -> None:
    """Check that backward does not change dA: another layer may need it too."""
    batch_pass = network.compile(len(X), SquaredError())
    batch_pass.value(batch_pass.forward(X if layer.integer_input else X.astype(network.dtype)), y)
    before = batch_pass.dA.copy()
    batch_pass.backward()
    if not np.array_equal(batch_pass.dA, before):
        raise AssertionError(f"{layer}: backward writes over dA, which it must leave as it found it")


def _check_population(population: Network, X: Array, y: Array, what: str) -> None:
    values, gradients = population.gradients(X, y, SquaredError())
    outputs = population.predict(X)
    for k in range(len(values)):
        single = population.member(k)
        of_model = (values[k], {name: g[k] for name, g in gradients.items()})
        _compare(f"{what}, model {k} of a population", of_model, single.gradients(X, y, SquaredError()), 1e-12)
        _compare(f"{what}, model {k} predicting", (outputs[k], {}), (single.predict(X), {}), 1e-12)


def _check_recordable(network: Network, y: Array, layer: Layer) -> None:
    """Check that the layer works through `t.ops` only, and in the same way in every step."""
    for training in (True, False):
        fault = Trial(network, network.compile(len(y), SquaredError(), training=training), y).fault()
        if fault:
            raise AssertionError(f"{layer} cannot be recorded: {fault}")


def _check_allocation(layer: Layer, shape: Shape) -> None:
    """Check that later steps keep no new memory, and never allocate as much as half an activation."""
    X, y, make = _around(layer, shape, max(16, 65536 // math.prod(shape)))
    network = make(get_backend("cpu"), "float64", None)
    batch_pass = network.compile(len(X), SquaredError())

    def steps(count: int) -> int:
        for _ in range(count):
            batch_pass.value(batch_pass.forward(X), y)
            batch_pass.backward()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = steps(3)
        tracemalloc.reset_peak()
        held = steps(WARM_STEPS) - before
        taken = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    allowed = len(X) * math.prod(shape) * 8 // 2
    if held > SMALL or taken > allowed:
        raise AssertionError(
            f"{layer}: {WARM_STEPS} steps held {held} bytes and took {taken} on the way, allowed {allowed}; "
            "write into buffers named in the plan, with out="
        )
