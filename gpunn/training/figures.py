"""Figures of numbers over epochs or layers; matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.errors import MissingExtraError
from gpunn.types import Array

DOTS = 40  # a line of at most so many values also has a dot for each


def figure(panels: int) -> tuple[Any, list[Any]]:
    """A figure that no window shows and pyplot does not know, and its panels side by side."""
    try:
        _import_matplotlib()
        figures, agg = map(import_module, ("matplotlib.figure", "matplotlib.backends.backend_agg"))
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and str(error.name).startswith("matplotlib")
        raise MissingExtraError(
            "plot", expected="matplotlib", got="none" if missing else str(error),
            fix='run: python -m pip install "gpunn[plot]"',
        ) from None  # fmt: skip
    made = figures.Figure(figsize=(4.5 * panels, 3.5), layout="constrained")
    agg.FigureCanvasAgg(made)
    return made, list(made.subplots(1, panels, squeeze=False)[0])


def _import_matplotlib() -> None:
    """Import it without the backend that MPLBACKEND names: an unknown name would raise an error.

    A notebook sets it to its own backend, which is unknown where the notebook's package is not installed.
    """
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        module = import_module("matplotlib")
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            module.rcParams["backend"] = backend  # for the user's own windows


def save(made: Any, path: str | Path | None) -> Any:
    if path is not None:
        made.savefig(path)
    return made


def draw(panel: Any, x: Any, values: Array, **style: Any) -> None:
    """Draw one line; for a population the mean, with a band from the smallest to the largest value."""
    middle, low, high = spread(values)
    (line,) = panel.plot(x, middle, marker="." if len(middle) <= DOTS else None, **style)
    if values.ndim > 1 and values.shape[1] > 1:
        panel.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def spread(values: Array) -> tuple[Array, Array, Array]:
    """Mean, minimum and maximum of the finite numbers in each row of a table; NaN where a row has none."""
    table = np.asarray(values, np.float64)
    table = table.reshape(-1, 1) if table.ndim == 1 else table
    finite = np.isfinite(table)
    count = finite.sum(axis=-1)
    none = count == 0
    middle = np.where(finite, table, 0.0).sum(axis=-1) / np.where(none, 1, count)
    low, high = np.where(finite, table, np.inf).min(axis=-1), np.where(finite, table, -np.inf).max(axis=-1)
    return np.where(none, np.nan, middle), np.where(none, np.nan, low), np.where(none, np.nan, high)
