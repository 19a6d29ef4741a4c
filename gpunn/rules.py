"""What a value that a file holds must be: rules made of rules, which name the place where one is broken.

    record({"epoch": whole(), "best": each(maybe(number()), 3)}).check("progress", value)

does nothing where the value keeps the rule, and else raises a CheckpointError at a place such as `progress.best[1]`.
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
    """A value as JSON, cut where it is long."""
    told = json.dumps(value, default=repr)
    return told if len(told) <= 200 else told[:200] + "..."


def require(fact: Any, where: str, *, expected: str, got: str) -> None:
    """Refuse a file in which something does not hold."""
    if not fact:
        raise CheckpointError(where, expected=expected, got=got, fix=FIX)


@dataclass(frozen=True)
class Rule:
    """What a value must be, and, where it holds others, the place, the rule and the value of each of them."""

    expected: str
    holds: Callable[[Any], bool]
    parts: Callable[[Any], Iterable[tuple[str, Rule, Any]]] = lambda value: ()

    def check(self, where: str, value: Any) -> None:
        require(self.holds(value), where, expected=self.expected, got=short(value))
        for place, rule, part in self.parts(value):
            rule.check(where + place, part)


def whole(low: int = 0, high: int | None = None) -> Rule:
    """A whole number in an interval that includes both ends."""
    expected = f"a whole number >= {low}" if high is None else f"a whole number from {low} to {high}"
    return Rule(expected, lambda v: type(v) is int and low <= v <= (v if high is None else high))


def number(low: float = -math.inf, high: float = math.inf) -> Rule:
    """A finite number in an interval that includes both ends; a whole one only where a float holds it exactly."""
    bounds = f" >= {low:g}" * (low > -math.inf) + f" <= {high:g}" * (high < math.inf)
    return Rule(f"a finite number{bounds}", lambda v: _is_number(v) and low <= v <= high)


def _is_number(value: Any) -> bool:
    return math.isfinite(value) if type(value) is float else type(value) is int and abs(value) <= EXACT


def maybe(rule: Rule) -> Rule:
    """The same, or null."""
    return Rule(
        f"{rule.expected}, or null",
        lambda v: v is None or rule.holds(v),
        lambda v: () if v is None else rule.parts(v),
    )


def each(rule: Rule, count: int) -> Rule:
    """A list of so many values that keep one rule."""
    return items([rule] * count)


def items(rules: Sequence[Rule]) -> Rule:
    """A list of values that have a rule each."""
    return Rule(
        f"a list of {len(rules)}",
        lambda v: isinstance(v, list) and len(v) == len(rules),
        lambda v: ((f"[{i}]", rule, part) for i, (rule, part) in enumerate(zip(rules, v))),
    )


def record(rules: Mapping[str, Rule], optional: Collection[str] = ()) -> Rule:
    """An object that has these names and no other; the optional ones may be missing."""
    return Rule(
        f"an object of {', '.join(rules) or 'no names'}",
        lambda v: isinstance(v, dict) and rules.keys() - optional <= v.keys() <= rules.keys(),
        lambda v: ((f".{name}", rules[name], part) for name, part in v.items()),
    )


def _is_text(value: Any) -> bool:
    """Half of a character in UTF-16, which JSON can spell, cannot be written anywhere."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


text = Rule("text", _is_text)
truth = Rule("true or false", lambda v: isinstance(v, bool))
mapping = Rule("an object", lambda v: isinstance(v, dict) and all(map(_is_text, v)))
anything = Rule("any value", lambda v: True)
null = Rule("null", lambda v: v is None)
