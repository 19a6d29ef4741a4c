"""What is to be predicted: classes, or one quantity or several; encoded for the loss, and decoded for the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpunn import hyper
from gpunn.data.columns import Fitted, moments
from gpunn.data.table import Column, Host, Table, shown, target_names
from gpunn.errors import ConfigurationError, DataError, ShapeError

FEW = 20  # up to so many different whole numbers are classes, if they occur twice on average


@dataclass(frozen=True)
class Target(Fitted, abstract=True):
    """`encode(table, dtype)` gives y as the usual loss takes it, `decode(outputs)` values as in the table."""

    family: ClassVar[str] = "target"
    task: ClassVar[str] = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.kinds)

    @property
    def kinds(self) -> dict[str, str]:
        raise NotImplementedError(f"{type(self).__name__} needs kinds")

    def encode(self, table: Table, dtype: Any) -> Host:
        raise NotImplementedError(f"{type(self).__name__} needs an encode method")

    def decode(self, outputs: Host) -> Host:
        raise NotImplementedError(f"{type(self).__name__} needs a decode method")


@dataclass(frozen=True)
class Classes(Target):
    """One of several labels, which are in sorted order: text, whole numbers, or False and True."""

    task = "classification"

    name: str
    labels: Sequence[Any]

    def __post_init__(self) -> None:
        labels = tuple(self.labels)
        alike = len({type(label) for label in labels}) == 1 and isinstance(labels[0], (str, int))
        if not isinstance(self.name, str) or len(labels) < 2 or not alike or list(labels) != sorted(set(labels)):
            raise ConfigurationError(
                "Classes", expected="two sorted labels or more", got=repr(labels)[:80], fix="fit it again"
            )
        object.__setattr__(self, "labels", labels)

    @property
    def kinds(self) -> dict[str, str]:
        first = self.labels[0]
        return {self.name: "categorical" if isinstance(first, str) else "boolean" if first is False else "numeric"}

    @property
    def width(self) -> int:
        return len(self.labels)

    def encode(self, table: Table, dtype: Any) -> Host:
        column = _complete_column(table, self.name, self.kinds[self.name])
        labels, codes = np.unique(column.values, return_inverse=True)
        places = {label: i for i, label in enumerate(self.labels)}
        known = np.array([places.get(label, -1) for label in labels.tolist()])
        y: Host = known[codes]
        if (y < 0).any():
            row = int(np.argmin(y))
            raise DataError(
                table.where(self.name, row),
                expected=f"one of {len(self.labels)} classes: {', '.join(map(repr, self.labels[:8]))}"
                + (", ..." if len(self.labels) > 8 else ""),
                got=shown(column, row),
                fix="correct it, or train on a table that has this class",
            )
        return y

    def probabilities(self, outputs: Host) -> Host:
        """One for each label; for two labels the network may have one output, the probability of the second."""
        if outputs.shape[-1:] == (self.width,):
            return outputs
        if self.width > 2 or outputs.shape[-1:] != (1,):
            raise ShapeError(
                "outputs",
                expected=f"one for each of {self.width} classes",
                got=f"shape {outputs.shape}",
                fix="give what the network predicts",
            )
        if not ((outputs >= 0.0) & (outputs <= 1.0)).all():
            raise DataError(
                "outputs",
                expected="probabilities from 0 to 1, where there is one output for two classes",
                got=f"{outputs.min():g} to {outputs.max():g}",
                fix="give what predict_probability returns",
            )
        return np.concatenate([1.0 - outputs, outputs], axis=-1)

    def decode(self, outputs: Host) -> Host:
        chosen: Host = np.array(self.labels)[self.probabilities(outputs).argmax(axis=-1)]
        return chosen

    def describe(self) -> str:
        return f"target of {len(self.labels)} classes"


@dataclass(frozen=True)
class Quantities(Target):
    """Numbers in their own units, standardised for the network."""

    columns: Sequence[str]
    means: Sequence[float]
    deviations: Sequence[float]

    def __post_init__(self) -> None:
        names = tuple(self.columns)
        means = tuple(hyper.number("Quantities means", mean) for mean in self.means)
        deviations = tuple(hyper.number("Quantities deviations", d, low=0.0, open_low=True) for d in self.deviations)
        alike = len(names) == len(set(names)) == len(means) == len(deviations) > 0
        if not alike or not all(isinstance(name, str) for name in names):
            raise ConfigurationError(
                "Quantities", expected="a mean and a deviation for each", got=repr(names)[:80], fix="fit it again"
            )
        for field, value in (("columns", names), ("means", means), ("deviations", deviations)):
            object.__setattr__(self, field, value)

    @property
    def task(self) -> str:  # type: ignore[override]
        return "regression" if len(self.columns) == 1 else "multi-output regression"

    @property
    def kinds(self) -> dict[str, str]:
        return dict.fromkeys(self.columns, "numeric")

    @property
    def width(self) -> int:
        return len(self.columns)

    def values(self, table: Table) -> Host:
        """The targets in their own units, (n, targets) float64."""
        return np.stack([_complete_column(table, n, "numeric").data.astype(np.float64) for n in self.columns], axis=1)

    def encode(self, table: Table, dtype: Any) -> Host:
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            y = ((self.values(table) - self.means) / self.deviations).astype(dtype)
        if not np.isfinite(y).all():
            row, place = np.argwhere(~np.isfinite(y))[0]
            raise DataError(
                table.where(self.columns[place], int(row)),
                expected=f"a number near those of training, in the range of {y.dtype}",
                got=repr(table[self.columns[place]].data[row].item()),
                fix="correct it, or train on a table that has such numbers",
            )
        return y

    def decode(self, outputs: Host) -> Host:
        values = np.multiply(outputs, self.deviations, dtype=np.float64) + self.means
        return values[..., 0] if len(self.columns) == 1 else values

    def describe(self) -> str:
        return "target, standardised"


def _complete_column(table: Table, name: str, kind: str) -> Column:
    """A target column; refuses one with missing values."""
    column = table.converted(name, kind)
    if column.missing is not None:
        raise DataError(
            table.where(name, int(np.argmax(column.missing))),
            expected="a target in every row",
            got=f"none in {np.count_nonzero(column.missing)} of {len(column)} rows",
            fix="fill them, or leave these rows out",
        )
    return column


def fit_target(table: Table, task: str | None) -> Target:
    """Classes or quantities, as `task` says, or as the kind and values of the target suggest."""
    hyper.choice("Preprocessing task", task, ("classification", "regression", None))
    names = target_names(table.target_name)
    if not names:
        raise ConfigurationError(
            "Preprocessing target", expected="the name of a column", got="None", fix=f"choose one of {table.source}"
        )
    if len(names) > 1 and task == "classification":
        raise ConfigurationError(
            "Preprocessing task",
            expected="one target for classes",
            got=f"{len(names)}",
            fix="train one network for each",
        )
    if len(names) == 1:
        column = _complete_column(table, names[0], table[names[0]].kind)
        if task == "classification" or (task is None and _looks_like_classes(table, names[0], column)):
            return _classes(table, names[0], column)
    columns = [_complete_column(table, name, "numeric").data.astype(np.float64) for name in names]
    if all(column.min() == column.max() for column in columns):
        raise DataError(
            table.where(names[0]),
            expected="two numbers or more",
            got=f"{columns[0][0].item()!r} in every row",
            fix="give rows with another one, or choose another target",
        )
    found = [moments(column) for column in columns]
    return Quantities(names, tuple(mean for mean, _ in found), tuple(deviation for _, deviation in found))


def _looks_like_classes(table: Table, name: str, column: Column) -> bool:
    if column.kind in ("categorical", "boolean"):
        different = len(np.unique(column.data))
        if column.kind == "categorical" and different > max(FEW, len(column) // 2):
            raise DataError(
                table.where(name),
                expected="classes that come again",
                got=f"{different} different texts in {len(column)} rows",
                fix='choose another target, or pass task="classification"; in a terminal: --task classification',
            )
        return True
    if column.kind != "numeric" or (column.data != np.floor(column.data)).any():
        return False
    return len(np.unique(column.data)) <= min(FEW, max(2, len(column) // 2))


def _classes(table: Table, name: str, column: Column) -> Classes:
    if column.kind == "numeric":
        table.converted(name, "categorical")  # refuses fractions
        labels = sorted({int(value) for value in np.unique(column.data)})
    else:
        labels = sorted(set(np.unique(column.values).tolist()))
    if len(labels) < 2:
        raise DataError(
            table.where(name),
            expected="two classes or more",
            got=f"{labels[0]!r} in every row",
            fix="give rows of another class, or choose another target",
        )
    return Classes(name, labels)
