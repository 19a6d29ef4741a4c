"""The history of a training: one number per epoch for everything that was measured."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpunn import files, rules
from gpunn.metrics import grows
from gpunn.rules import Rule, require, short
from gpunn.training.figures import draw, figure, save, spread
from gpunn.training.stopping import improvement, monitored
from gpunn.types import Array

LOGARITHMIC = ("gradient_norm", "rate")  # drawn on a logarithmic axis
NOT_DRAWN = ("seconds", "examples_per_second")
WORDS = ("nan", "inf", "-inf")  # JSON has no numbers for these


class History(Mapping[Any, Array]):
    """`history["loss"]` or `history.loss` is an array (epochs,), or (epochs, K) for a population.

    As a mapping it holds vectors: for a population its keys are pairs of name and model such as ("loss", 2), so that
    `pandas.DataFrame(dict(history))` has a column for each. `names` are the names alone.

    It has the loss and the metrics, both also as `validation_...`, and `rate`, `seconds` (since the start),
    `examples_per_second` and `gradient_norm`. NaN means: not measured in this epoch. Epochs count from 1: the loss of
    the best one is `history.loss[history.best_epoch - 1]`.
    """

    def __init__(self, *, population: bool = False) -> None:
        self.population, self.epochs = population, 0
        self._stopped: list[str] = []
        self._best: list[int | None] = []
        self._columns: dict[str, Array] = {}

    def append(self, record: Mapping[str, Any]) -> None:
        """Add an epoch: for each name a number, or one for each model."""
        room = max((len(column) for column in self._columns.values()), default=0)
        if room == self.epochs:
            room = max(2 * room, 64)
            self._columns = {name: _longer(column, room) for name, column in self._columns.items()}
        for name, value in record.items():
            numbers = np.asarray(value, np.float64)
            numbers = numbers if self.population else numbers.reshape(())
            if name not in self._columns:
                self._columns[name] = np.full((room, *numbers.shape), np.nan)
            self._columns[name][self.epochs] = numbers
        self.epochs += 1

    def mark_best(self, models: Array) -> None:
        """Make the last epoch the best one of these models, given as K truth values."""
        known = self._best or [None] * len(models)
        self._best = [self.epochs if best else before for best, before in zip(models, known)]

    @property
    def stopped(self) -> Any:
        """Why training ended, such as "finished 20 epochs"; "" while it goes on. For a population, a list."""
        return list(self._stopped) if self.population else self._stopped[0] if self._stopped else ""

    @stopped.setter
    def stopped(self, reasons: Sequence[str]) -> None:
        self._stopped = list(reasons)

    @property
    def best_epoch(self) -> Any:
        """The epoch with the best weights, counted from 1; None if there is none. For a population, a list."""
        return list(self._best) if self.population else self._best[0] if self._best else None

    # Access by name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what was measured."""
        return tuple(self._columns)

    def __getitem__(self, key: Any) -> Array:
        if isinstance(key, tuple) and key in self._keys():
            return self[key[0]][:, key[1]]
        if not isinstance(key, str) or key not in self._columns:
            raise KeyError(f"no {key!r} in this history; it has {', '.join(self._columns) or 'no epochs yet'}")
        view = self._columns[key][: self.epochs]
        view.flags.writeable = False
        return view

    def _keys(self) -> list[Any]:
        """For each column its name, or, in a population, a pair of name and model for each model."""
        pairs = [[(n, k) for k in range(c.shape[1])] if c.ndim > 1 else [n] for n, c in self._columns.items()]
        return [key for keys in pairs for key in keys]

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_") or name not in self._columns:
            raise AttributeError(f"this history has no {name!r}; it has {', '.join(self.__dict__.get('_columns', ()))}")
        return self[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._columns]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        epochs = f"{self.epochs} epoch{'' if self.epochs == 1 else 's'}"
        parts = [self._last(name) for name in self.names if name not in (*NOT_DRAWN, *LOGARITHMIC)]
        ends = Counter(why for why in self._stopped if why)
        told = "; ".join(f"{why} ({count} models)" if self.population else why for why, count in ends.items())
        return f"<History of {epochs}: {', '.join(parts) or 'nothing yet'}{'; ' if told else ''}{told}>"

    def _last(self, name: str) -> str:
        """The last value and the best one; for a population, the mean and the best model's value."""
        values, rule = self[name], improvement(name)
        pick, arg = (np.max, np.argmax) if rule.maximise else (np.min, np.argmin)
        table = np.where(np.isfinite(values), values, rule.worst)
        if values.ndim == 1:
            text, best = f"{name} {values[-1]:.4g}", f"best {pick(table):.4g} in epoch {arg(table) + 1}"
            return f"{text} ({best})" if monitored(self._columns) == name and np.isfinite(values).any() else text
        text = f"{name} {spread(values[-1:])[0][0]:.4g}"
        known = grows(name) is not None
        return f"{text} (best {pick(table[-1]):.4g}, model {arg(table[-1])})" if known else text

    # Files

    def to_csv(self, path: str | Path) -> None:
        """Write one line per epoch; a population has a column for each model, `loss[0]` and so on.

        The file is written completely or stays as it was. A pipe, or anything else that is no file, raises an OSError.
        """
        titles, columns = ["epoch"], [list(range(1, self.epochs + 1))]
        for key, values in self.items():
            titles.append(f"{key[0]}[{key[1]}]" if isinstance(key, tuple) else key)
            columns.append(values.tolist())
        lines = io.StringIO()
        csv.writer(lines).writerows((titles, *zip(*columns)))

        def fill(file: BinaryIO) -> None:
            file.write(lines.getvalue().encode())

        files.replace(os.path.realpath(path), fill)

    def to_json(self) -> str:
        """Everything as JSON, each number exactly; NaN and infinity as words, because JSON has no numbers for them."""
        return json.dumps(
            {
                "population": self.population, "epochs": self.epochs, "stopped": self._stopped, "best": self._best,
                "values": {name: _words(self[name].tolist()) for name in self.names},
            }, allow_nan=False,
        )  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> History:
        """The history that `to_json` wrote; more epochs can be added. Raises an error for any other text."""
        data = _checked(text)
        history = cls(population=data["population"])
        history.epochs, history._stopped, history._best = data["epochs"], data["stopped"], data["best"]
        history._columns = {name: np.array(values, np.float64) for name, values in data["values"].items()}
        return history

    def plot(self, path: str | Path | None = None) -> Any:
        """A matplotlib figure, saved if a path is given: loss, metrics, gradient norm and, if it changes, the rate.

        For a population, the line is the mean and a band goes from the smallest to the largest value.
        """
        names = [n for n in self.names if n not in NOT_DRAWN and not (n.startswith("validation_") and n[11:] in self)]
        names = [n for n in names if n != "rate" or np.unique(self[n]).size > 1]
        made, panels = figure(max(len(names), 1))
        x = np.arange(1, self.epochs + 1)
        for panel, name in zip(panels, names):
            draw(panel, x, self[name], label="training")
            if f"validation_{name}" in self:
                draw(panel, x, self[f"validation_{name}"], label="validation")
                panel.legend()
            if not self.population and self.best_epoch:
                panel.axvline(self.best_epoch, color="grey", linestyle=":", linewidth=1)
            if name in LOGARITHMIC and bool((self[name] > 0).any()):
                panel.set_yscale("log")
            panel.set(title=name.replace("_", " "), xlabel="epoch")
        return save(made, path)


