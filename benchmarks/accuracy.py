"""How soon is an accuracy reached, beside scikit-learn and a loop in PyTorch?

    python -m benchmarks.accuracy

On the digits and on two generated sets, spirals and moons, a fifth of each held out. The clock starts with NumPy
arrays and is read whenever an epoch has ended and the held-out examples are judged. A line for each accuracy: the
seconds until it is first reached. Each turn has a seed of its own for weights and order; the first does not count.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.cases import Case, Training
from benchmarks.command import alone
from benchmarks.digits import digits
from benchmarks.epoch import Fit, fits
from benchmarks.harness import LEFT_OUT, MissingPeerError, Row, Setting, failure, say
from benchmarks.peers import ours
from gpunn import data

GOALS = (0.8, 0.9, 0.95, 0.98)
NETS = {"digits": ((64, 128, 10), 20), "spirals": ((2, 64, 64, 2), 100), "moons": ((2, 64, 64, 2), 40)}  # and epochs
BATCH, ROWS = 64, 2000
COMPETITORS = ("gpunn", "scikit-learn", "torch slices")


def run(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for name, (widths, epochs) in NETS.items():
        say(f"accuracy: {name}")
        rows += curves(name, Case(widths, BATCH), 3 if setting.quick else epochs, setting)
    return rows


def split(name: str) -> Any:
    """Training and held-out inputs and classes."""
    if name == "digits":
        return digits()[1]
    table = getattr(data, name)(ROWS)
    prepared = data.Preprocessing.fit(table)
    X, y, held_out = prepared.inputs(table), prepared.targets(table), ROWS // 5
    return X[held_out:], y[held_out:], X[:held_out], y[:held_out]


def curves(name: str, case: Case, epochs: int, setting: Setting) -> list[Row]:
    """Rows for every goal and competitor; a goal that a turn does not reach has no figure of that turn."""
    X, y, Xv, yv = split(name)
    rows = {
        (goal, who): Row("accuracy", f"{name} {case}, {goal:.0%}", who, "s") for goal in GOALS for who in COMPETITORS
    }
    reached: dict[str, Fit] = {}
    for who in COMPETITORS:
        try:
            reached[who] = fits(setting)[who]()
        except MissingPeerError as error:
            mark(rows, who, str(error))
    best: dict[str, list[float]] = {who: [] for who in reached}
    for seed in range(-1, 1 if setting.quick else setting.turns):
        training = Training(case, X, y, epochs, ours.weights(case, seed + 1), seed=seed + 1)
        for who, fit in list(reached.items()):
            try:
                seen = curve(fit, training, Xv, yv)
            except Exception as error:  # one that breaks must not cost the others their figures
                mark(rows, who, failure(error))
                del reached[who]
                continue
            if seed >= 0:
                best[who].append(max(accuracy for _, accuracy in seen))
                for goal in GOALS:
                    rows[goal, who].runs += [seconds for seconds, accuracy in seen if accuracy >= goal][:1]
    for (goal, who), row in rows.items():
        if who in reached:
            row.details = {"best": f"{np.median(best[who]):.1%}"} if goal == GOALS[-1] else {}
            row.note = "" if row.runs else f"{LEFT_OUT}: not reached in {epochs} epochs"
    return list(rows.values())


def curve(fit: Fit, training: Training, Xv: Any, yv: Any) -> list[tuple[float, float]]:
    """Seconds and accuracy at the end of every epoch."""
    seen: list[tuple[float, float]] = []
    start = time.perf_counter()

    def after(classes: Any) -> None:
        accuracy = float(np.mean(classes(Xv) == yv))
        seen.append((time.perf_counter() - start, accuracy))

    fit(Training(**{**vars(training), "after": after}))
    return seen


def mark(rows: dict[tuple[float, str], Row], who: str, note: str) -> None:
    for goal in GOALS:
        rows[goal, who].runs, rows[goal, who].note = [], note


if __name__ == "__main__":
    alone("accuracy")
