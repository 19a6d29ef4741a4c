"""Rules for the values in a file; rules are made of rules, and an error names the place where a rule is broken.

    record({"epoch": whole(), "best": each(maybe(number()), 3)}).check("progress", value)

does nothing if the value keeps the rule; else it raises a CheckpointError at a place such as `progress.best[1]`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpunn.errors import CheckpointError

EXACT = 2**53  # up to here a float holds every whole number; those in JSON may be of any size
FIX = "give a file as gpunn wrote it"


def short(value: Any) -> str:
    """A value as JSON, cut after 200 characters."""
    written = json.dumps(value, default=repr)
    return written if len(written) <= 200 else written[:200] + "..."


def require(fact: Any, where: str, *, expected: str, got: str) -> None:
    """Refuse a file if a fact that must be true of it is false."""
    if not fact:
        raise CheckpointError(where, expected=expected, got=got, fix=FIX)


@dataclass(frozen=True)
class Rule:
    """What a value must be; `contents` gives the place, rule and value of each value in it."""

    expected: str
    holds: Callable[[Any], bool]
    contents: Callable[[Any], Iterable[tuple[str, Rule, Any]]] = lambda value: ()

    def check(self, where: str, value: Any) -> None:
        require(self.holds(value), where, expected=self.expected, got=short(value))
        for place, rule, content in self.contents(value):
            rule.check(where + place, content)


def whole(low: int = 0, high: int | None = None) -> Rule:
    """A whole number in an interval that includes both ends."""
    expected = f"a whole number >= {low}" if high is None else f"a whole number from {low} to {high}"
    return Rule(expected, lambda v: type(v) is int and low <= v <= (v if high is None else high))


def number(low: float = -math.inf, high: float = math.inf) -> Rule:
    """A finite number in an interval that includes both ends; a whole number only if a float holds it exactly."""
    bounds = f" >= {low:g}" * (low > -math.inf) + f" <= {high:g}" * (high < math.inf)
    return Rule(f"a finite number{bounds}", lambda v: _is_number(v) and low <= v <= high)


def _is_number(value: Any) -> bool:
    return math.isfinite(value) if type(value) is float else type(value) is int and abs(value) <= EXACT


def maybe(rule: Rule) -> Rule:
    """A value that keeps this rule, or null."""
    return Rule(
        f"{rule.expected}, or null",
        lambda v: v is None or rule.holds(v),
        lambda v: () if v is None else rule.contents(v),
    )


def each(rule: Rule, count: int) -> Rule:
    """A list of `count` values that keep one rule."""
    return items([rule] * count)


def items(rules: Sequence[Rule]) -> Rule:
    """A list of values that have a rule each."""
    return Rule(
        f"a list of {len(rules)}",
        lambda v: isinstance(v, list) and len(v) == len(rules),
        lambda v: ((f"[{i}]", rule, item) for i, (rule, item) in enumerate(zip(rules, v))),
    )


def record(rules: Mapping[str, Rule], optional: Collection[str] = ()) -> Rule:
    """An object that has these names and no other; the optional ones may be missing."""
    return Rule(
        f"an object of {', '.join(rules) or 'no names'}",
        lambda v: isinstance(v, dict) and rules.keys() - optional <= v.keys() <= rules.keys(),
        lambda v: ((f".{name}", rules[name], field) for name, field in v.items()),
    )


def _is_text(value: Any) -> bool:
    """Text that can be encoded; JSON can also spell lone surrogates, which cannot."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


text = Rule("text", _is_text)
truth = Rule("true or false", lambda v: isinstance(v, bool))
mapping = Rule("an object", lambda v: isinstance(v, dict) and all(map(_is_text, v)))
anything = Rule("any value", lambda v: True)
null = Rule("null", lambda v: v is None)
