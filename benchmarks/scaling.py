"""How does the time of an epoch grow with the rows, the width, the depth and the number of models?

    python -m benchmarks.scaling

One of them grows, the others stay. The exponent is the slope of a line through the logarithms of the medians: 1 is
growth in proportion; width's products alone would make 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.cases import Case
from benchmarks.command import alone
from benchmarks.harness import Calls, Row, Setting, alternate, say
from benchmarks.peers import ours
from gpunn import schedules
from gpunn.training.prepare import prepare
from gpunn.training.threads import threads_for

INPUTS, OUTPUTS, BATCH = 64, 10, 64


@dataclass(frozen=True)
class Size:
    """Hidden layers of one width, rows of data, and models of a population."""

    rows: int = 6400
    width: int = 128
    depth: int = 2
    models: int = 1

    @property
    def case(self) -> Case:
        return Case((INPUTS, *(self.width,) * self.depth, OUTPUTS), BATCH)


GROWTH = {
    "rows": (1600, 3200, 6400, 12_800, 25_600), "width": (64, 128, 256, 512, 1024), "depth": (1, 2, 4, 8, 16),
    "models": (1, 4, 16, 64),
}  # fmt: skip
BASE = {"models": Size(rows=1600, width=32)}  # of what all others stay at; many models are small ones


def run(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for name, values in GROWTH.items():
        base = BASE.get(name, Size())
        if setting.quick:
            base, values = replace(base, rows=640, width=16), values[:2]
        say(f"scaling: {name}")
        rows += growth(name, {value: replace(base, **{name: value}) for value in values}, setting)
    return rows


def growth(name: str, sizes: dict[int, Size], setting: Setting) -> list[Row]:
    """The epoch's time for each value, and the exponent."""
    subjects = {str(value): Calls(epoch(size, setting.device)) for value, size in sizes.items()}
    figures, errors = alternate(subjects, setting.turns, setting.seconds)
    rows = [
        Row("scaling", f"{name} {value:,}", "gpunn", "s", [] if str(value) in errors else figures[str(value)],
            errors.get(str(value), ""))
        for value in sizes
    ]  # fmt: skip
    timed = [(value, row.median) for value, row in zip(sizes, rows) if row.runs]
    if len(timed) > 1:
        slope = exponent(*zip(*timed))
        rows.append(Row("scaling", f"{name}, exponent", "gpunn", "", [slope]))
    return rows


def exponent(values: Any, seconds: Any) -> float:
    """The slope of log seconds over log values, by least squares."""
    return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])


def epoch(size: Size, device: Any) -> Any:
    """An epoch as `fit` does it: a new order, the steps, and one look at the device in the end."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((size.rows, INPUTS), np.float32), rng.integers(0, OUTPUTS, size.rows)
    models = None if size.models == 1 else size.models
    seed = 0 if models is None else tuple(range(models))
    network = gn.Network(ours.layers(size.case), INPUTS, device=device, models=models, seed=seed)
    optimizer = gn.Adam(1e-3)
    options = ours.options(loss=gn.CrossEntropy(), optimizer=optimizer, batch_size=BATCH, epochs=1, progress=False)
    training = prepare(network, X, y, options)
    source, step = training.source, training.step
    count = len(source.updates)
    rates = schedules.table(optimizer.rate, 0, count, models)
    number = 0

    def once() -> None:
        nonlocal number
        with network.ops.quiet(), threads_for(network, BATCH):
            source.begin(number)
            step.begin(rates)
            done = 0
            while done < count:
                program, times = step.program(done, count - done)
                program(times)
                done += times
            step.read(count)
        number += 1

    return once


if __name__ == "__main__":
    alone("scaling")
