"""How one column becomes numbers: values fitted on the training table, stored as JSON, applied again at prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np

from gpunn import hyper
from gpunn.data.table import Column, Host
from gpunn.errors import ConfigurationError, DataError
from gpunn.value import Value

KNOTS = 65


class Fitted(Value, abstract=True):
    """What is learned from the training table: how a column becomes inputs, or a target becomes outputs."""

    @property
    def width(self) -> int:
        """How many inputs or outputs."""
        raise NotImplementedError(f"{type(self).__name__} needs a width")

    def describe(self) -> str:
        """What becomes of the column, in words."""
        raise NotImplementedError(f"{type(self).__name__} needs a describe method")


@dataclass(frozen=True)
class Encoder(Fitted, abstract=True):
    """`encode(column)` gives (n, width) float64; `kind` is what the column must be."""

    family: ClassVar[str] = "column"
    kind: ClassVar[str] = ""

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigurationError(
                f"{type(self).__name__} name", expected="text", got=repr(self.name), fix="fit it again"
            )

    def encode(self, column: Column) -> Host:
        raise NotImplementedError(f"{type(self).__name__} needs an encode method")


@dataclass(frozen=True)
class Exact(Encoder):
    """A number in every row, as it is."""

    kind = "numeric"

    @property
    def width(self) -> int:
        return 1

    def encode(self, column: Column) -> Host:
        if column.missing is not None:
            raise DataError(
                f"column {self.name!r}",
                expected="a number in every row",
                got=f"none in row {int(np.argmax(column.missing)) + 1}",
                fix="fill it, or leave the row out: training had no gaps",
            )
        return column.data[:, None].astype(np.float64)

    def describe(self) -> str:
        return "as it is; no gaps"


# Numbers. A missing value becomes the median; if training had gaps too, a flag in a second column is 1 there


@dataclass(frozen=True)
class NumberEncoder(Encoder, abstract=True):
    """`center` stands for a missing value; `flag` adds a column that says where values are missing."""

    center: float
    flag: bool = field(default=False, kw_only=True)
    in_words: ClassVar[str] = ""

    of: str = field(default="numeric", kw_only=True)  # the kind of column: times are numbers of days

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "center", hyper.number(f"{self.name} center", self.center))
        hyper.choice(f"{self.name} flag", self.flag, (True, False))
        hyper.choice(f"{self.name} of", self.of, ("numeric", "time", "boolean"))

    @property
    def kind(self) -> str:  # type: ignore[override]
        return self.of

    @property
    def width(self) -> int:
        return 2 if self.flag else 1

    def encode(self, column: Column) -> Host:
        missing = ~column.present
        x = np.where(missing, self.center, column.data).astype(np.float64)
        return np.stack([self.scaled(x), missing] if self.flag else [self.scaled(x)], axis=1)

    def scaled(self, x: Host) -> Host:
        raise NotImplementedError(f"{type(self).__name__} needs a scaled method")

    def describe(self) -> str:
        return f"{self.in_words}; gaps become {self.center:g}{', with a flag' if self.flag else ''}"


@dataclass(frozen=True)
class Standard(NumberEncoder):
    """(x - mean) / deviation."""

    in_words = "standardised"

    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mean", hyper.number(f"{self.name} mean", self.mean))
        deviation = hyper.number(f"{self.name} deviation", self.deviation, low=0.0, open_low=True)
        object.__setattr__(self, "deviation", deviation)

    def scaled(self, x: Host) -> Host:
        with np.errstate(over="ignore"):  # the caller looks for infinities, and knows the row
            return (x - self.mean) / self.deviation


@dataclass(frozen=True)
class Plain(NumberEncoder):
    """x as it is."""

    in_words = "as it is"

    def scaled(self, x: Host) -> Host:
        return x


@dataclass(frozen=True)
class Quantile(NumberEncoder):
    """The normal score of x: Φ⁻¹ of its place among the quantiles of training, linear between them, constant beyond."""

    in_words = "normal scores"

    knots: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        knots = tuple(hyper.number(f"{self.name} knots", knot) for knot in self.knots)
        if list(knots) != sorted(knots) or not knots:
            raise ConfigurationError(
                f"{self.name} knots", expected="rising numbers", got=repr(knots)[:80], fix="fit it again"
            )
        object.__setattr__(self, "knots", knots)

    def scaled(self, x: Host) -> Host:
        scores = [NormalDist().inv_cdf((i + 0.5) / len(self.knots)) for i in range(len(self.knots))]
        knots, place = np.unique(self.knots, return_inverse=True)
        mean = np.bincount(place, scores) / np.bincount(place)  # equal quantiles share their scores' mean
        return np.interp(x, knots, mean)


# Categories


@dataclass(frozen=True)
class CategoryEncoder(Encoder, abstract=True):
    """Slots: one for each category, then one for those too rare in training (`rare`), one for missing values (`gap`).

    A category that training never saw goes to the slot of the rare ones. If there is no such slot, it counts as the
    most common category, `common`. The same holds for a missing value if training had no gap.
    """

    kind = "categorical"
    in_words: ClassVar[str] = ""

    categories: Sequence[str]
    common: int = 0
    rare: bool = field(default=False, kw_only=True)
    gap: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        names = tuple(self.categories)
        if not names or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
            raise ConfigurationError(
                f"{self.name} categories", expected="different texts", got=repr(names)[:80], fix="fit it again"
            )
        object.__setattr__(self, "categories", names)
        hyper.choice(f"{self.name} rare", self.rare, (True, False))
        hyper.choice(f"{self.name} gap", self.gap, (True, False))
        if hyper.whole(f"{self.name} common", self.common, low=0) >= len(names):
            raise ConfigurationError(
                f"{self.name} common", expected=f"below {len(names)}", got=f"{self.common}", fix="fit it again"
            )

    @property
    def slots(self) -> int:
        return len(self.categories) + self.rare + self.gap

    def describe(self) -> str:
        unseen = "share a slot with rare ones" if self.rare else f"count as {self.categories[self.common]!r}"
        gaps = ", gaps have their own" if self.gap else ""
        return f"{self.in_words} of {self.slots} slots; unseen ones {unseen}{gaps}"

    @property
    def unknown(self) -> int:
        """The slot of categories that training never saw."""
        return len(self.categories) if self.rare else self.common

    def codes(self, column: Column) -> Host:
        """The slot of each value."""
        if column.kind == "empty":
            return np.full(len(column), self.slots - 1 if self.gap else self.unknown)
        places = {name: i for i, name in enumerate(self.categories)}
        slots = np.array([places.get(label, self.unknown) for label in column.labels] or [0])
        missing = self.slots - 1 if self.gap else self.unknown
        return np.where(column.present, slots[column.data], missing)


@dataclass(frozen=True)
class OneHot(CategoryEncoder):
    """1 in the column of its slot, 0 in the others."""

    in_words = "one-hot"

    @property
    def width(self) -> int:
        return self.slots

    def encode(self, column: Column) -> Host:
        out = np.zeros((len(column), self.slots))
        out[np.arange(len(column)), self.codes(column)] = 1.0
        return out


@dataclass(frozen=True)
class Embedded(CategoryEncoder):
    """The number of its slot, for an embedding of `size` numbers each."""

    in_words = "embedding"

    size: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "size", hyper.whole(f"{self.name} size", self.size))

    @property
    def width(self) -> int:
        return 1

    def encode(self, column: Column) -> Host:
        return self.codes(column)[:, None].astype(np.float64)


# Fitting


def fit_numbers(name: str, column: Column, method: str | None, of: str = "numeric") -> NumberEncoder:
    """An encoder of a column of numbers: standardised, as normal scores, or as they are."""
    values = column.data[column.present].astype(np.float64)
    options: Any = {"flag": column.missing is not None, "of": of}
    center = float(np.median(values / 2.0) * 2.0)  # halved, as the sum of two numbers may overflow
    if method == "quantile":
        knots = np.quantile(values, np.linspace(0.0, 1.0, KNOTS), method="closest_observation")
        return Quantile(name, center, knots=tuple(knots.tolist()), **options)
    if method == "standardise":
        mean, deviation = moments(np.where(column.present, column.data, center).astype(np.float64))
        return Standard(name, center, mean=mean, deviation=deviation, **options)
    return Plain(name, center, **options)


def moments(x: Host) -> tuple[float, float]:
    """Mean and standard deviation; if all numbers are equal, 1 stands for the deviation."""
    largest = float(np.abs(x).max()) or 1.0  # squares of very large numbers overflow, those of very small ones are 0
    with np.errstate(under="ignore"):
        scaled = x / largest
        mean, deviation = float(scaled.mean()), float(scaled.std())
    if x.min() == x.max():
        return float(x[0]), 1.0
    return mean * largest, (deviation * largest) or 1.0


def fit_categories(name: str, column: Column, method: str, most: int) -> CategoryEncoder | None:
    """An encoder of the `most` most common categories that occur twice or more; None if there are none."""
    counts = np.bincount(column.data[column.present], minlength=len(column.labels))
    ranked = sorted((-int(count), label) for count, label in zip(counts, column.labels) if count > 1)[:most]
    if not ranked:
        return None
    kept = sorted(label for _, label in ranked)
    options: Any = {"rare": len(kept) < int(np.count_nonzero(counts)), "gap": column.missing is not None}
    best, slots = kept.index(ranked[0][1]), len(kept) + options["rare"] + options["gap"]
    if method == "one-hot" or (method == "auto" and slots <= 16):
        return OneHot(name, kept, best, **options)
    return Embedded(name, kept, best, size=min(32, 2 * round(slots**0.5)), **options)
