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


@dataclass(frozen=True)
class Encoder(Value, abstract=True):
    """`encode(column)` gives (n, width) float64; `kind` is what the column must be."""

    family: ClassVar[str] = "column"
    kind: ClassVar[str] = ""

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigurationError(
                f"{type(self).__name__} name", expected="text", got=repr(self.name), fix="fit it again"
            )

    @property
    def width(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} needs a width")

    def encode(self, column: Column) -> Host:
        raise NotImplementedError(f"{type(self).__name__} needs an encode method")

    def describe(self) -> str:
        """What becomes of the column, in words."""
        raise NotImplementedError(f"{type(self).__name__} needs a describe method")


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


# Numbers. What is missing becomes the median, and 1 in a column of its own where training had gaps too


@dataclass(frozen=True)
class Numbers(Encoder, abstract=True):
    """`center` takes the place of what is missing; `flag` adds the column that says where."""

    center: float
    flag: bool = field(default=False, kw_only=True)
    how: ClassVar[str] = ""  # in words

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
        return f"{self.how}; gaps become {self.center:g}{', with a flag' if self.flag else ''}"


@dataclass(frozen=True)
class Standard(Numbers):
    """(x - mean) / deviation."""

    how = "standardised"

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
class Plain(Numbers):
    """x as it is."""

    how = "as it is"

    def scaled(self, x: Host) -> Host:
        return x


@dataclass(frozen=True)
class Quantile(Numbers):
    """The normal score of x: Φ⁻¹ of its place among the quantiles of training, straight between them, flat beyond."""

    how = "normal scores"

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
class Categories(Encoder, abstract=True):
    """Slots: one for each category, then for what was too rare in training (`rare`), then for what is missing (`gap`).

    What training never saw goes to the slot of the rare, which is the only one that was trained for it; without one it
    counts as the most common category, `common`. So does a missing value where training had no gap.
    """

    kind = "categorical"
    how: ClassVar[str] = ""  # in words

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
        return f"{self.how} of {self.slots} slots; unseen ones {unseen}{', gaps have their own' if self.gap else ''}"

    @property
    def unknown(self) -> int:
        """The slot of what training never saw."""
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
class OneHot(Categories):
    """1 in the column of its slot, 0 in the others."""

    how = "one-hot"

    @property
    def width(self) -> int:
        return self.slots

    def encode(self, column: Column) -> Host:
        out = np.zeros((len(column), self.slots))
        out[np.arange(len(column)), self.codes(column)] = 1.0
        return out


@dataclass(frozen=True)
class Embedded(Categories):
    """The number of its slot, for an embedding of `size` numbers each."""

    how = "embedding"

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


def fit_numbers(name: str, column: Column, how: str | None, of: str = "numeric") -> Numbers:
    """A column of numbers, standardised, as normal scores, or as it is."""
    values = column.data[column.present].astype(np.float64)
    common: Any = {"flag": column.missing is not None, "of": of}
    center = float(np.median(values / 2.0) * 2.0)  # the sum of two may be too large
    if how == "quantile":
        knots = np.quantile(values, np.linspace(0.0, 1.0, KNOTS), method="closest_observation")
        return Quantile(name, center, knots=tuple(knots.tolist()), **common)
    if how == "standardise":
        mean, deviation = moments(np.where(column.present, column.data, center).astype(np.float64))
        return Standard(name, center, mean=mean, deviation=deviation, **common)
    return Plain(name, center, **common)


def moments(x: Host) -> tuple[float, float]:
    """Mean and deviation; of numbers that are all equal the deviation counts as 1."""
    largest = float(np.abs(x).max()) or 1.0  # squares of the largest numbers are too large, of the smallest nothing
    with np.errstate(under="ignore"):
        scaled = x / largest
        mean, deviation = float(scaled.mean()), float(scaled.std())
    if x.min() == x.max():
        return float(x[0]), 1.0
    return mean * largest, (deviation * largest) or 1.0


def fit_categories(name: str, column: Column, how: str, most: int) -> Categories | None:
    """The categories that occur twice or more, the most common first to stay; None where none does."""
    counts = np.bincount(column.data[column.present], minlength=len(column.labels))
    ranked = sorted((-int(count), label) for count, label in zip(counts, column.labels) if count > 1)[:most]
    if not ranked:
        return None
    kept = sorted(label for _, label in ranked)
    common: Any = {"rare": len(kept) < int(np.count_nonzero(counts)), "gap": column.missing is not None}
    best, slots = kept.index(ranked[0][1]), len(kept) + common["rare"] + common["gap"]
    if how == "one-hot" or (how == "auto" and slots <= 16):
        return OneHot(name, kept, best, **common)
    return Embedded(name, kept, best, size=min(32, 2 * round(slots**0.5)), **common)
