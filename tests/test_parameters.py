"""The one vector of parameters: the places of its views, and what may be loaded into it."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError, GpunnError, ShapeError
from gpunn.initializers import Constant
from gpunn.parameters import ALIGNMENT, Parameter, ParameterStore, State
from tests.conftest import backend_named
from tests.faults import FORM, contents, exactly

rng = np.random.default_rng(0)
DTYPES = ("float32", "float64")
MODELS = (None, 3)
# Lengths on both sides of 256 bytes, in an order that has to change: decaying ones come first.
PARAMETERS = {
    "0.b": Parameter((1, 64), Constant(1.0), decay=False),
    "0.W": Parameter((7, 9), Constant(2.0)),
    "1.G": Parameter((1, 1), Constant(3.0), decay=False),
    "1.E": Parameter((65, 1), Constant(4.0)),
}
STATE = {"1.mean": State((1, 3)), "1.var": State((1, 65), 1.0)}


def store(backend: Any = None, dtype: str = "float32", models: int | None = None) -> ParameterStore:
    seeds = tuple(range(models or 1))
    return ParameterStore(PARAMETERS, STATE, backend or backend_named("cpu"), dtype, seeds, models)


def network(backend: Any = None, **options: Any) -> gn.Network:
    layers = [gn.Dense(5, "relu"), gn.BatchNorm(), gn.Residual([gn.Dense(5), gn.LayerNorm()]), gn.Dense(2)]
    return gn.Network(layers, 3, device=backend or backend_named("cpu"), **options)


def address(array: Any) -> int:
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("models", MODELS)
def test_every_parameter_starts_at_a_256_byte_boundary(backend: Any, models: int | None, dtype: str) -> None:
    held = store(backend, dtype, models)
    for buffer, views in (
        (held.values, held.views), (held.gradients, held.gradient_views), (held.state, held.state_views),
    ):  # fmt: skip
        base = address(buffer)
        if not hasattr(backend.xp, "machine"):  # the stand-in's memory is the host's
            assert base % ALIGNMENT == 0
        for name, view in views.items():
            for one in view if models else [view]:
                assert (address(one) - base) % ALIGNMENT == 0, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("models", MODELS)
def test_no_two_parameters_share_memory(backend: Any, models: int | None, dtype: str) -> None:
    held = store(backend, dtype, models)
    held.values[...] = 0
    for number, view in enumerate(held.views.values(), 1):
        view[...] = number
    for number, (name, view) in enumerate(held.views.items(), 1):
        host = backend.to_host(view)
        assert host.shape == (() if models is None else (models,)) + PARAMETERS[name].shape
        assert (host == number).all(), name
    assert np.count_nonzero(backend.to_host(held.values)) == held.count * (models or 1)


def test_parameters_that_decay_come_first_in_the_vector() -> None:
    held = store()
    place = {name: (address(view) - address(held.values)) // held.dtype.itemsize for name, view in held.views.items()}
    assert place["0.W"] == 0
    assert place["1.E"] == 64
    assert held.decaying == 64 + 65
    assert place["0.b"] == 192
    assert place["1.G"] == 256
    assert held.values.shape == (320,)
    held.values[...] = 0
    held.values[: held.decaying] = 1
    assert {name for name, view in held.views.items() if view.any()} == {"0.W", "1.E"}
    assert all(held.views[name].all() for name in ("0.W", "1.E"))


def test_a_network_without_decaying_parameters_has_an_empty_decaying_slice() -> None:
    parameters = {"b": Parameter((1, 3), decay=False)}
    assert ParameterStore(parameters, {}, backend_named("cpu"), "float32", (0,), None).decaying == 0


def test_a_network_without_parameters_computes_its_loss() -> None:
    bare = gn.Network([gn.ReLU()], 3, device="cpu")
    assert bare.vector.shape == (0,)
    assert dict(bare.parameters) == {}
    value, gradients = bare.gradients(np.ones((2, 3)), np.zeros((2, 3)), gn.SquaredError())
    assert (value, gradients) == (1.0, {})


def test_only_weight_matrices_decay() -> None:
    net = network()
    decaying = {name for name, parameter in net.store.parameters.items() if parameter.decay}
    assert decaying == {"0.W", "2.body.0.W", "3.W"}
    assert list(net.parameters) == [
        "0.W", "0.b", "1.G", "1.B", "2.body.0.W", "2.body.0.b", "2.body.1.G", "2.body.1.B", "3.W", "3.b",
    ]  # fmt: skip
    assert list(net.state) == ["1.mean", "1.var"]


@pytest.mark.parametrize("models", MODELS)
def test_writing_to_a_parameter_writes_to_the_vector(backend: Any, models: int | None) -> None:
    net = network(backend, models=models)
    net.vector[...] = 0
    net.parameters["0.W"][...] = 2.0
    assert backend.to_host(net.vector).sum() == 2.0 * 15 * (models or 1)
    net.vector[...] = 3.0
    assert (backend.to_host(net.parameters["3.b"]) == 3.0).all()
    net.state["1.var"][...] = 4.0
    assert (backend.to_host(net.store.state_views["1.var"]) == 4.0).all()


def test_parameters_and_state_are_read_only_mappings() -> None:
    net = network()
    for mapping in (net.parameters, net.state):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["0.W"] = 1  # type: ignore[index]


@pytest.mark.parametrize("models", MODELS)
def test_the_gradient_vector_has_the_layout_of_the_parameter_vector(backend: Any, models: int | None) -> None:
    net = network(backend, models=models, dtype="float64")
    X, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    _, gradients = net.gradients(X, y, gn.SquaredError())
    assert list(gradients) == list(net.parameters)
    vector, gradient = backend.to_host(net.vector), backend.to_host(net.gradient_vector)
    assert gradient.shape == vector.shape
    filled = np.zeros(vector.shape[-1], bool)
    for name, view in net.parameters.items():
        start = (address(view) - address(net.vector)) // net.dtype.itemsize
        size = int(np.prod(view.shape[1 if models else 0 :]))
        filled[start : start + size] = True
        part = gradient[..., start : start + size].reshape(view.shape)
        np.testing.assert_array_equal(part, gradients[name], err_msg=name)
        assert np.abs(part).max() > 1e-8 or name in ("0.b", "2.body.0.b"), name
    assert filled.sum() == net.store.count
    assert not vector[..., ~filled].any()
    assert not gradient[..., ~filled].any()


def test_returned_gradients_are_copies(backend: Any) -> None:
    net = network(backend)
    X, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    for data in (X, backend.from_host(X)):
        _, first = net.gradients(data, y, gn.SquaredError())
        kept = {name: np.array(net.ops.to_host(g)) if backend.owns(g) else g.copy() for name, g in first.items()}
        net.gradients(data, y + 1, gn.SquaredError())
        for name, value in kept.items():
            now = net.ops.to_host(first[name]) if backend.owns(first[name]) else first[name]
            np.testing.assert_array_equal(now, value, err_msg=name)


def test_reset_restores_initial_values_and_state(backend: Any) -> None:
    held = store(backend, models=2)
    before = backend.to_host(held.values), backend.to_host(held.state)
    held.values[...] = 7
    held.state[...] = 7
    for view in held.views.values():
        view[...] = 5
    held.reset()
    for name, view in held.views.items():
        np.testing.assert_array_equal(backend.to_host(view), np.full(view.shape, PARAMETERS[name].initializer.value))
    assert (backend.to_host(held.state_views["1.var"]) == 1).all()
    assert (backend.to_host(held.state_views["1.mean"]) == 0).all()
    assert before[0].shape == held.values.shape


# Loading


def everything(net: gn.Network) -> dict[str, np.ndarray]:
    """Other values under all the right names."""
    views = {**net.parameters, **net.state}
    return {name: rng.normal(size=tuple(view.shape)) for name, view in views.items()}


@pytest.mark.parametrize("models", MODELS)
def test_load_parameters_writes_every_value(backend: Any, models: int | None) -> None:
    net = network(backend, models=models)
    values = everything(net)
    values["0.W"] = np.asfortranarray(values["0.W"])
    values["0.b"] = values["0.b"].astype("float16")
    net.load_parameters(values | {"3.b": values["3.b"].tolist()})
    for name, view in {**net.parameters, **net.state}.items():
        np.testing.assert_array_equal(backend.to_host(view), np.asarray(values[name], "float32"), err_msg=name)


def test_load_parameters_takes_the_arrays_of_another_network(backend: Any) -> None:
    source, target = network(backend, seed=1), network(backend, seed=2)
    target.load_parameters({**source.parameters, **source.state})
    assert backend.to_host(target.vector).tobytes() == backend.to_host(source.vector).tobytes()


ALL = "0.W, 0.b, 1.G, 1.B, 2.body.0.W, 2.body.0.b, 2.body.1.G, 2.body.1.B, 3.W, 3.b, 1.mean, 1.var"
LOAD_FAULTS: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "missing": ({}, ("0.W",), "missing 0.W"),
    "missing state": ({}, ("1.var",), "missing 1.var"),
    "unexpected": ({"9.W": np.ones((1, 1))}, (), "unexpected 9.W"),
    "transposed": ({"0.W": np.ones((5, 3))}, (), "0.W of shape (5, 3) instead of (3, 5)"),
    "rank 1": ({"0.b": np.ones(5)}, (), "0.b of shape (5,) instead of (1, 5)"),
    "a number": ({"0.b": 1.0}, (), "0.b of shape () instead of (1, 5)"),
    "of a population": ({"0.b": np.ones((2, 1, 5))}, (), "0.b of shape (2, 1, 5) instead of (1, 5)"),
    "all at once": (
        {"9.W": 1, "3.b": np.ones((2, 2))}, ("0.W",),
        "missing 0.W; unexpected 9.W; 3.b of shape (2, 2) instead of (1, 2)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", LOAD_FAULTS)
def test_load_parameters_loads_all_or_nothing(backend: Any, fault: str) -> None:
    changes, absent, got = LOAD_FAULTS[fault]
    net = network(backend)
    values = {name: value for name, value in {**everything(net), **changes}.items() if name not in absent}
    before = contents(net)
    message = f"parameters: expected the 12 arrays {ALL}, got {got}; load them into a network of the same architecture"
    with pytest.raises(ShapeError, match=exactly(message)):
        net.load_parameters(values)
    assert contents(net) == before


@pytest.mark.parametrize(
    "bad",
    [
        np.full((1, 65), "a"), np.full((1, 65), None), np.full((1, 65), 1j), [[1.0], [1.0, 2.0]],
        np.full((1, 65), 1e300), np.ma.masked_array(np.ones((1, 65)), mask=True),
    ],
    ids=["text", "None", "complex", "ragged", "beyond float32", "masked"],
)  # fmt: skip
def test_load_parameters_refuses_values_that_are_not_numbers(bad: Any) -> None:
    """The last value is the bad one: nothing may have been written before it is found."""
    held = store()
    values: dict[str, Any] = {
        name: np.ones(view.shape) * 9 for name, view in {**held.views, **held.state_views}.items()
    }
    before = held.values.tobytes(), held.state.tobytes()
    with pytest.raises(GpunnError, match=FORM):
        held.load(values | {"1.var": bad})
    assert (held.values.tobytes(), held.state.tobytes()) == before


@pytest.mark.parametrize("values", [None, 5, [np.ones(3)]], ids=["None", "number", "list"])
def test_load_parameters_refuses_what_is_not_a_mapping(values: Any) -> None:
    with pytest.raises((ConfigurationError, ShapeError), match=r"^parameters: expected .*, got .*; "):
        network().load_parameters(values)
