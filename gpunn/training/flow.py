"""Do gradients vanish or explode? The size of every layer's output and gradient, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpunn import hyper
from gpunn.errors import ConfigurationError
from gpunn.passes import Pass
from gpunn.training.callbacks import Callback, Run
from gpunn.training.figures import draw, figure, save
from gpunn.training.probe import FlowProbe
from gpunn.types import Array

FACTOR = 100.0  # the first and the last layer may differ by less than this
DRAWN = 6  # epochs in a plot
TITLES = ("layer", "", "output", "gradient", "of the last layer's")


@dataclass(frozen=True)
class Verdict:
    """`kind` is "healthy", "vanishing" or "exploding"; `ratio` is the first layer's gradient over the last one's."""

    kind: str
    layers: tuple[str, ...]
    ratio: float
    why: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.why}"


class GradientFlow(Callback):
    """Records the root mean square of each layer's output and gradient in the last step of every `every`-th epoch.

    `flow.epochs` lists the epochs; `flow.gradients[path]` and `flow.activations[path]` have a row for each of them and
    a column for each model. The cost is one more pass over outputs and gradients and one small transfer an epoch.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = hyper.whole("GradientFlow every", every)
        self.epochs: list[int] = []
        self._rows: list[dict[str, dict[str, Array]]] = []
        self._probe: FlowProbe | None = None

    # As a callback

    def probe(self, run_pass: Pass) -> FlowProbe:
        self._probe = FlowProbe(run_pass)
        return self._probe

    def on_start(self, run: Run) -> None:
        if run.epoch == 0:  # otherwise training is resumed
            self.epochs, self._rows = [], []

    def on_epoch(self, run: Run, record: Mapping[str, Array]) -> None:
        if (run.epoch - 1) % self.every == 0:
            self.record(run.epoch)

    def on_end(self, run: Run) -> None:
        if run.epoch and run.epoch not in self.epochs:
            self.record(run.epoch)

    def record(self, epoch: int) -> None:
        """Record what the probe measured last, for this epoch."""
        if self._probe is None:
            raise self._nothing()
        self.epochs.append(epoch)
        self._rows.append(self._probe.read())

    def _nothing(self) -> ConfigurationError:
        return ConfigurationError(
            "GradientFlow", expected="a training to look at", got="none", fix="pass it to fit in callbacks="
        )

    # What was recorded

    @property
    def gradients(self) -> dict[str, Array]:
        return self._sizes("gradients")

    @property
    def activations(self) -> dict[str, Array]:
        return self._sizes("activations")

    def _sizes(self, of: str) -> dict[str, Array]:
        if not self._rows:
            raise self._nothing()
        return {path: np.stack([row[of][path] for row in self._rows]) for path in self._rows[-1][of]}

    def verdict(self, factor: float = FACTOR) -> Any:
        """A `Verdict` on the last record; for a population, a list of them.

        Gradients vanish if the first layer's is `factor` times smaller than the last one's, and explode if any layer's
        is `factor` times larger. Outputs vanish or explode if the last layer's are `factor` times smaller or larger
        than the first one's.
        """
        gradients, outputs = self.gradients, self.activations
        models = len(next(iter({**gradients, **outputs}.values()))[-1])
        found = [
            _judge({p: float(v[-1, k]) for p, v in gradients.items()}, {p: float(v[-1, k]) for p, v in outputs.items()},
                   factor)
            for k in range(models)
        ]  # fmt: skip
        return found if self._population else found[0]

    @property
    def _population(self) -> bool:
        return self._probe is not None and self._probe.population

    # Tables and plots

    def _cells(self) -> list[tuple[str, ...]]:
        """The last record as text: the median over all models."""
        sizes = {
            of: {p: float(np.median(v[-1])) for p, v in self._sizes(of).items()} for of in ("activations", "gradients")
        }
        last = next(reversed(sizes["gradients"].values()), math.nan)
        assert self._probe is not None
        rows = []
        for path, kind in self._probe.kinds.items():
            output, gradient = sizes["activations"].get(path), sizes["gradients"].get(path)
            ratio = None if gradient is None or not last else gradient / last
            rows.append((path, kind, *("" if v is None else f"{v:.3g}" for v in (output, gradient, ratio))))
        return rows

    def _title(self) -> str:
        models = f", median of {self._probe.models} models" if self._population and self._probe else ""
        return f"root mean squares in epoch {self.epochs[-1]}{models}"

    def _verdicts(self) -> str:
        """One line for a single network; for a population one line per kind of verdict, with the first such model."""
        if not self._population:
            return str(self.verdict())
        verdicts = self.verdict()
        kinds = [verdict.kind for verdict in verdicts]
        firsts = {kind: (kinds.index(kind), verdicts[kinds.index(kind)].why) for kind in kinds}
        return "\n".join(
            f"{kind}: {kinds.count(kind)} of {len(kinds)} models, such as model {k}: {why}"
            for kind, (k, why) in firsts.items()
        )

    def table(self) -> str:
        """A line for each layer in the last record, and the verdict. (`rich.print(flow)` prints it in colour.)"""
        rows = [TITLES, *self._cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(TITLES))]
        lines = [
            "  ".join(c.rjust(w) if i > 1 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self._title(), "", *lines, "", self._verdicts()])

    def __rich__(self) -> Any:
        from rich.table import Table

        rows = self._cells()
        table = Table(title=self._title(), caption=self._verdicts())
        for i, title in enumerate(TITLES):
            table.add_column(title, justify="right" if i > 1 else "left")
        for row in rows:
            table.add_row(*row)
        return table

    def plot(self, path: str | Path | None = None) -> Any:
        """A matplotlib figure, saved if a path is given: sizes over layers, one line for each of a few epochs.

        For a population, the line is the mean and a band goes from the smallest to the largest value.
        """
        panels: list[Any]
        sizes = {"gradients": self.gradients, "activations": self.activations}
        made, panels = figure(2)
        chosen = sorted({round(i) for i in np.linspace(0, len(self.epochs) - 1, DRAWN)})
        for panel, (title, of_layers) in zip(panels, sizes.items()):
            shown = False
            for i in chosen:
                values = np.array([of_layers[p][i] for p in of_layers]).reshape(len(of_layers), -1)
                values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
                shade = str(0.8 * (1 - (i + 1) / len(self.epochs)))
                draw(panel, list(of_layers), values, color=shade, label=f"epoch {self.epochs[i]}")
                shown = shown or bool(np.isfinite(values).any())
            if shown:
                panel.set_yscale("log")
                panel.legend()
            panel.set(title=f"size of {title}", xlabel="layer")
        return save(made, path)


