"""A number or one for each model: how it is checked, counted and given to one model or to a formula."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError
from gpunn.fields import number, whole
from gpunn.per_model import PerModel, as_array, check_count, check_models, entries_of, for_formula, mapped, of_model
from gpunn.schedules import Cosine
from gpunn.value import Value
from tests.faults import exactly

FIX = "give one for each model and set models= to their count"


@dataclass(frozen=True)
class Pack(Value, abstract=True):
    """A value with such a field, a tuple that is none, and values inside."""

    family = "pack"
    field_rules = {"weight": PerModel(number())}

    weight: Any = 1.0
    shape: tuple[int, ...] = (2, 3)
    inner: Any = None


@pytest.mark.parametrize(
    "value", [[0.1, 0.2], (0.1, 0.2), np.array([0.1, 0.2])], ids=lambda value: type(value).__name__
)
def test_one_number_for_each_model(value: Any) -> None:
    numbers = PerModel(number())("here", value)
    assert numbers == (0.1, 0.2)
    assert {type(number) for number in numbers} == {float}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("value", "where", "got"),
    [
        ([], "here", "[]"), ((), "here", "()"), ([0.1, "a"], "here[1]", "'a'"), ([0.1, None], "here[1]", "None"),
        ([[0.1], [0.1, 0.2]], "here[0]", "[0.1]"), ([0.1, True], "here[1]", "True"),
        (np.array([[0.1]]), "here", "array([[0.1]])"), (np.array([]), "here", "[]"), ("ab", "here", "'ab'"),
        ({0.1, 0.2} - {0.2}, "here", "{0.1}"), (np.array([0.1, np.nan]), "here[1]", "nan"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_number_for_each_model(value: Any, where: str, got: str) -> None:
    message = f"{where}: expected a finite number, got {got}; choose a value in that range"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        PerModel(number())("here", value)


def test_every_entry_of_a_field_for_models_keeps_its_rule() -> None:
    rule = PerModel(whole())
    assert rule("here", 3) == 3
    assert rule("here", [1, np.int64(2)]) == (1, 2)
    with pytest.raises(
        ConfigurationError, match=exactly("here[1]: expected a whole number >= 1, got 0; give such a number")
    ):
        rule("here", [1, 0])


@pytest.mark.parametrize(
    ("value", "models", "message"),
    [
        (gn.Dropout([0.1, 0.2]), 3, "Dropout rate: expected one number or 3 of them, got 2"),
        (gn.Dropout([0.1, 0.2]), None, "Dropout rate: expected one number, got 2"),
        (gn.Adam([1e-3, Cosine(1e-3, 10)]), 3, "Adam rate: expected one number or 3 of them, got 2"),
        (gn.Lion(betas=(0.9, [0.8, 0.9])), None, "Lion betas[1]: expected one number, got 2"),
        (gn.regularization.L2([0.1]), 2, "L2 strength: expected one number or 2 of them, got 1"),
    ],
    ids=repr,
)
def test_entries_for_another_number_of_models_are_refused(value: Value, models: int | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=exactly(f"{message}; {FIX}")):
        check_models(value, models)


def test_entries_for_as_many_models_are_taken() -> None:
    for value in (Pack(), Pack([1, 2]), gn.Adam([1e-3, 1e-2]), gn.Adam(betas=([0.8, 0.9], 0.99))):
        check_models(value, 2)
    check_models(Pack(), None)


def test_an_error_says_what_is_counted_and_where() -> None:
    with pytest.raises(
        ConfigurationError, match=exactly(f"layers.0 Pack weight: expected one number, got 2 numbers; {FIX}")
    ):
        check_models(Pack([1, 2]), None, "layers.0 Pack", unit=" numbers")
    with pytest.raises(ConfigurationError, match=exactly(f"here: expected one rate or 3 of them, got 1; {FIX}")):
        check_count("here", (1.0,), 3, "rate")


def test_a_model_has_its_own_entries_in_all_values_inside() -> None:
    pack = Pack([1, 2], inner=(Pack([3, 4]), Pack(5), "text", Pack(inner=Pack([6, 7]))))
    assert of_model(pack, 1) == Pack(2, inner=(Pack(4), Pack(5), "text", Pack(inner=Pack(7))))
    assert of_model(Pack(), 1) == Pack()


def test_a_model_has_its_own_rate_and_betas() -> None:
    optimizer = gn.Adam([1e-3, Cosine(1e-2, 10)], betas=(0.9, [0.98, 0.99]), weight_decay=[0.0, 0.1])
    assert optimizer.of_model(0) == gn.Adam(1e-3, betas=(0.9, 0.98))
    assert optimizer.of_model(1) == gn.Adam(Cosine(1e-2, 10), betas=(0.9, 0.99), weight_decay=0.1)


def test_a_formula_gets_a_number_or_a_column() -> None:
    assert for_formula(0.5, Backend(), "float32") == 0.5
    column = for_formula((0.5, 0.25), Backend(), "float32")
    assert column.dtype == np.float32
    assert column.tolist() == [[0.5], [0.25]]


@pytest.mark.parametrize(
    ("value", "models", "expected"),
    [(2.0, None, [[2.0]]), (2.0, 2, [[[2.0]], [[2.0]]]), ((2.0, 3.0), 2, [[[2.0]], [[3.0]]])],
)
def test_an_array_has_one_entry_for_each_model(value: Any, models: int | None, expected: Any) -> None:
    assert as_array(value, models, 2, np.float64).tolist() == expected


def test_numbers_one_by_one() -> None:
    assert entries_of(2.0) == (2.0,)
    assert entries_of(2.0, 3) == (2.0, 2.0, 2.0)
    assert entries_of((1.0, 2.0), 2) == (1.0, 2.0)
    assert mapped(lambda x: 1.0 - x, 0.25) == 0.75
    assert mapped(lambda x: 1.0 - x, (0.25, 0.5)) == (0.75, 0.5)
