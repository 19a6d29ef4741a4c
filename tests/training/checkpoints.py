"""Small trainings of every kind and the checkpoints of them, for tests of what a checkpoint may hold."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from gpunn import archive
from gpunn.schedules import ReduceOnPlateau

ROWS, BATCH, EPOCHS = 14, 5, 4
X = np.random.default_rng(0).normal(size=(ROWS, 3))
Y = np.random.default_rng(1).integers(0, 2, ROWS)


class Interrupt(gn.Callback):
    """Ctrl-C after a number of updates."""

    def __init__(self, done: int) -> None:
        self.done = done

    def on_step(self, run: Any) -> None:
        run.signals.interrupted = run.standing.done == self.done


def deep() -> list[Any]:
    return [gn.Dense(3), gn.BatchNorm(), gn.Tanh(), gn.Dropout(0.2), gn.Dense(2)]


def plain() -> list[Any]:
    return [gn.Dense(3, "tanh"), gn.Dense(2)]


STOPPING = [gn.EarlyStopping(3), gn.LossTolerance(1e-12), gn.GradientTolerance(1e-12), gn.TimeLimit(1e9)]
# How a network is made, how it is trained, and after how many of 3 updates an epoch it was interrupted.
BASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any], int]] = {
    "within an epoch": (deep, {}, {"stopping": STOPPING, "metrics": ["accuracy"]}, 8),
    "first epoch": (deep, {"dtype": "float64"}, {"optimizer": gn.RMSprop(0.01, momentum=0.5, centered=True)}, 2),
    "between epochs": (deep, {}, {"validation": (X[:5], Y[:5]), "plateau": ReduceOnPlateau(0.5, 1, cooldown=1)}, 6),
    "population": (deep, {"models": 2}, {"stopping": STOPPING[:2], "plateau": ReduceOnPlateau(0.5, 0)}, 7),
    "last weights": (plain, {"models": 2}, {"keep": "last", "optimizer": gn.NAdam(0.05)}, 6),
    "one model's last": (plain, {}, {"keep": "last", "optimizer": gn.Adadelta(1.0), "accumulate": 2}, 3),
    "L-BFGS": (plain, {"dtype": "float64"}, {"optimizer": gn.LBFGS(history_size=2), "batch_size": ROWS}, 3),
}


def network(name: str) -> gn.Network:
    layers, options, _, _ = BASES[name]
    return gn.Network(layers(), 3, **{"device": "cpu", "dtype": "float32", **options})


def fit(net: gn.Network, name: str, **more: Any) -> gn.History:
    settings = {"loss": gn.CrossEntropy(), "optimizer": gn.Adam(0.05), "batch_size": BATCH, "epochs": EPOCHS}
    return net.fit(X, Y, **{**settings, "progress": False, **BASES[name][2], **more})


@cache
def original(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of an unedited checkpoint."""
    path = folder / "original.gpunn"
    fit(network(name), name, checkpoint=path, callbacks=Interrupt(BASES[name][3]))
    arrays, meta = archive.read(path)
    assert meta["run"]["progress"]["done"] == BASES[name][3]
    return arrays, meta