LIST = Rule("a list", lambda value: isinstance(value, list))
FIELDS = rules.record({
    "population": rules.truth, "epochs": rules.whole(), "stopped": LIST, "best": LIST, "values": rules.mapping
})  # fmt: skip


def _checked(written: Any) -> dict[str, Any]:
    """The parsed JSON of a history; raise an error unless its parts fit together."""
    try:
        data = json.loads(written)
    except (RecursionError, TypeError, ValueError) as error:
        require(False, "history", expected="JSON", got=f"{type(error).__name__}: {error}"[:200])
    FIELDS.check("history", data)
    epochs, columns, models = data["epochs"], data["values"], _width(data)
    require(bool(columns) == bool(epochs), "history.values", expected=f"columns of {epochs} epochs", got=short(columns))
    require(models or not epochs, "history.values", expected="a number for each model", got="no model")
    for name, column in columns.items():
        _column(epochs, models if data["population"] else None).check(f"history.values.{name}", column)
    for name, rule in (("stopped", rules.text), ("best", rules.maybe(rules.whole(1, epochs)))):
        count = len(data[name])
        require(count in (0, models), f"history.{name}", expected=f"none or {models}", got=f"{count}")
        rules.each(rule, count).check(f"history.{name}", data[name])
    return dict(data)


def _width(data: Mapping[str, Any]) -> int:
    """The number of models: from the first column or, before the first epoch, from the other lists."""
    if not data["population"]:
        return 1
    first = next(iter(data["values"].values()), None)
    row = first[0] if isinstance(first, list) and first else data["stopped"] or data["best"]
    return len(row) if isinstance(row, list) else 0


def _column(epochs: int, models: int | None) -> Rule:
    """The rule of a column: for each epoch a number, or a row with one for each model."""
    number = rules.number()

    def is_number(value: Any) -> bool:
        return value in WORDS if isinstance(value, str) else number.holds(value)

    def is_row(value: Any) -> bool:
        return isinstance(value, list) and len(value) == models and all(map(is_number, value))

    fits, kind = (is_number, "numbers") if models is None else (is_row, f"rows of {models} numbers")
    return Rule(f"{epochs} {kind}", lambda v: isinstance(v, list) and len(v) == epochs and all(map(fits, v)))


def _longer(column: Array, room: int) -> Array:
    longer = np.full((room, *column.shape[1:]), np.nan)
    longer[: len(column)] = column
    return longer


def _words(values: Any) -> Any:
    """Nested lists of numbers, with "nan", "inf" and "-inf" as words; NumPy can read them."""
    if isinstance(values, list):
        return [_words(v) for v in values]
    return values if np.isfinite(values) else str(values)