def _judge(gradients: dict[str, float], outputs: dict[str, float], factor: float) -> Verdict:
    """One model's verdict."""
    sizes = [*gradients.values()]
    first, last = (sizes[0], sizes[-1]) if sizes else (math.nan, math.nan)
    ratio = first / last if last else math.nan
    lost = tuple(p for p in {**outputs, **gradients} if not _finite(gradients.get(p), outputs.get(p)))
    if lost:
        return Verdict("exploding", lost, ratio, f"numbers that are not finite in {_layers(lost)}")
    if sizes and (large := tuple(p for p, v in gradients.items() if v > last * factor)):
        return Verdict(
            "exploding", large, ratio, _in_words("gradient", gradients, max(large, key=gradients.__getitem__), large)
        )
    if sizes and (first == 0.0 or first * factor < last):
        small = tuple(p for p, v in gradients.items() if v == 0.0 or v * factor < last)
        return Verdict("vanishing", small, ratio, _in_words("gradient", gradients, next(iter(gradients)), small))
    start, end = next(iter(outputs.values()), 1.0), next(reversed(outputs.values()), 1.0)
    if end > start * factor:
        large = tuple(p for p, v in outputs.items() if v > start * factor)
        return Verdict("exploding", large, ratio, _in_words("output", outputs, next(iter(outputs)), large))
    if end * factor < start:
        small = tuple(p for p, v in outputs.items() if v * factor < start)
        return Verdict("vanishing", small, ratio, _in_words("output", outputs, next(iter(outputs)), small))
    return Verdict("healthy", (), ratio, f"the first layer's gradient is {ratio:.3g} of the last one's")


def _finite(*sizes: float | None) -> bool:
    return all(size is None or math.isfinite(size) for size in sizes)


def _in_words(of: str, sizes: dict[str, float], path: str, layers: tuple[str, ...]) -> str:
    """Names a layer's size, the last layer's, and all layers concerned."""
    last = next(reversed(sizes))
    return f"{of} {sizes[path]:.3g} in layer {path}, {sizes[last]:.3g} in layer {last}; {_layers(layers)}"


def _layers(paths: tuple[str, ...]) -> str:
    return f"layer{'s' if len(paths) > 1 else ''} {', '.join(paths)}"
