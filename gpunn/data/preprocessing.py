"""Preprocessing: from a table to what a network takes, and from what it returns to labels and units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from gpunn import hyper
from gpunn.data.columns import Embedded, Encoder, fit_categories, fit_numbers
from gpunn.data.reading import holds_values, load, read, values_as_table
from gpunn.data.table import Host, Table
from gpunn.data.targets import Classes, Target, fit_target
from gpunn.dataframes import listed
from gpunn.errors import ConfigurationError, DataError
from gpunn.layers import Branch, Columns, Embedding, Flatten, Layer
from gpunn.losses import CrossEntropy, Loss, SquaredError
from gpunn.value import Value

MOST_CATEGORIES = 10_000


@dataclass(frozen=True)
class Preprocessing(Value):
    """How the columns of a table become inputs, in the order of `columns`, and how its target is encoded.

    Numbers are standardised or become normal scores; gaps become the median, with a flag beside it; times are days
    since 1970. Categories that occur twice get a slot, one-hot or for an embedding; rarer and unseen ones share one.
    Class labels are numbered in sorted order; regression targets are standardised, and decoded back.
    """

    family: ClassVar[str] = "preprocessing"

    columns: Sequence[Encoder]
    target: Target
    left_out: Sequence[str] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        fields = {"columns": tuple(self.columns), "left_out": tuple(self.left_out)}
        right = all(isinstance(c, Encoder) for c in fields["columns"]) and isinstance(self.target, Target)
        right = right and all(isinstance(name, str) for name in fields["left_out"])
        if not right or not fields["columns"]:
            raise ConfigurationError(
                "Preprocessing", expected="columns and a target", got=repr(self)[:200], fix="use Preprocessing.fit"
            )
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def fit(
        cls,
        source: Any,
        target: Any = None,
        *,
        task: str | None = None,
        numeric: str | None = "standardise",
        categorical: str = "auto",
        missing: str = "median+flag",
        leave_out: Sequence[str] = (),
        most_categories: int = MOST_CATEGORIES,
    ) -> Self:
        """Learn from the training rows of a table, or of anything that `read` takes. As in `read`, `target` is a name,
        several names, or the values.

        `task` is "classification" or "regression"; by default text, bools and few different whole numbers are classes.
        `numeric` is "standardise", "quantile" or None; `categorical` "one-hot", "embedding" or "auto", by the number of
        slots; `missing` "median+flag" or "refuse". Columns without any value or without two equal categories are left
        out, and so are those in `leave_out`.
        """
        hyper.choice("Preprocessing numeric", numeric, ("standardise", "quantile", None))
        hyper.choice("Preprocessing categorical", categorical, ("one-hot", "embedding", "auto"))
        hyper.choice("Preprocessing missing", missing, ("median+flag", "refuse"))
        most = hyper.whole("Preprocessing most_categories", most_categories)
        table = read(source, target=target)
        fitted_target = fit_target(table, task)
        for name in leave_out:
            table[name]
            if name in fitted_target.names:
                raise ConfigurationError(
                    "leave_out", expected="columns beside the target", got=f"{name!r}, the target",
                    fix="say which column is the target, or keep this one",
                )  # fmt: skip
        encoders: dict[str, Encoder | None] = {}
        for name in table.columns:
            if name in fitted_target.names or name in leave_out:
                continue
            column = table[name]
            if missing == "refuse" and column.missing is not None:
                raise DataError(
                    table.where(name, int(np.argmax(column.missing))),
                    expected="a value",
                    got="none",
                    fix='fill it, or fit with missing="median+flag"',
                )
            if column.kind == "categorical":
                encoders[name] = fit_categories(name, column, categorical, most)
            elif column.kind == "boolean":
                encoders[name] = fit_numbers(name, column, numeric and "standardise", "boolean")
            else:
                encoders[name] = None if column.kind == "empty" else fit_numbers(name, column, numeric, column.kind)
        found = [encoder for encoder in encoders.values() if encoder is not None]
        if not found:
            raise DataError(
                table.source,
                expected="a column beside the target that says something",
                got=listed(encoders),
                fix="give numbers, or categories that occur more than once",
            )
        found.sort(key=lambda encoder: isinstance(encoder, Embedded))  # stable: numbers first, then codes
        useless = [name for name, encoder in encoders.items() if encoder is None]
        return cls(found, fitted_target, left_out=(*leave_out, *useless))

    # What a network needs

    @property
    def width(self) -> int:
        """How many inputs the network has."""
        return sum(encoder.width for encoder in self.columns)

    @property
    def outputs(self) -> int:
        """How many outputs its last layer has."""
        return self.target.width

    @property
    def task(self) -> str:
        """ "classification", "regression" or "multi-output regression"."""
        return self.target.task

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """The labels, in the order of the outputs; None in regression."""
        return tuple(self.target.labels) if isinstance(self.target, Classes) else None

    @property
    def loss(self) -> Loss:
        """The usual loss of this task."""
        return CrossEntropy() if isinstance(self.target, Classes) else SquaredError()

    def layers(self) -> list[Layer]:
        """The first layers of the network: embeddings beside the numbers; none if no column is embedded."""
        embedded = [encoder for encoder in self.columns if isinstance(encoder, Embedded)]
        if not embedded:
            return []
        numbers = self.width - len(embedded)
        branches: list[Any] = [Columns(0, numbers)] if numbers else []
        for place, encoder in enumerate(embedded, numbers):
            branches.append([Columns(place, place + 1), Embedding(encoder.slots, encoder.size), Flatten()])
        return [Branch(branches)]

    @property
    def kinds(self) -> dict[str, str]:
        """The kinds of columns, targets included, as `read` takes them."""
        kinds = {encoder.name: encoder.kind for encoder in self.columns} | self.target.kinds
        return {name: kind for name, kind in kinds.items() if kind != "time"}

    # From tables to arrays and back

    def read(self, source: Any, *, memory: int | None = None) -> Table:
        """A table from what `read` takes, its columns of the kinds they had in training, in any order."""
        return load(source, None, self.kinds, memory)

    def unused(self, table: Table) -> tuple[str, ...]:
        """The columns that training did not have; they are ignored."""
        known = {*(encoder.name for encoder in self.columns), *self.target.names, *self.left_out}
        return tuple(name for name in table.columns if name not in known)

    def inputs(self, source: Any, dtype: Any = "float32") -> Host:
        """The network's inputs, (n, width). The table needs every column of training; others are ignored."""
        table = self.read(source)
        wanted = [encoder.name for encoder in self.columns]
        missing = [name for name in wanted if name not in table.columns]
        if missing:
            extra = self.unused(table)
            raise DataError(
                table.source,
                expected=f"the columns of training: {listed(wanted)}",
                got=f"{listed(missing)} missing"
                + (f", beside {listed(extra)}, which training did not have" if extra else ""),
                fix="rename or add what is missing",
            )
        X = np.empty(
            (table.rows, self.width), hyper.choice("inputs dtype", str(np.dtype(dtype)), ("float32", "float64"))
        )
        place = 0
        for encoder in self.columns:
            with np.errstate(over="ignore"):  # what becomes infinite is refused below
                X[:, place : place + encoder.width] = encoder.encode(table.converted(encoder.name, encoder.kind))
            place += encoder.width
        if not np.isfinite(X).all():
            row, place = np.argwhere(~np.isfinite(X))[0]
            edges = np.cumsum([encoder.width for encoder in self.columns])
            name = self.columns[int(np.searchsorted(edges, place, side="right"))].name
            raise DataError(
                table.where(name, int(row)),
                expected=f"a number near those of training, in the range of {X.dtype}",
                got=repr(table[name].data[row].item()),
                fix="correct it, or fit with numeric='quantile'; in a terminal: train --numeric quantile",
            )
        return X

    def targets(self, source: Any, dtype: Any = "float32") -> Host:
        """Class numbers (n,), or standardised targets (n, outputs), of a table or of the values."""
        if holds_values(source) and len(getattr(source, "shape", (0,))) == 1 and len(self.target.names) == 1:
            source = values_as_table(source, self.target.names[0])
        return self.target.encode(self.read(source), dtype)

    def decode(self, outputs: Any) -> Host:
        """Labels of the largest outputs, or targets in their own units: (n,) of one, (n, targets) of several.

        If a network has one output for two classes, it must be the probability of the second.
        """
        return self.target.decode(np.asarray(outputs))

    def describe(self) -> list[tuple[str, str, str]]:
        """Each column with its kind and what becomes of it."""
        rows = [(encoder.name, encoder.kind, encoder.describe()) for encoder in self.columns]
        rows += [(name, "", "left out") for name in self.left_out]
        return rows + [(name, kind, self.target.describe()) for name, kind in self.target.kinds.items()]
