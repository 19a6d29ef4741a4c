"""Bad arguments of a network, each refused with its message."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError
from tests.faults import exactly
from tests.small_network import WHOLE, make

SEED = "expected integers from 0 to 2**63 - 1, got {}; pass seed=0 or a list of one seed for each model"
ONE_LAYER = "expected one layer or more, such as [Dense(10)], got {}; {}"
OPTION_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no inputs": ({"inputs": 0}, f"Network inputs: {WHOLE.format(0)}"),
    "negative inputs": ({"inputs": -3}, f"Network inputs: {WHOLE.format(-3)}"),
    "fractional inputs": ({"inputs": 2.5}, f"Network inputs: {WHOLE.format(2.5)}"),
    "inputs as text": ({"inputs": "3"}, f"Network inputs: {WHOLE.format(repr('3'))}"),
    "inputs of a bool": ({"inputs": True}, f"Network inputs: {WHOLE.format(True)}"),
    "a zero in the shape": ({"inputs": (3, 0)}, f"Network inputs: {WHOLE.format(0)}"),
    "no models": ({"models": 0}, f"Network models: {WHOLE.format(0)}"),
    "fractional models": ({"models": 2.0}, f"Network models: {WHOLE.format(2.0)}"),
    "models of a bool": ({"models": True}, f"Network models: {WHOLE.format(True)}"),
    "too few seeds": (
        {"models": 3, "seed": [1, 2]},
        "Network seed: expected one seed or 3 of them, got 2 seeds; set models= to the number of seeds",
    ),
    "too many seeds": (
        {"seed": [1, 2]}, "Network seed: expected one seed, got 2 seeds; set models= to the number of seeds",
    ),
    "a negative seed": ({"seed": -1}, f"Network seed: {SEED.format(-1)}"),
    "a fractional seed": ({"seed": 1.5}, f"Network seed: {SEED.format(1.5)}"),
    "no seed": ({"seed": None}, f"Network seed: {SEED.format(None)}"),
    "a huge seed": ({"seed": 2**63}, f"Network seed: {SEED.format(2**63)}"),
    "a bool among the seeds": ({"seed": [0, True], "models": 2}, f"Network seed: {SEED.format(True)}"),
    "nested seeds": ({"seed": [[1]], "models": 1}, f"Network seed: {SEED.format([1])}"),
    **{
        f"dtype {name}": (
            {"dtype": dtype},
            f"Network dtype: expected one of 'float32', 'float64', got {name!r}; choose one of them",
        )
        for name, dtype in {
            "float31": "float31", "float": float, "int": int, "int64": np.int64, "None": None,
            "complex128": "complex128", "object": np.dtype(object),
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("fault", OPTION_FAULTS)
def test_a_network_refuses_bad_arguments(fault: str) -> None:
    options, message = OPTION_FAULTS[fault]
    with pytest.raises(ConfigurationError, match=exactly(message)):
        make(**options)


@pytest.mark.parametrize("options", [{"seed": np.array(3)}, {"seed": 2**63 - 1, "models": 2}], ids=repr)
def test_a_network_refuses_bad_seeds(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"^Network seed: expected .*, got .*; "):
        make(**options)


INSTANCE = "write Dense(...), an instance, rather than Dense"
LIST = "pass a list of layers"


@pytest.mark.parametrize(
    ("given", "got", "fix"),
    [
        ([], "an empty list", LIST),
        ([gn.Dense], "<class 'gpunn.layers.dense.Dense'>", INSTANCE),
        ([gn.Dense(2), gn.ReLU], "<class 'gpunn.layers.pointwise.ReLU'>", INSTANCE),
        (gn.Dense, "<class 'gpunn.layers.dense.Dense'>", INSTANCE),
        (["relu"], "'relu'", LIST),
        ("relu", "'relu'", LIST),
        ([[gn.Dense(2)]], "[Dense(2)]", LIST),
        ([gn.SquaredError()], "SquaredError()", LIST),
        ({"a": 1}, "{'a': 1}", LIST),
        (5, "5", LIST),
        (None, "None", LIST),
        ([gn.Dense(2), None], "None", LIST),
    ],
)
def test_a_network_refuses_what_is_not_a_list_of_layers(given: Any, got: str, fix: str) -> None:
    with pytest.raises(ConfigurationError, match=exactly(f"Sequential: {ONE_LAYER.format(got, fix)}")):
        gn.Network(given, 3, device="cpu")


@pytest.mark.parametrize(
    ("layer", "path", "field"),
    [
        (gn.Dropout([0.1, 0.2]), "0", "Dropout rate"),
        (gn.GaussianNoise([0.1, 0.2]), "0", "GaussianNoise deviation"),
        (gn.Residual(gn.Dropout([0.1, 0.2])), "0.body", "Dropout rate"),
        (gn.Branch([gn.Dense(3), [gn.ReLU(), gn.Dropout([0.1, 0.2])]]), "0.1.1", "Dropout rate"),
    ],
    ids=repr,
)
def test_a_network_refuses_hyper_parameters_for_another_number_of_models(
    layer: gn.Layer, path: str, field: str
) -> None:
    fix = "give one for each model and set models= to their count"
    for models, expected in ((3, "one number or 3 of them"), (None, "one number")):
        message = f"layers.{path} {field}: expected {expected}, got 2 numbers; {fix}"
        with pytest.raises(ConfigurationError, match=exactly(message)):
            gn.Network([layer], 3, device="cpu", models=models)
    assert gn.Network([layer], 3, device="cpu", models=2).models == 2


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64")], ids=repr)
def test_a_network_takes_its_dtype_by_name_or_object(dtype: Any) -> None:
    assert make(dtype=dtype).vector.dtype == np.float64


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [gn.Embedding(5, 1), gn.Flatten()],
            r"layers\.0 Embedding: expected scale=1 beside it, got scale=3; scale the",
        ),
        (
            [gn.Branch([gn.Dense(1), [gn.Embedding(5, 1), gn.Flatten()]])],
            r"layers\.0\.1\.0 Embedding: expected scale=1",
        ),
    ],
)
def test_a_network_with_an_embedding_refuses_a_scale(layers: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        gn.Network(layers, 1, device="cpu", scale=3.0)


def test_an_embedding_beside_numbers_refuses_indices_beyond_float32() -> None:
    layers = [gn.Branch([[gn.Embedding(2**24 + 8, 1), gn.Flatten()], gn.Dense(1)])]
    with pytest.raises(ConfigurationError, match=r"Embedding: expected at most 16777216 categories beside layers of"):
        gn.Network(layers, 1, device="cpu")
