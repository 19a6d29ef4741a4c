"""A table: named columns of equal length, each of one kind, with marks where values are missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpunn.dataframes import listed
from gpunn.errors import ConfigurationError, DataError

Host = np.ndarray[Any, Any]
TargetNames = str | tuple[str, ...]  # the name of a target, or the names of several

KINDS = ("numeric", "boolean", "categorical", "time", "empty")
USUAL_TARGETS = ("target", "label", "class", "y")  # names that mark the target where none is given
NO_ROWS = "give a table with at least one row below the names"
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


@dataclass(frozen=True, eq=False)
class Column:
    """Numbers, bools, days since 1970 ("time"), or codes into `labels` ("categorical"); `missing` marks missing values.

    What `data` has in place of a missing value means nothing. A column of missing values only is "empty".
    """

    kind: str
    data: Host
    missing: Host | None = None
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.data)

    @property
    def values(self) -> Host:
        """One value for each row, categories as text."""
        return np.array(self.labels or ("",), object)[self.data] if self.kind == "categorical" else self.data

    @property
    def present(self) -> Host:
        """Where there is a value."""
        return np.ones(len(self.data), bool) if self.missing is None else ~self.missing

    def take(self, rows: Any) -> Column:
        return replace(self, data=self.data[rows], missing=None if self.missing is None else self.missing[rows])


def column(kind: str, data: Host, missing: Host | None = None, labels: Sequence[str] = ()) -> Column:
    """A column; NaN is a missing value, and `missing` is None if no value is missing."""
    if data.dtype.kind == "f":
        nan = np.isnan(data)
        missing = nan if missing is None else nan | missing
    if missing is not None and not missing.any():
        missing = None
    if missing is not None and missing.all():
        return Column("empty", np.zeros(len(data)), missing)
    return Column(kind, data, missing, tuple(labels))


def text_column(values: Iterable[str | None]) -> Column:
    """A categorical column of text and None."""
    codes: dict[str, int] = {}
    data = np.array([-1 if v is None else codes.setdefault(v, len(codes)) for v in values], np.int64)
    return column("categorical", np.maximum(data, 0), data < 0, tuple(codes))


def same_values(one: Column, other: Column) -> bool:
    """Whether two columns have the same values in the same rows."""
    present = one.present
    return np.array_equal(present, other.present) and np.array_equal(one.values[present], other.values[present])


@dataclass(frozen=True, eq=False)
class Table:
    """Columns by name. Errors call the table `source` and count its rows from 1, without the line of names."""

    source: str
    data: Mapping[str, Column]
    target_name: TargetNames | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.data)

    @property
    def rows(self) -> int:
        return len(next(iter(self.data.values())))

    @property
    def kinds(self) -> dict[str, str]:
        return {name: column.kind for name, column in self.data.items()}

    def __repr__(self) -> str:
        return f"<Table {self.source}: {self.rows} rows, {len(self.data)} columns, target {self.target_name!r}>"

    def __getitem__(self, name: str) -> Column:
        if name not in self.data:
            raise DataError(
                self.source,
                expected=f"a column {name!r}",
                got=f"columns {listed(self.columns)}",
                fix="correct the name, or give a table that has it",
            )
        return self.data[name]

    def where(self, name: str, row: int | None = None) -> str:
        """What errors call a column, or a place in it."""
        return f"{self.source}{'' if row is None else f' row {row + 1}'} column {name!r}"

    def take(self, rows: Any) -> Table:
        """The same columns with these rows: a slice, indices, or a mask."""
        return replace(self, data={name: column.take(rows) for name, column in self.data.items()})

    def without(self, *names: str) -> Table:
        """The same table without these columns."""
        for name in names:
            self[name]
        gone = set(names) & set(target_names(self.target_name))
        data = {name: column for name, column in self.data.items() if name not in names}
        return replace(self, data=data, target_name=None if gone else self.target_name)

    def arrays(self) -> tuple[Host, Host]:
        """All but the target as a matrix (n, d), and the target, for tables of numbers without gaps."""
        wanted = target_names(self.target_name)
        for name, column in self.data.items():
            if (column.kind not in ("numeric", "boolean") and name not in wanted) or column.missing is not None:
                raise DataError(
                    self.where(name),
                    expected="numbers without gaps",
                    got="missing values" if column.missing is not None else f"a {column.kind} column",
                    fix="encode it with gpunn.data.Preprocessing",
                )
        X = [column.data for name, column in self.data.items() if name not in wanted]
        y = [self.data[name].values for name in wanted]
        matrix = np.stack(X, axis=1) if X else np.empty((self.rows, 0))
        return matrix, (y[0] if isinstance(self.target_name, str) else np.stack(y, axis=1) if y else np.empty(0))

    def converted(self, name: str, kind: str) -> Column:
        """A column converted to another kind; refuses values without a meaning there. Empty columns stay empty."""
        column = self[name]
        if column.kind in (kind, "empty"):
            return column
        if kind == "categorical" and column.kind == "boolean":
            return replace(column, kind=kind, data=column.data.astype(np.int64), labels=("false", "true"))
        if kind == "categorical" and column.kind == "numeric":
            self._require(name, column, column.data != np.floor(column.data), "whole numbers as categories")
            return text_column(str(int(v)) if here else None for v, here in zip(column.data, column.present))
        if kind == "numeric" and column.kind == "boolean":
            return replace(column, kind=kind, data=column.data.astype(np.float64))
        if kind == "numeric" and column.kind == "categorical":
            wrong = np.array([not NUMBER.fullmatch(label) for label in column.labels])
            self._require(name, column, wrong[column.data], "a number")
            numbers = np.array([float(label) for label in column.labels])
            data = numbers[column.data]
            self._require(name, column, ~np.isfinite(data), "a finite number")
            return Column(kind, data, column.missing)
        if kind == "boolean" and column.kind == "numeric":
            self._require(name, column, (column.data != 0) & (column.data != 1), "true or false")
            return replace(column, kind=kind, data=column.data == 1)
        first = int(np.argmax(column.present))
        raise DataError(
            self.where(name, first),
            expected=f"a {kind} column",
            got=f"{shown(column, first)}, {column.kind}",
            fix="give the column as it was in training",
        )

    def _require(self, name: str, column: Column, wrong: Host, expected: str) -> None:
        """Refuse the first value that is wrong and not missing."""
        wrong = wrong & column.present
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                self.where(name, row),
                expected=expected,
                got=shown(column, row),
                fix="correct it, or leave it blank if it is missing",
            )


def target_names(target: TargetNames | None) -> tuple[str, ...]:
    """The names of the targets, none, one or several."""
    return () if target is None else (target,) if isinstance(target, str) else target


def shown(column: Column, row: int) -> str:
    value = column.values[row]
    return repr(value.item() if isinstance(value, np.generic) else value)[:80]


def table(
    source: str,
    pairs: Iterable[tuple[str, Column]],
    target: Any = None,
    kinds: Mapping[str, str] | None = None,
) -> Table:
    """A table of named columns, checked; `target` is a name or position, or several, or None for the usual one.

    Columns in `kinds` are converted to that kind, if they exist.
    """
    pairs = list(pairs)
    check_names(source, [name for name, _ in pairs])
    lengths = {name: len(column) for name, column in pairs}
    if len(set(lengths.values())) > 1:
        first, other = (
            next(iter(lengths)),
            next(n for n, size in lengths.items() if size != next(iter(lengths.values()))),
        )
        raise DataError(
            source,
            expected="columns of one length",
            got=f"{lengths[first]} rows of {first!r} and {lengths[other]} of {other!r}",
            fix="give every column one value a row",
        )
    if not pairs or not lengths[pairs[0][0]]:
        raise DataError(source, expected="rows", got="none", fix=NO_ROWS)
    found = Table(source, dict(pairs))
    for name, column in pairs:
        if column.kind == "numeric" and column.data.dtype.kind == "f":
            found._require(name, column, np.isinf(column.data), "a finite number")
    for name, kind in (kinds or {}).items():
        if name in found.data:
            found = replace(found, data={**found.data, name: found.converted(name, kind)})
    return replace(found, target_name=_target(found, target))


def check_names(source: str, names: Sequence[str]) -> None:
    """Refuse columns without a name, and columns with the same name."""
    places: dict[str, int] = {}
    for i, name in enumerate(names):
        if not name.strip():
            raise DataError(
                f"{source} column {i + 1}",
                expected="a name",
                got=repr(name),
                fix="name it; of a pandas table write no index (index=False)",
            )
        if places.setdefault(name, i) != i:
            raise DataError(
                f"{source} column {i + 1}",
                expected="a name of its own",
                got=f"{name!r}, which column {places[name] + 1} has",
                fix="rename or remove one of them",
            )


def check_stray_text(found: Table, name: str) -> None:
    """Refuse a column of numbers with a mistake or a placeholder in it, which makes it a column of categories."""
    column = found.data[name]
    if column.kind != "categorical":
        return
    number = np.array([bool(NUMBER.fullmatch(label)) for label in column.labels])
    counts = np.bincount(column.data[column.present], minlength=len(number))
    share = counts[number].sum() / counts.sum()
    if 0.5 <= share < 1 and (share >= 0.9 or np.count_nonzero(counts[~number]) == 1):
        row = int(np.argmax(~number[column.data] & column.present))
        raise DataError(
            found.where(name, row),
            expected="a number, as in most rows",
            got=shown(column, row),
            fix=f'correct it, leave it blank if it is missing, or pass kinds={{{name!r}: "categorical"}}; '
            f"in a terminal: --categorical {name!r}",
        )


def _target(found: Table, target: Any) -> TargetNames:
    names = found.columns
    if target is None:
        return next((name for name in names if name.lower() in USUAL_TARGETS), names[-1])
    several = isinstance(target, (list, tuple))
    chosen = []
    for one in target if several else [target]:
        position = isinstance(one, (int, np.integer)) and not isinstance(one, bool) and -len(names) <= one < len(names)
        if not position and one not in names:
            raise ConfigurationError(
                "target", expected=f"a column of {found.source}", got=repr(one), fix=f"choose from {listed(names)}"
            )
        chosen.append(names[one] if position else one)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigurationError("target", expected="columns, each once", got=repr(target), fix="name each target once")
    return tuple(chosen) if several else chosen[0]
