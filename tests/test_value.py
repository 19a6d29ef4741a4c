"""Frozen values: code, JSON, pickles and copies of every layer, loss and initializer."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import hyper
from gpunn.errors import ConfigurationError
from gpunn.initializers import Constant, Gaussian, Glorot, He, Initializer, LeCun, Orthogonal, Uniform, Zeros
from gpunn.layers.activation import Nonlinearity
from gpunn.losses import Loss
from gpunn.value import Value, from_json, to_json
from tests.faults import FORM, exactly

# Each as one writes it, and as it is printed.
VALUES: dict[str, Value] = {
    "Dense(3)": gn.Dense(3),
    "Dense(3, 'relu')": gn.Dense(3, activation="relu"),
    "Dense(3, LeakyReLU(0.2))": gn.Dense(3, gn.LeakyReLU(0.2)),
    "Dense(3, bias=False, initializer=Uniform(0.1))": gn.Dense(3, bias=False, initializer=Uniform(0.1)),
    "Activation('gelu')": gn.Activation("gelu"),
    "Identity()": gn.Identity(),
    "Step()": gn.Step(),
    "ReLU()": gn.ReLU(),
    "LeakyReLU()": gn.LeakyReLU(0.01),
    "LeakyReLU(0.5)": gn.LeakyReLU(0.5),
    "ELU(2.0)": gn.ELU(2),
    "SELU()": gn.SELU(),
    "GELU('tanh')": gn.GELU("tanh"),
    "GELU()": gn.GELU(),
    "Sigmoid()": gn.Sigmoid(),
    "SiLU()": gn.SiLU(),
    "Softplus(3.0)": gn.Softplus(3),
    "Tanh()": gn.Tanh(),
    "Softmax()": gn.Softmax(),
    "LogSoftmax()": gn.LogSoftmax(),
    "BatchNorm()": gn.BatchNorm(),
    "BatchNorm(0.001, 0.2, eps_outside=True)": gn.BatchNorm(1e-3, 0.2, eps_outside=True),
    "LayerNorm(activation='relu', affine=False)": gn.LayerNorm(activation="relu", affine=False),
    "RMSNorm(activation=ELU())": gn.RMSNorm(activation=gn.ELU()),
    "Dropout()": gn.Dropout(),
    "Dropout((0.1, 0.2))": gn.Dropout([0.1, 0.2]),
    "GaussianNoise(0.5)": gn.GaussianNoise(0.5),
    "Embedding(5, 2)": gn.Embedding(5, 2),
    "Columns(0, 2)": gn.Columns(0, 2),
    "Flatten()": gn.Flatten(),
    "Reshape((2, 3))": gn.Reshape([2, 3]),
    "Reshape((6,))": gn.Reshape(6),
    "Sequential([Dense(3), ReLU()])": gn.Sequential([gn.Dense(3), gn.ReLU()]),
    "Residual(Dense(3), shortcut=Flatten())": gn.Residual(gn.Dense(3), shortcut=gn.Flatten()),
    "Residual(Sequential([Dense(3)]))": gn.Residual([gn.Dense(3)]),
    "Branch([Dense(3), Sequential([ReLU(), Dense(3)])], merge='add')": gn.Branch(
        [gn.Dense(3), (gn.ReLU(), gn.Dense(3))], merge="add"
    ),
    "SquaredError()": gn.SquaredError(),
    "SquaredError(reduction='sum')": gn.SquaredError(reduction="sum"),
    "AbsoluteError()": gn.AbsoluteError(),
    "Huber(2.0)": gn.Huber(2),
    "Huber(reduction='sum')": gn.Huber(reduction="sum"),
    "NLL()": gn.NLL(),
    "NLLM()": gn.NLLM(),
    "BinaryCrossEntropy()": gn.BinaryCrossEntropy(),
    "CrossEntropy(0.1)": gn.CrossEntropy(0.1),
    "Constant(0.5)": Constant(0.5),
    "Zeros()": Zeros(),
    "Gaussian()": Gaussian(),
    "Uniform(0.5)": Uniform(0.5),
    "Glorot(2.0)": Glorot(2.0),
    "He()": He(),
    "LeCun()": LeCun(),
    "Orthogonal()": Orthogonal(),
    "SGD(0.1, 0.9, True)": gn.SGD(0.1, momentum=0.9, nesterov=True),
    "SGD(Cosine(0.1, 100))": gn.SGD(gn.schedules.Cosine(0.1, 100)),
    "Adagrad()": gn.Adagrad(),
    "Adadelta()": gn.Adadelta(),
    "RMSprop(centered=True)": gn.RMSprop(centered=True),
    "Adam((0.001, 0.01), epsilon='hat')": gn.Adam([1e-3, 1e-2], epsilon="hat"),
    "AdamW(weight_decay=0.1)": gn.AdamW(weight_decay=0.1),
    "Adamax()": gn.Adamax(),
    "NAdam()": gn.NAdam(),
    "RAdam()": gn.RAdam(),
    "Lion()": gn.Lion(),
    "LBFGS(history_size=5)": gn.LBFGS(history_size=5),
    "EarlyStopping(5)": gn.EarlyStopping(patience=5),
    "EarlyStopping(monitor='accuracy')": gn.EarlyStopping(monitor="accuracy"),
    "GradientTolerance(0.001)": gn.GradientTolerance(1e-3),
    "LossTolerance(0.0001, 2)": gn.LossTolerance(1e-4, patience=2),
    "TimeLimit(60.0)": gn.TimeLimit(60),
    "L1(0.1)": gn.regularization.L1(0.1),
    "L2((0.1, 0.2))": gn.regularization.L2([0.1, 0.2]),
    "HalfL2(0.1)": gn.regularization.HalfL2(0.1),
    "MaxNorm(3.0)": gn.regularization.MaxNorm(3),
    "ClipNorm(1.0)": gn.regularization.ClipNorm(1),
    "ClipValue(0.5)": gn.regularization.ClipValue(0.5),
}


def test_every_public_layer_loss_and_initializer_is_tested_as_a_value() -> None:
    modules = gn, gn.initializers, gn.regularization
    public = {cls for module in modules for cls in vars(module).values() if isinstance(cls, type)}
    named = {cls for cls in public if issubclass(cls, Value)}
    bases = {Value, gn.Layer, Initializer, gn.regularization.Regularization, gn.regularization.Penalty}
    assert {type(value) for value in VALUES.values()} == named - bases


def assert_same(again: Any, code: str) -> None:
    """Another object, which is in every way the value of this code."""
    value = VALUES[code]
    assert type(again) is type(value)
    assert again == value
    assert hash(again) == hash(value)
    assert repr(again) == code


@pytest.mark.parametrize("code", VALUES)
def test_a_value_prints_as_code_that_makes_it(code: str) -> None:
    assert repr(VALUES[code]) == code
    made = eval(code, {**vars(gn.schedules), **vars(gn.regularization), **vars(gn.initializers), **vars(gn)})
    assert made == VALUES[code]
    assert hash(made) == hash(VALUES[code])


@pytest.mark.parametrize("code", VALUES)
def test_a_value_is_stored_as_json_and_restored(code: str) -> None:
    assert_same(from_json(json.loads(json.dumps(to_json(VALUES[code])))), code)


@pytest.mark.parametrize("code", VALUES)
def test_a_value_is_pickled_and_copied(code: str) -> None:
    value = VALUES[code]
    if isinstance(value, gn.Layer):  # fills what is cached on the value
        inputs = 6 if isinstance(value, gn.Reshape) else 3
        models = 2 if code == "Dropout((0.1, 0.2))" else None
        gn.Network([value], inputs, device="cpu", models=models).compile(2)
    for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value), copy.copy(value)):
        assert_same(again, code)


@pytest.mark.parametrize("code", VALUES)
def test_values_are_frozen(code: str) -> None:
    value = VALUES[code]
    for field in fields(value):  # type: ignore[arg-type]
        with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{field.name}'"):
            setattr(value, field.name, 1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'other'"):
        value.other = 1  # type: ignore[attr-defined]


def test_values_with_different_fields_differ() -> None:
    values = list(VALUES.values())
    for i, one in enumerate(values):
        for other in values[i + 1 :]:
            assert one != other
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", sorted(Nonlinearity.named))
def test_an_activation_by_name_equals_the_one_by_value(name: str) -> None:
    by_name, by_value = gn.Dense(3, name), gn.Dense(3, Nonlinearity.named[name]())
    assert by_name.function == by_value.function == gn.Activation(name).resolved
    assert gn.Dense(3, gn.Activation(name)).function == by_name.function


# JSON that is no value

UNKNOWN = (
    "architecture: expected a known layer, loss or initializer, got {}; "
    "import the module that defines it before loading"
)
FIELDS = "load it with the version that wrote it"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, UNKNOWN.format("{}")),
        ({"layer": "Denser"}, UNKNOWN.format('{"layer": "Denser"}')),
        ({"loss": "Dense", "units": 3}, UNKNOWN.format('{"loss": "Dense", "units": 3}')),
        ({"layer": ["Dense"]}, UNKNOWN.format('{"layer": ["Dense"]}')),
        ({"units": 3}, UNKNOWN.format('{"units": 3}')),
        ({"": "Value"}, UNKNOWN.format('{"": "Value"}')),
        (
            {"layer": "Dense"},
            "architecture Dense: expected its own fields, got Dense.__init__() missing 1 required positional argument: "
            f"'units'; {FIELDS}",
        ),
        (
            {"layer": "ReLU", "slope": 3},
            "architecture ReLU: expected its own fields, got ReLU.__init__() got an unexpected keyword argument "
            f"'slope'; {FIELDS}",
        ),
        (
            {"layer": "Dense", "units": {"layer": "ReLU"}},
            "Dense units: expected a whole number >= 1, got ReLU(); give such a number",
        ),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_json_that_describes_no_value_is_refused(data: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=exactly(message)):
        from_json(data)


def test_the_error_for_bad_json_is_short() -> None:
    with pytest.raises(ConfigurationError, match=FORM) as caught:
        from_json({"layer": "x" * 10000})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "data",
    [
        {"layer": "Layer"}, {"layer": "Nonlinearity"}, {"layer": "Pointwise"}, {"layer": "Normalization"},
        {"loss": "Loss"}, {"loss": "Elementwise"}, {"initializer": "Initializer"},
    ],
    ids=lambda data: next(iter(data.values())),
)  # fmt: skip
def test_json_that_names_a_base_class_is_refused(data: Any) -> None:
    with pytest.raises(ConfigurationError, match=exactly(UNKNOWN.format(json.dumps(data)))):
        from_json(data)


@pytest.mark.parametrize("plain", [None, True, 3, 0.5, "text"])
def test_plain_numbers_and_texts_are_their_own_json(plain: Any) -> None:
    assert to_json(plain) == from_json(plain) == plain
    assert from_json(to_json([plain, (plain,)])) == (plain, (plain,))


# Classes of one's own


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Value, "known", dict(Value.known))


@pytest.mark.usefixtures("own_registry")
def test_a_user_defined_layer_is_stored_as_json_and_restored() -> None:
    @dataclass(frozen=True)
    class Doubled(gn.Flatten):
        by: int = 2

    assert repr(Doubled(3)) == "Doubled(3)"
    assert from_json(to_json(Doubled(3))) == Doubled(3)


@pytest.mark.usefixtures("own_registry")
def test_a_user_defined_layer_may_not_take_the_name_of_a_layer_of_gpunn() -> None:
    message = (
        "class Dense: expected a name of its own, got that of gpunn's own layer; "
        "rename it: saved networks find classes by name"
    )
    with pytest.raises(ConfigurationError, match=exactly(message)):
        type("Dense", (gn.Layer,), {"__module__": "mine"})
    type("Dense", (Loss,), {"__module__": "mine"})  # another family has names of its own


@pytest.mark.usefixtures("own_registry")
def test_an_abstract_value_class_is_not_registered() -> None:
    class Base(gn.Layer, abstract=True):
        pass

    assert ("layer", "Base") not in Value.known
    assert repr(Base()).startswith("Base(")


# Numbers


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int8(1), np.float64(1e300)], ids=repr)
def test_a_number_of_any_type_becomes_a_python_float(value: Any) -> None:
    number = hyper.number("here", value)
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize(
    "value", [True, np.True_, None, "1", np.nan, np.inf, -np.inf, 1j, [1.0], np.array(1.0), 10**400, -(10**400)],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_number_refuses_what_is_not_a_finite_number(value: Any) -> None:
    message = f"here: expected a finite number, got {value!r}; choose a value in that range"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        hyper.number("here", value)


@pytest.mark.parametrize(
    ("interval", "expected", "inside", "outside"),
    [
        ({"low": 0.0}, "0 <= value", (0, 1e9), (-1e-9,)),
        ({"low": 0.0, "open_low": True}, "0 < value", (1e-9,), (0, -1)),
        ({"high": 1.0}, "value <= 1", (1, -5), (1.5,)),
        ({"low": 0.0, "high": 1.0, "open_high": True}, "0 <= value < 1", (0, 0.999), (1, -0.1, 2)),
        ({"low": 0.0, "high": 1.0, "open_low": True}, "0 < value <= 1", (1, 0.001), (0, 1.1)),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_number_refuses_values_outside_its_interval(interval: Any, expected: str, inside: Any, outside: Any) -> None:
    for value in inside:
        assert hyper.number("here", value, **interval) == value
    for value in outside:
        message = f"here: expected a number with {expected}, got {value!r}; choose a value in that range"
        with pytest.raises(ConfigurationError, match=exactly(message)):
            hyper.number("here", value, **interval)


@pytest.mark.parametrize("value", [1, 10**18, np.int64(3), np.uint8(2)], ids=repr)
def test_whole_takes_whole_numbers_of_any_type(value: Any) -> None:
    assert type(hyper.whole("here", value)) is int
    assert hyper.whole("here", value) == value


@pytest.mark.parametrize("value", [0, -1, 1.0, True, np.True_, None, "1", [1], np.array(1)], ids=repr)
def test_whole_refuses_what_is_not_a_whole_number(value: Any) -> None:
    message = f"here: expected a whole number >= 1, got {value!r}; give such a number"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        hyper.whole("here", value)


def test_whole_takes_another_smallest_number() -> None:
    assert hyper.whole("here", 0, low=0) == 0
    with pytest.raises(
        ConfigurationError, match=exactly("here: expected a whole number >= 0, got -1; give such a number")
    ):
        hyper.whole("here", -1, low=0)


@pytest.mark.parametrize("value", ["c", 1, True, None, ["a"], np.array("a")], ids=repr)
def test_choice_refuses_what_is_not_among_its_choices(value: Any) -> None:
    assert hyper.choice("here", "b", ("a", "b")) == "b"
    with pytest.raises(
        ConfigurationError, match=exactly(f"here: expected one of 'a', 'b', got {value!r}; choose one of them")
    ):
        hyper.choice("here", value, ("a", "b"))


def test_choice_does_not_take_1_for_true() -> None:
    with pytest.raises(
        ConfigurationError, match=exactly("here: expected one of True, False, got 1; choose one of them")
    ):
        hyper.choice("here", 1, (True, False))
