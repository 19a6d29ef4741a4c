"""Layers as values: what they refuse, and the layer of one model of a population."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError, ShapeError
from gpunn.frame import plan_layer
from gpunn.layers.activation import Nonlinearity
from gpunn.layers.base import walk
from tests.faults import exactly

NAMES = (
    "elu, gelu, identity, leaky_relu, log_softmax, relu, selu, sigmoid, silu, softmax, softplus, step, tanh, "
    "or an activation such as gn.ReLU()"
)


def refuses(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=exactly(message)):
        make()


# Numbers and names

WHOLE_FIELDS: dict[str, Callable[[Any], Any]] = {
    "Dense units": lambda value: gn.Dense(value),
    "Embedding categories": lambda value: gn.Embedding(value, 2),
    "Embedding width": lambda value: gn.Embedding(2, value),
    "Reshape shape": lambda value: gn.Reshape((2, value)),
    "Columns stop": lambda value: gn.Columns(0, value),
}


@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, True, None, "3", [3], math.nan], ids=repr)
@pytest.mark.parametrize("field", WHOLE_FIELDS)
def test_layers_refuse_sizes_that_are_not_whole_numbers(field: str, value: Any) -> None:
    message = f"{field}: expected a whole number >= 1, got {value!r}; give such a number"
    refuses(lambda: WHOLE_FIELDS[field](value), message)


@pytest.mark.parametrize("units", [np.int64(3), np.uint8(3)], ids=repr)
def test_layers_take_sizes_that_are_numpy_integers(units: Any) -> None:
    assert gn.Dense(units) == gn.Dense(3)
    assert repr(gn.Dense(units)) == "Dense(3)"


NUMBER_FIELDS: dict[str, tuple[Callable[[Any], Any], str, tuple[Any, ...]]] = {
    "Dropout rate": (gn.Dropout, "a number with 0 <= value < 1", (1.0, 1, -0.1, 2.0)),
    "GaussianNoise deviation": (gn.GaussianNoise, "a number with 0 <= value", (-0.1,)),
    "LeakyReLU slope": (gn.LeakyReLU, "a finite number", ()),
    "ELU alpha": (gn.ELU, "a number with 0 < value", (0, -1.0)),
    "Softplus beta": (gn.Softplus, "a number with 0 < value", (0.0, -1.0)),
    "BatchNorm eps": (gn.BatchNorm, "a number with 0 < value", (0, -1e-5)),
    "BatchNorm momentum": (lambda value: gn.BatchNorm(momentum=value), "a number with 0 <= value <= 1", (-0.1, 1.1)),
    "LayerNorm eps": (gn.LayerNorm, "a number with 0 < value", (0, -1e-5)),
    "RMSNorm eps": (gn.RMSNorm, "a number with 0 < value", (0, -1e-5)),
}


@pytest.mark.parametrize("field", NUMBER_FIELDS)
def test_layers_refuse_numbers_outside_their_interval(field: str) -> None:
    make, expected, outside = NUMBER_FIELDS[field]
    for value in (*outside, math.nan, math.inf, None, "0.5", True, 10**400):
        refuses(
            lambda value=value: make(value),
            f"{field}: expected {expected}, got {value!r}; choose a value in that range",
        )


@pytest.mark.parametrize(
    ("field", "make"),
    [("Dropout rate", gn.Dropout), ("GaussianNoise deviation", gn.GaussianNoise)],
    ids=["dropout", "noise"],
)
def test_layers_refuse_one_of_several_numbers_outside_its_interval(field: str, make: Any) -> None:
    refuses(lambda: make([]), f"{field}: expected {NUMBER_FIELDS[field][1]}, got []; choose a value in that range")
    for k, values in enumerate(([-1, 0.1], [0.1, -1], [0.1, 0.2, -1])):
        message = f"{field}[{k}]: expected {NUMBER_FIELDS[field][1]}, got -1; choose a value in that range"
        refuses(lambda values=values: make(values), message)
    assert make(np.array([0.25, 0.5])) == make((0.25, 0.5))


ACTIVATED: dict[str, Callable[[Any], Any]] = {
    "Dense activation": lambda name: gn.Dense(3, name),
    "BatchNorm activation": lambda name: gn.BatchNorm(activation=name),
    "LayerNorm activation": lambda name: gn.LayerNorm(activation=name),
    "RMSNorm activation": lambda name: gn.RMSNorm(activation=name),
    "Activation function": gn.Activation,
}


@pytest.mark.parametrize("name", ["rellu", "ReLU", "", 3, gn.ReLU, ["relu"], gn.Dropout(), True], ids=repr)
@pytest.mark.parametrize("field", ACTIVATED)
def test_layers_refuse_unknown_activations(field: str, name: Any) -> None:
    refuses(lambda: ACTIVATED[field](name), f"{field}: expected one of {NAMES}, got {name!r}; use one of these names")


@pytest.mark.parametrize("name", [None, gn.ReLU()], ids=repr)
def test_the_layer_activation_takes_names_only(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^Activation function: expected .*, got .*; "):
        gn.Activation(name)


def test_the_error_for_an_unknown_activation_lists_every_name() -> None:
    assert ", ".join(sorted(Nonlinearity.named)) == NAMES.partition(", or")[0]


@pytest.mark.parametrize("value", ["yes", 1, None], ids=repr)
@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("Dense bias", lambda value: gn.Dense(3, bias=value)),
        ("BatchNorm affine", lambda value: gn.BatchNorm(affine=value)),
        ("LayerNorm affine", lambda value: gn.LayerNorm(affine=value)),
        ("BatchNorm eps_outside", lambda value: gn.BatchNorm(eps_outside=value)),
    ],
    ids=["bias", "batch affine", "layer affine", "eps_outside"],
)
def test_layers_refuse_switches_that_are_not_bools(field: str, make: Any, value: Any) -> None:
    refuses(lambda: make(value), f"{field}: expected one of True, False, got {value!r}; choose one of them")


def test_columns_refuses_what_is_not_a_range() -> None:
    assert gn.Columns(np.int64(0), 2) == gn.Columns(0, 2)
    for start in (-1, 1.0, True, None):
        refuses(
            lambda start=start: gn.Columns(start, 2),
            f"Columns start: expected a whole number >= 0, got {start!r}; give such a number",
        )
    for start, stop in ((2, 2), (3, 2)):
        refuses(
            lambda start=start, stop=stop: gn.Columns(start, stop),
            f"Columns: expected stop above start, got {start} and {stop}; take one column or more",
        )


def test_layers_refuse_unknown_values_of_options() -> None:
    refuses(
        lambda: gn.GELU("fast"), "GELU approximate: expected one of 'none', 'tanh', got 'fast'; choose one of them"
    )  # fmt: skip
    refuses(
        lambda: gn.Branch([gn.ReLU()], merge="sum"),
        "Branch merge: expected one of 'concatenate', 'add', got 'sum'; choose one of them",
    )


# Layers inside layers

INSTANCE = "write Dense(...), an instance, rather than Dense"
LIST = "pass a list of layers"


@pytest.mark.parametrize(
    ("where", "make"),
    [
        ("Sequential", lambda value: gn.Sequential([gn.ReLU(), value])),
        ("Residual body", gn.Residual),
        ("Residual shortcut", lambda value: gn.Residual(gn.ReLU(), shortcut=value)),
        ("Branch", lambda value: gn.Branch([gn.ReLU(), value])),
    ],
    ids=["Sequential", "body", "shortcut", "Branch"],
)
@pytest.mark.parametrize(
    ("value", "hint"),
    [(gn.Dense, INSTANCE), ("relu", LIST), (3, LIST), (gn.SquaredError(), LIST), (None, LIST)],
    ids=["class", "name", "number", "loss", "None"],
)
def test_layers_refuse_inner_layers_that_are_not_layers(where: str, make: Any, value: Any, hint: str) -> None:
    if where == "Residual shortcut" and value is None:
        assert make(None).shortcut is None
        return
    message = f"{where}: expected one layer or more, such as [Dense(10)], got {value!r}; {hint}"
    refuses(lambda: make(value), message)


@pytest.mark.parametrize(
    ("where", "make"),
    [
        ("Sequential", lambda: gn.Sequential([])), ("Sequential", lambda: gn.Residual([])),
        ("Sequential", lambda: gn.Branch([[gn.ReLU()], []])), ("Branch", lambda: gn.Branch([])),
    ],
    ids=["Sequential", "Residual", "inside Branch", "Branch"],
)  # fmt: skip
def test_layers_refuse_an_empty_list_of_inner_layers(where: str, make: Any) -> None:
    refuses(make, f"{where}: expected one layer or more, such as [Dense(10)], got an empty list; {LIST}")


# Shapes

FLATTEN = "insert Flatten() before it"
PLAN_FAULTS: dict[str, tuple[list[Any], Any, str]] = {
    **{
        f"{type(layer).__name__} of images": (
            [layer], (28, 28),
            f"layers.0 {type(layer).__name__}: expected x of shape (n, features), got (n, 28, 28); {FLATTEN}",
        )
        for layer in (gn.Dense(3), gn.BatchNorm(), gn.LayerNorm(), gn.RMSNorm(), gn.Columns(0, 1))
    },
    "Columns that are not there": (
        [gn.Columns(1, 4)], 3, "layers.0 Columns: expected at least 4 columns, got 3; count columns from 0",
    ),
    "Dense of numbers": (
        [gn.Dense(2)], (), f"layers.0 Dense: expected x of shape (n, features), got (n,); {FLATTEN}",
    ),
    "the second layer": (
        [gn.Reshape((2, 2)), gn.Dense(3)], 4,
        f"layers.1 Dense: expected x of shape (n, features), got (n, 2, 2); {FLATTEN}",
    ),
    "Reshape": (
        [gn.Dense(6), gn.Reshape((2, 2))], 3,
        "layers.1 Reshape: expected inputs of 4 numbers for shape (2, 2), got inputs of shape (6,); "
        "make the two products equal",
    ),
    "Residual": (
        [gn.Residual(gn.Dense(2))], 3,
        "layers.0 Residual: expected a body that returns the shape (3,) of what it is added to, got (2,); "
        "give a shortcut such as shortcut=Dense(units)",
    ),
    "Residual with a shortcut": (
        [gn.Residual(gn.Dense(2), shortcut=gn.Dense(4))], 3,
        "layers.0 Residual: expected a body that returns the shape (4,) of what it is added to, got (2,); "
        "give a shortcut such as shortcut=Dense(units)",
    ),
    "Branch of different ranks": (
        [gn.Branch([gn.Dense(2), gn.Reshape((3, 1))])], 3,
        "layers.0 Branch: expected branches whose outputs differ in the last axis only, got (2,), (3, 1); "
        "end the branches in Dense(units) or Flatten()",
    ),
    "Branch of different rows": (
        [gn.Branch([gn.Reshape((3, 2)), gn.Reshape((2, 3))])], 6,
        "layers.0 Branch: expected branches whose outputs differ in the last axis only, got (3, 2), (2, 3); "
        "end the branches in Dense(units) or Flatten()",
    ),
    "Branch to be added": (
        [gn.Branch([gn.Dense(2), gn.Dense(3)], merge="add")], 3,
        "layers.0 Branch: expected branches whose outputs agree, got (2,), (3,); "
        "end the branches in Dense(units) or Flatten()",
    ),
    "inside a body": (
        [gn.Dense(4), gn.Residual([gn.Dense(4), gn.Reshape((2, 2)), gn.Dense(4)])], 3,
        f"layers.1.body.2 Dense: expected x of shape (n, features), got (n, 2, 2); {FLATTEN}",
    ),
    "inside a shortcut": (
        [gn.Residual(gn.Dense(2), shortcut=gn.BatchNorm())], (2, 2),
        f"layers.0.body Dense: expected x of shape (n, features), got (n, 2, 2); {FLATTEN}",
    ),
    "deep inside": (
        [gn.ReLU(), gn.Residual([gn.ReLU(), gn.Branch([gn.Dense(2), [gn.Reshape((3, 1)), gn.RMSNorm()]])])], 3,
        f"layers.1.body.1.1.1 RMSNorm: expected x of shape (n, features), got (n, 3, 1); {FLATTEN}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLAN_FAULTS)
def test_layers_refuse_inputs_whose_shapes_do_not_fit(fault: str) -> None:
    layers, inputs, message = PLAN_FAULTS[fault]
    with pytest.raises(ShapeError, match=exactly(message)):
        gn.Network(layers, inputs, device="cpu")


@pytest.mark.parametrize(
    ("layer", "shape", "output"),
    [
        (gn.Flatten(), (2, 3, 4), (24,)), (gn.Flatten(), (), (1,)), (gn.Reshape((4, 6)), (2, 3, 4), (4, 6)),
        (gn.Columns(1, 3), (5,), (2,)),
        (gn.Embedding(5, 2), (3,), (3, 2)), (gn.Embedding(5, 2), (3, 4), (3, 4, 2)), (gn.Dense(7), (3,), (7,)),
        (gn.Branch([gn.Dense(2), gn.Dense(3), gn.Flatten()]), (4,), (9,)),
        (gn.Branch([gn.Reshape((2, 3)), gn.Reshape((2, 3))]), (6,), (2, 6)),
        (gn.Residual([gn.Dense(2)], shortcut=gn.Dense(2)), (5,), (2,)),
    ],
    ids=repr,
)  # fmt: skip
def test_layers_plan_the_shape_of_their_output(layer: gn.Layer, shape: Any, output: Any) -> None:
    assert plan_layer(layer, shape).plan.output == output


# A member of a population

NESTED = gn.Sequential(
    [
        gn.Dropout([0.1, 0.2]),
        gn.Residual([gn.Dense(3), gn.GaussianNoise([0.3, 0.4])], shortcut=gn.Dropout((0.5, 0.6))),
        gn.Branch([gn.Dropout(0.7), [gn.Reshape((3, 1)), gn.Flatten(), gn.Dropout([0.8, 0.9])]]),
    ]
)


def test_a_layer_of_one_model_has_the_numbers_of_that_model() -> None:
    assert NESTED.of_model(1) == gn.Sequential(
        [
            gn.Dropout(0.2),
            gn.Residual([gn.Dense(3), gn.GaussianNoise(0.4)], shortcut=gn.Dropout(0.6)),
            gn.Branch([gn.Dropout(0.7), [gn.Reshape((3, 1)), gn.Flatten(), gn.Dropout(0.9)]]),
        ]
    )


@pytest.mark.parametrize("layer", [gn.Dense(3, "relu"), gn.Reshape((2, 3)), gn.Dropout(0.5), gn.BatchNorm()], ids=repr)
def test_a_layer_without_numbers_for_each_model_is_the_same_for_every_model(layer: gn.Layer) -> None:
    assert layer.of_model(5) == layer


def test_layers_are_walked_with_their_paths() -> None:
    found = [(path, type(layer).__name__) for path, layer in walk(NESTED)]
    assert found == [
        ("", "Sequential"), ("0", "Dropout"), ("1", "Residual"), ("1.body", "Sequential"), ("1.body.0", "Dense"),
        ("1.body.1", "GaussianNoise"), ("1.shortcut", "Dropout"), ("2", "Branch"), ("2.0", "Dropout"),
        ("2.1", "Sequential"), ("2.1.0", "Reshape"), ("2.1.1", "Flatten"), ("2.1.2", "Dropout"),
    ]  # fmt: skip
    planned = {node.path: type(node.layer).__name__ for node in plan_layer(NESTED, (3,)).walk()}
    assert planned == dict(found)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (gn.Embedding(5, 2), True), (gn.Dense(3), False), (gn.Sequential([gn.Embedding(5, 2), gn.Flatten()]), True),
        (gn.Branch([gn.Embedding(5, 2), gn.Embedding(5, 3)]), True),
        (gn.Branch([gn.Embedding(5, 2), gn.ReLU()]), False),
        (gn.Residual(gn.Embedding(5, 1), shortcut=gn.Embedding(5, 1)), True), (gn.Residual(gn.Embedding(5, 1)), False),
    ],
    ids=repr,
)  # fmt: skip
def test_embeddings_and_layers_that_begin_with_one_take_integers(layer: gn.Layer, expected: bool) -> None:
    assert layer.integer_input is expected


@pytest.mark.parametrize("method", ["plan", "forward", "backward"])
def test_a_user_defined_layer_needs_all_methods(method: str) -> None:
    class Nothing(gn.Layer, abstract=True):
        pass

    arguments: list[Any] = [(3,)] if method == "plan" else [None, None]
    with pytest.raises(NotImplementedError, match=f"^Nothing needs a {method} method$"):
        getattr(Nothing(), method)(*arguments)


def test_a_frame_names_a_buffer_that_the_plan_lacks() -> None:
    frame = gn.Network([gn.Dense(2)], 3, device="cpu").compile(4).frame
    with pytest.raises(AttributeError, match=exactly("this frame has no 'scratch': name it in the layer's plan")):
        _ = frame.scratch


def test_a_subclass_of_an_activation_does_not_take_its_name() -> None:
    class Warmer(gn.Tanh):
        """Has no name of its own."""

    assert type(gn.Dense(2, "tanh").function) is gn.Tanh
    assert gn.Dense(2, Warmer()).function == Warmer()
