"""A line on the terminal that shows how a training goes on, with a bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpunn import hyper
from gpunn.metrics import grows
from gpunn.training.callbacks import Callback, Run
from gpunn.training.stopping import improvement
from gpunn.types import Array

FIRST = ("validation_loss", "loss")  # come first, because a narrow terminal cuts off the end of the line
NOT_SHOWN = ("seconds", "examples_per_second", "gradient_norm")
PAUSE = 0.1  # seconds between two drawings of the line
WIDTH = 16  # of the bar, in characters


class Progress(Callback):
    """Shows epoch, validation loss, loss, metrics, time left and rate; all come from the record, not from the device.

    A narrow terminal cuts off the end of the line; if there is room for the whole line, a bar stands before it.

    `show=None` writes to a terminal only; `show=True` also to files, one line per epoch. Output goes to stderr.
    """

    _live: Any

    def __init__(self, show: bool | None = None, *, epochs: int | None = None, console: Any = None) -> None:
        self.show, self.epochs = hyper.choice("progress", show, (None, True, False)), epochs
        self._console, self._live = console, None
        self._line, self._drawn, self._bar = "", 0.0, True

    @property
    def shown(self) -> bool:
        terminal = self._console.is_terminal if self._console is not None else _is_terminal(sys.stderr)
        return terminal if self.show is None else self.show

    def on_start(self, run: Run) -> None:
        if not self.shown:
            return
        from rich.console import Console
        from rich.live import Live

        self._console = self._console or Console(stderr=True)
        self._line, self._drawn, self._bar = "", 0.0, True
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def on_epoch(self, run: Run, record: Mapping[str, Array]) -> None:
        if not self.shown:
            return
        self._line = describe(run.epoch, self.epochs, record)
        if self._live is None:
            self._console.print(self._line, **PLAIN)
            return
        if self.epochs and self._bar:
            line = bar(run.epoch, self.epochs) + self._line
            self._bar = len(line) <= self._console.width  # once left out it stays out, so that the line does not jump
            self._line = line if self._bar else self._line
        if time.monotonic() - self._drawn >= PAUSE:
            self._draw()

    def on_end(self, run: Run) -> None:
        if self._live is not None:
            self._draw()
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        from rich.text import Text

        self._live.update(Text(self._line, no_wrap=True, overflow="ellipsis"), refresh=True)
        self._drawn = time.monotonic()


PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}


def describe(epoch: int, epochs: int | None, record: Mapping[str, Array]) -> str:
    """The line, the most important first; for a population, means over the models and the best model's value."""
    values = {name: f"{name} {_value(name, np.ravel(v))}" for name, v in record.items() if name not in NOT_SHOWN}
    parts = [f"epoch {epoch}/{epochs}" if epochs else f"epoch {epoch}"]
    parts += [values.pop(name) for name in FIRST if name in values]
    rate = [values.pop("rate")] if "rate" in values else []
    parts += sorted(values.values(), key=lambda part: not part.startswith("validation_"))
    if epochs and "seconds" in record and epoch < epochs:
        taken = float(np.ravel(record["seconds"]).max())
        parts.append(f"{_clock(taken / epoch * (epochs - epoch))} left")
    return "  ".join(parts + rate)


def bar(epoch: int, epochs: int) -> str:
    """How much of the epochs is done."""
    done = min(WIDTH, WIDTH * epoch // epochs)
    return f"[{'#' * done:.<{WIDTH}}] "


def _value(name: str, values: Array) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return "nan"
    if values.size == 1 or (name == "rate" and np.ptp(known) == 0):
        return f"{known[0]:.4g}"
    if name == "rate":
        return f"{known.min():.4g} to {known.max():.4g}"
    if grows(name) is None:
        return f"{known.mean():.4g}"
    best = known.max() if improvement(name).maximise else known.min()
    return f"{known.mean():.4g} (best {best:.4g})"


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()
