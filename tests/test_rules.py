"""The rules for values in files: what keeps them, and the place named where one is broken."""

from typing import Any

import pytest

from gpunn import rules
from gpunn.errors import CheckpointError
from gpunn.rules import each, items, maybe, number, record, require, whole
from tests.faults import exactly

NAN, INF, HUGE = float("nan"), float("inf"), 10**400


@pytest.mark.parametrize(
    ("rule", "kept", "broken"),
    [
        (whole(), [0, 1, HUGE], [-1, 1.0, True, None, "1", NAN]),
        (whole(1, 3), [1, 3], [0, 4, HUGE]),
        (number(), [0, -1.5, 1e308, -(2**53)], [NAN, INF, HUGE, 2**53 + 1, -(2**70), 10**308, True, None, "1", [1.0]]),
        (number(0.0, 1.0), [0, 1, 0.5], [-0.1, 1.1]),
        (maybe(number()), [None, 1.0], ["", [], NAN]),
        (rules.text, ["", "ü"], [None, 3, "\ud800", b"x"]),
        (rules.truth, [True, False], [0, 1, None]),
        (rules.mapping, [{}, {"x": NAN}], [[], None, {"\ud800": 1}]),
        (rules.null, [None], [0, False]),
        (rules.anything, [None, {}, HUGE], []),
        (each(whole(), 2), [[1, 2]], [[1], [1, 2, 3], (1, 2), {"0": 1}, [1, -1]]),
        (items([whole(), rules.text]), [[1, "a"]], [["a", 1], [1], []]),
        (record({"a": whole(), "b": rules.text}, optional=("b",)), [{"a": 1}, {"a": 1, "b": ""}],
         [{}, {"b": ""}, {"a": 1, "c": 1}, {"a": -1}, [], None]),
        (record({}), [{}], [{"a": 1}, []]),
    ],
)  # fmt: skip
def test_a_rule_accepts_what_keeps_it_and_refuses_what_breaks_it(
    rule: rules.Rule, kept: list[Any], broken: list[Any]
) -> None:
    for value in kept:
        rule.check("here", value)
    for value in broken:
        with pytest.raises(CheckpointError, match="^here.*: expected .*, got .*; give a file as gpunn wrote it$"):
            rule.check("here", value)


@pytest.mark.parametrize(
    ("rule", "value", "message"),
    [
        (whole(0, 3), 4, "here: expected a whole number from 0 to 3, got 4"),
        (whole(), "x", 'here: expected a whole number >= 0, got "x"'),
        (number(0.0), NAN, "here: expected a finite number >= 0, got NaN"),
        (maybe(number(high=1.0)), 2, "here: expected a finite number <= 1, or null, got 2"),
        (each(whole(), 2), [1], "here: expected a list of 2, got [1]"),
        (record({"a": each(whole(), 2)}), {"a": [1, None]}, "here.a[1]: expected a whole number >= 0, got null"),
        (record({"a": whole()}), {"b": 1}, 'here: expected an object of a, got {"b": 1}'),
        (maybe(record({"a": whole()})), {"a": ""}, 'here.a: expected a whole number >= 0, got ""'),
    ],
)  # fmt: skip
def test_the_error_of_a_broken_rule_names_its_place(rule: rules.Rule, value: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=exactly(f"{message}; give a file as gpunn wrote it")):
        rule.check("here", value)


def test_the_error_of_a_broken_rule_cuts_long_values() -> None:
    with pytest.raises(CheckpointError) as error:
        rules.text.check("here", [HUGE])
    assert error.value.got == f"[{HUGE}"[:200] + "..."


def test_require_raises_unless_its_condition_holds() -> None:
    require(True, "here", expected="so", got="otherwise")
    with pytest.raises(
        CheckpointError, match=exactly("here: expected so, got otherwise; give a file as gpunn wrote it")
    ):
        require(False, "here", expected="so", got="otherwise")
