"""What the tests of the lecture notes share: formulas in plain NumPy, and ways to see one derivative of gpunn alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.backends.formula.tracing import elementwise
from gpunn.frame import Frame, Plan
from gpunn.losses import Elementwise
from gpunn.parameters import Parameter

TOLERANCE = 1e-12


# Formulas


def sigmoid(z: Any) -> Any:
    """(6.37)."""
    return 1.0 / (1.0 + np.exp(-z))


def sigmoid_slope(z: Any) -> Any:
    """(6.36), the second form."""
    return np.exp(-z) / (1.0 + np.exp(-z)) ** 2


def softmax(z: Any) -> Any:
    """Over the last axis; NumPy's complex numbers pass through."""
    powers = np.exp(z - z.real.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def softmax_jacobian(z: Any) -> Any:
    """∂a/∂z of one vector in denominator layout, (6.49): row i is z_i, column j is a_j. It is symmetric."""
    a = softmax(z)
    return np.diag(a) - np.outer(a, a)


# One derivative alone


@dataclass(frozen=True)
class Given(gn.Layer):
    """A trained table in place of the layers below: its gradient is ∂L/∂(the input of the layers under test)."""

    rows: int
    width: int

    def plan(self, shape: Any) -> Plan:
        return Plan(
            output=(self.width,), parameters={"V": Parameter((self.rows, self.width))}, buffers={"A": (self.width,)}
        )

    def forward(self, t: Frame, X: Any) -> Any:
        t.ops.copy(t.V, out=t.A)
        return t.A

    def backward(self, t: Frame, dA: Any) -> None:
        t.ops.copy(dA, out=t.dV)


@elementwise
def weighted_sum(xp: Any, A: Any, y: Any, scale: Any) -> Any:
    return A * y, scale * y


@dataclass(frozen=True)
class WeightedSum(Elementwise):
    """Σ c a: its gradient is c, so what back-propagation makes of it is a Jacobian times c, and with c = 1 a slope."""

    formula = weighted_sum


WEIGHTED = WeightedSum(reduction="sum")


def host(net: gn.Network, array: Any) -> Any:
    return net.ops.to_host(array)


def load(net: gn.Network, values: Mapping[str, Any]) -> gn.Network:
    """Write some of the parameters or state; the rest stays."""
    present = {name: host(net, view) for name, view in {**net.parameters, **net.state}.items()}
    net.load_parameters({**present, **values})
    return net


def given(
    values: Any, layers: Sequence[gn.Layer], backend: Any, dtype: str = "float64", **options: Any
) -> gn.Network:  # fmt: skip
    """A network whose layers see `values`, whatever its input."""
    net = gn.Network([Given(*values.shape), *layers], 1, device=backend, dtype=dtype, **options)
    return load(net, {"0.V": values})


def derivative(
    values: Any,
    layers: Sequence[gn.Layer],
    y: Any,
    loss: Any,
    backend: Any,
    dtype: str = "float64",
    training: bool = True,
) -> tuple[float, Any]:
    """The loss of layers that see `values`, and its gradient with respect to them."""
    net = given(values, layers, backend, dtype)
    value, gradients = net.gradients(np.zeros((len(values), 1)), y, loss, training=training)
    return value, gradients["0.V"]


def forward(net: gn.Network, X: Any, *, training: bool = True, track: bool = False) -> Any:
    """The output of one pass, in training unless told otherwise."""
    run = net.compile(len(X), training=training, backward=False, track=track)
    return host(net, run.forward(net.ops.from_host(np.asarray(X), net.dtype)))


# Comparisons


def same(got: Any, wanted: Any, tolerance: float = TOLERANCE) -> None:
    """Equal in shape and, relative to the largest number wanted, in value; where all wanted are 0, exactly."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max(initial=0.0))


def assert_drawn_on_the_device(net: gn.Network, X: Any) -> None:
    """A second training pass on the stand-in for CUDA transfers, allocates and waits for nothing."""
    run, ops = net.compile(len(X), training=True, backward=False, track=False), net.ops
    on_device = ops.from_host(X)
    run.forward(on_device)
    ops.xp.counters.reset()
    run.forward(on_device)
    counts = ops.xp.counters.snapshot()
    assert counts["launches"] > 0
    assert (counts["transfers"], counts["synchronisations"], counts["allocations"]) == (0, 0, 0)
