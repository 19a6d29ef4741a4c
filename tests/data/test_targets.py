"""Targets: the task that follows from a column, encoding and decoding, and what is refused."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.data import Preprocessing
from gpunn.data.targets import Classes, Quantities, Target
from gpunn.errors import ConfigurationError, DataError

X = np.random.default_rng(0).normal(size=(60, 2))


def fitted(y: Any, **options: Any) -> Preprocessing:
    return Preprocessing.fit({"x": X[: len(y)], "y": y}, **options)


LABELS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "text": (["no", "yes", "maybe"] * 20, ("maybe", "no", "yes")),
    "whole": ([3, 1, 2] * 20, (1, 2, 3)),
    "floats": ([0.0, 1.0] * 30, (0, 1)),
    "negative": ([-1, 1] * 30, (-1, 1)),
    "bools": ([True, False] * 30, (False, True)),
    "bytes": (np.array([7, 9] * 30, np.uint8), (7, 9)),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_encoded_as_classes_and_decoded(name: str) -> None:
    y, labels = LABELS[name]
    p = fitted(y)
    assert (p.task, p.classes, p.outputs, p.loss) == ("classification", labels, len(labels), gn.CrossEntropy())
    codes = p.targets({"y": y})
    assert codes.dtype.kind == "i"
    assert [labels[c] for c in codes] == list(y)
    outputs = np.eye(len(labels))[codes]
    assert p.decode(outputs).tolist() == list(y)
    assert p.decode(np.stack([outputs, outputs[::-1]])).tolist() == [list(y), list(y)[::-1]]  # of a population


def test_a_numeric_target_is_standardised_and_decoded() -> None:
    y = 1e6 + 1e3 * X[:, 0]
    p = fitted(y)
    assert (p.task, p.classes, p.outputs, p.loss) == ("regression", None, 1, gn.SquaredError())
    z = p.targets({"y": y}, "float64")
    assert z.shape == (60, 1)
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-9)
    np.testing.assert_allclose(p.decode(z), y, rtol=1e-12)
    assert p.decode(z.astype(np.float32)).dtype == np.float64
    assert p.targets({"y": y}).dtype == np.float32
    assert p.describe()[-1] == ("y", "numeric", "target, standardised")


def test_several_numeric_targets_are_standardised_and_decoded() -> None:
    Y = np.stack([1e3 * X[:, 0], X[:, 1] + 5, np.full(60, 2.0)], axis=1)
    p = fitted(Y)
    assert (p.task, p.outputs) == ("multi-output regression", 3)
    z = p.targets({"y": Y}, "float64")
    np.testing.assert_allclose(z.std(axis=0), [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(p.decode(z), Y, rtol=1e-9)
    assert p.decode(np.stack([z, z])).shape == (2, 60, 3)


def test_whole_numbers_with_few_values_are_classes() -> None:
    assert fitted([i % 20 for i in range(60)]).task == "classification"
    assert fitted([i % 21 for i in range(60)]).task == "regression"
    assert fitted([0.5 * (i % 2) for i in range(60)]).task == "regression"
    assert fitted([i % 3 for i in range(5)]).task == "regression"  # of five rows three values are many
    assert fitted([0, 1, 0]).task == "classification"
    assert fitted([i % 21 for i in range(60)], task="classification").outputs == 21
    assert fitted([i % 2 for i in range(60)], task="regression").task == "regression"
    assert fitted([i % 2 == 0 for i in range(60)], task="regression").decode([[1.0]]).tolist() == [pytest.approx(1.0)]
    assert fitted([f"n{i}" for i in range(60)], task="classification").outputs == 60


def test_leaving_out_the_target_is_refused() -> None:
    """The user may not know that the column is the target: the last column is, or one with a known name."""
    with pytest.raises(ConfigurationError, match=r"^leave_out: expected columns beside .*, got 'id', the target; say"):
        Preprocessing.fit({"a": [1, 2, 3, 4], "id": [1, 2, 1, 2]}, leave_out=["id"])


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "gaps": ({"y": [0, None, 1, 0]}, {}, "^table row 2 column 'y': expected a target in every row, got none in 1 of 4"),
    "all gaps": ({"y": [None] * 4}, {}, "^table row 1 column 'y': expected a target in every row, got none in 4 of 4"),
    "one class": ({"y": ["a"] * 4}, {}, "^table column 'y': expected two classes or more, got 'a' in every row; give"),
    "one number": ({"y": [2.5] * 4}, {}, "^table column 'y': expected two numbers or more, got 2.5 in every row; give"),
    "one whole number": ({"y": [3] * 4}, {"task": "regression"}, "expected two numbers or more, got 3.0 in every row;"),
    "names": ({"y": [f"n{i}" for i in range(60)]}, {}, "^table column 'y': expected classes that come again, got 60 d"),
    "fractions": ({"y": [0.5, 1.0, 2.0]}, {"task": "classification"}, "^table row 1 column 'y': expected whole number"),
    "text": ({"y": ["a", "b", "a"]}, {"task": "regression"}, "^table row 1 column 'y': expected a number, got 'a'; co"),
    "times": ({"y": np.arange(4).astype("M8[D]")}, {}, "^table row 1 column 'y': expected a numeric column, got 0.0, "),
}  # fmt: skip


def test_several_constant_targets_are_refused() -> None:
    table = {"x": [0, 1, 2], "a": [1.0] * 3, "b": [2.0] * 3, "c": [0.0, 1.0, 2.0]}
    with pytest.raises(DataError, match="^table column 'a': expected two numbers or more, got 1.0 in every row; give"):
        Preprocessing.fit(table, target=["a", "b"])
    assert Preprocessing.fit(table, target=["a", "c"]).outputs == 2


@pytest.mark.parametrize("fault", WRONG)
def test_columns_that_cannot_be_a_target_are_refused(fault: str) -> None:
    columns, options, message = WRONG[fault]
    with pytest.raises(DataError, match=message):
        Preprocessing.fit({"x": X[: len(columns["y"])], **columns}, **options)


def test_a_table_without_a_target_is_refused() -> None:
    table = gn.data.read({"x": X, "y": [0, 1] * 30})
    with pytest.raises(
        ConfigurationError, match="^Preprocessing target: expected the name of a column, got None; choose"
    ):
        Preprocessing.fit(table.without("y"))
    with pytest.raises(ConfigurationError, match="^Preprocessing task: expected one target for classes, got 2; train"):
        Preprocessing.fit(table, ["x0", "y"], task="classification")


def test_targets_unlike_those_of_training_are_refused() -> None:
    p = fitted(["a", "b"] * 30)
    with pytest.raises(
        DataError, match=r"^table row 2 column 'y': expected one of 2 classes: 'a', 'b', got 'c'; correct"
    ):
        p.targets({"y": ["a", "c"]})
    many = fitted([i % 12 for i in range(60)])
    with pytest.raises(DataError, match=r"expected one of 12 classes: 0, 1, 2, 3, 4, 5, 6, 7, \.\.\., got 12\.0; corr"):
        many.targets({"y": [0, 12]})
    with pytest.raises(DataError, match=r"^table: expected a column 'y', got columns 'x0', 'x1'; correct the name"):
        p.targets({"x": X})
    with pytest.raises(DataError, match="expected a target in every row, got none in 1 of 2 rows; fill them, or leave"):
        p.targets({"y": ["a", None]})
    q = fitted(X[:, 0])
    with pytest.raises(
        DataError, match="^table row 2 column 'y': expected a number near those of training, in the range"
    ):
        q.targets({"y": [1.0, 1e300]})


BAD: dict[str, tuple[Any, str]] = {
    "one label": (lambda: Classes("y", ("a",)), r"^Classes: expected two sorted labels or more, got \('a',\); fit it"),
    "unsorted": (lambda: Classes("y", ("b", "a")), "^Classes: expected two sorted labels or more, got"),
    "twice": (lambda: Classes("y", ("a", "a")), "^Classes: expected two sorted labels or more, got"),
    "mixed": (lambda: Classes("y", (0, True)), "^Classes: expected two sorted labels or more, got"),
    "fractions": (lambda: Classes("y", (0.5, 1.5)), "^Classes: expected two sorted labels or more, got"),
    "name": (lambda: Classes(1, (0, 1)), "^Classes: expected two sorted labels or more, got"),
    "lengths": (
        lambda: Quantities(("a",), (0.0, 1.0), (1.0,)),
        r"^Quantities: expected a mean and a deviation for each",
    ),
    "nothing": (
        lambda: Quantities((), (), ()),
        r"^Quantities: expected a mean and a deviation for each, got \(\); fit",
    ),
    "column": (lambda: Quantities((1,), (0.0,), (1.0,)), "^Quantities: expected a mean and a deviation for each, got"),
    "mean": (
        lambda: Quantities(("a",), (np.inf,), (1.0,)),
        "^Quantities means: expected a finite number, got inf; choo",
    ),
    "deviation": (
        lambda: Quantities(("a",), (0.0,), (0.0,)),
        "^Quantities deviations: expected a number with 0 < value",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_target_encoders_refuse_values_that_make_no_sense(fault: str) -> None:
    make, message = BAD[fault]
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize("method", ["kinds", "width", "encode", "decode", "describe"])
def test_a_user_defined_target_encoder_needs_all_methods(method: str) -> None:
    class Nothing(Target, abstract=True):
        pass

    arguments: list[Any] = {"encode": [None, None], "decode": [None], "describe": []}.get(method, [])
    with pytest.raises(NotImplementedError, match=f"^Nothing needs (an? )?{method}"):
        getattr(Nothing(), method)(*arguments)


def test_pickles_of_earlier_versions_find_the_targets() -> None:
    from gpunn.data import goals, targets

    assert (goals.Classes, goals.Quantities) == (targets.Classes, targets.Quantities)
