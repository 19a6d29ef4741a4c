"""The table of rules on a frozen value: what each field may be, inherited and extended."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from gpunn.errors import ConfigurationError
from gpunn.fields import CheckedFields, choice, maybe, number, whole
from tests.faults import exactly

NEGATIVE = "expected a number with 0 <= value, got -1; choose a value in that range"


@dataclass(frozen=True)
class Box(CheckedFields):
    field_rules = {"width": number(low=0.0), "count": whole(), "kind": choice("open", "closed")}

    width: float = 1
    count: int = 1
    kind: str = "open"
    note: Any = None


@dataclass(frozen=True)
class Crate(Box):
    field_rules = {"width": number(low=5.0), "lids": maybe(whole(low=0, high=2))}

    lids: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Narrow(Box):
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width > self.count:
            raise ConfigurationError("Narrow", expected="width <= count", got=f"{self.width}", fix="make it narrower")


class Marked(CheckedFields):
    field_rules = {"mark": choice("x")}


@dataclass(frozen=True)
class MarkedCrate(Marked, Crate):
    mark: str = "x"


def test_a_rule_converts_the_field_that_it_stands_for() -> None:
    box = Box(np.float32(2.0), np.int8(3), "closed", note=[1])
    assert [type(value) for value in (box.width, box.count, box.kind)] == [float, int, str]
    assert (box.width, box.count, box.kind, box.note) == (2.0, 3, "closed", [1])
    assert type(Box().width) is float  # defaults keep the rules, too
    assert replace(box, width=4).width == 4.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box(-1), f"Box width: {NEGATIVE}"),
        (lambda: Box(1, 0), "Box count: expected a whole number >= 1, got 0; give such a number"),
        (lambda: Box(1, 1, "ajar"), "Box kind: expected one of 'open', 'closed', got 'ajar'; choose one of them"),
        (lambda: Box(-1, 0, "ajar"), f"Box width: {NEGATIVE}"),
        (lambda: Crate(5, 0), "Crate count: expected a whole number >= 1, got 0; give such a number"),
        (lambda: Crate(4), "Crate width: expected a number with 5 <= value, got 4; choose a value in that range"),
        (lambda: Crate(5, lids=3), "Crate lids: expected a whole number >= 0 and <= 2, got 3; give such a number"),
        (lambda: Narrow(2, 1), "Narrow: expected width <= count, got 2.0; make it narrower"),
        (lambda: Narrow(2, 0), "Narrow count: expected a whole number >= 1, got 0; give such a number"),
        (lambda: MarkedCrate(5, mark="o"), "MarkedCrate mark: expected one of 'x', got 'o'; choose one of them"),
        (lambda: MarkedCrate(5, lids=-1), "MarkedCrate lids: expected a whole number >= 0, got -1; give such a number"),
    ],
)  # fmt: skip
def test_a_field_that_breaks_its_rule_is_named(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=exactly(message)):
        make()


def test_a_class_has_the_rules_of_its_bases_and_its_own() -> None:
    assert list(Box.field_rules) == ["width", "count", "kind"]
    assert list(Crate.field_rules) == ["width", "count", "kind", "lids"]
    assert Narrow.field_rules == Box.field_rules
    assert set(MarkedCrate.field_rules) == {*Crate.field_rules, "mark"}
    assert Crate.field_rules["width"] is not Box.field_rules["width"]


def test_none_is_kept_where_it_may_stand() -> None:
    assert Crate(5).lids is None
    assert Crate(5, lids=2).lids == 2
