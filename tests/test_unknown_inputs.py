"""A network whose inputs are not known before its first data."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError, DataError, GpunnError, ShapeError
from tests.faults import FORM, contents, exactly
from tests.small_network import SQUARED, X, Y, make

UNKNOWN = exactly(
    "Network: expected a known input width, got inputs=None and no data yet; "
    "pass inputs=width, or call fit, predict or gradients first"
)


@pytest.mark.parametrize("name", ["parameters", "state", "vector", "gradient_vector", "inputs", "outputs"])
def test_a_network_of_unknown_inputs_has_no_arrays(name: str) -> None:
    with pytest.raises(ConfigurationError, match=UNKNOWN):
        getattr(make(inputs=None), name)


@pytest.mark.parametrize(
    "call",
    [
        lambda network: network.summary(), lambda network: network.compile(4), lambda network: network.member(0),
        lambda network: network.load_parameters({}),
    ],
    ids=["summary", "compile", "member", "load_parameters"],
)  # fmt: skip
def test_a_network_of_unknown_inputs_refuses_what_needs_arrays(call: Callable[[gn.Network], Any]) -> None:
    with pytest.raises(ConfigurationError, match=UNKNOWN):
        call(make(inputs=None, models=2))


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize(
    "use",
    [
        lambda network: network.predict(X), lambda network: network.gradients(X, Y, SQUARED),
        lambda network: network.evaluate(X.tolist(), Y, loss=SQUARED), lambda network: network.loss_of(X, Y, SQUARED),
    ],
    ids=["predict", "gradients", "evaluate", "loss_of"],
)  # fmt: skip
def test_a_network_takes_its_inputs_from_the_first_data(
    backend: Any, use: Callable[[gn.Network], Any], models: int | None
) -> None:
    late, early = make(backend, inputs=None, models=models), make(backend, models=models)
    use(late)
    use(early)
    assert late.inputs == (3,)
    assert late.outputs == (2,)
    assert contents(late) == contents(early)


def test_a_network_takes_inputs_of_several_axes_from_the_first_data() -> None:
    network = gn.Network([gn.Flatten(), gn.Dense(2)], device="cpu")
    network.predict(np.ones((4, 2, 3)))
    assert network.inputs == (2, 3)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (np.ones(3), ShapeError), (np.array(1.0), ShapeError), ([], ShapeError), ([[], []], GpunnError),
        (np.empty((0, 2)), DataError), ([[1.0, np.nan]], DataError),
    ],
    ids=["rank 1", "rank 0", "no rows", "no columns", "empty", "NaN"],
)  # fmt: skip
def test_refused_data_leave_a_network_of_unknown_inputs_unbuilt(bad: Any, error: type[GpunnError]) -> None:
    network = make(inputs=None)
    with pytest.raises(error, match=r"^X: expected .*, got .*; "):
        network.predict(bad)
    with pytest.raises(ConfigurationError, match=UNKNOWN):
        _ = network.inputs
    assert network.predict(X).shape == (10, 2)


def test_a_population_cannot_take_its_inputs_from_data_for_each_model() -> None:
    """(K, n, d) could be n examples of several axes, so it is refused, and the network is unchanged."""
    network = make(inputs=None, models=2)
    with pytest.raises(GpunnError, match=FORM):
        network.predict(np.ones((2, 4, 3)))
    assert network.predict(X).shape == (2, 10, 2)
