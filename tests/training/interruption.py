"""A training that is interrupted by a signal, and what a test looks at before and after it."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 8
X = np.random.default_rng(0).normal(size=(40, 4))
Y = np.random.default_rng(1).integers(0, 3, 40)


def network(**options: Any) -> gn.Network:
    layers = [gn.Dense(6), gn.BatchNorm(), gn.Tanh(), gn.Dropout(0.2), gn.Dense(3)]
    return gn.Network(layers, 4, **{"device": "cpu", "dtype": "float64", **options})


def fit(net: gn.Network, **changes: Any) -> gn.History:
    """Train a network; its best epoch is not the last one."""
    settings = {
        "X": X, "y": Y, "loss": gn.CrossEntropy(), "optimizer": gn.SGD(2.0, momentum=0.8), "epochs": EPOCHS,
        "batch_size": 8, "progress": False,
    }  # fmt: skip
    return net.fit(**{**settings, **changes})


def bits(net: gn.Network) -> str:
    return bytes(net.vector.tobytes() + net.store.state.tobytes() + net.step.tobytes()).hex()


def weights(net: gn.Network) -> str:
    return bytes(net.vector.tobytes() + net.store.state.tobytes()).hex()


class Look(gn.Callback):
    """Keeps the weights of every epoch, and calls a function after one of the updates."""

    def __init__(self, done: int = -1, function: Callable[[Any], Any] = lambda run: None) -> None:
        self.done, self.function, self.kept = done, function, {}

    def on_start(self, run: Any) -> None:
        self.run = run

    def on_step(self, run: Any) -> None:
        if run.standing.done == self.done:
            self.function(run)

    def on_epoch(self, run: Any, record: Any) -> None:
        self.kept[run.epoch] = weights(run.network)


def is_best(look: Look) -> bool:
    """Whether the network holds the weights of the best epoch, and these are not those of the last one."""
    best = look.run.history.best_epoch
    return look.kept[best] == weights(look.run.network) != look.kept[max(look.kept)]


def handlers() -> list[Any]:
    return [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]


def columns(history: gn.History) -> dict[str, bytes]:
    return {n: history[n].tobytes() for n in history.names if n not in ("seconds", "examples_per_second")}


INNER = 23  # the update of the innermost training after which the signal comes


class Within(Look):
    """Starts another training after one of its epochs, once."""

    def __init__(self, start: Callable[[], Any], epoch: int = 4) -> None:
        super().__init__()
        self.start, self.epoch = start, epoch

    def on_epoch(self, run: Any, record: Any) -> None:
        super().on_epoch(run, record)
        if run.epoch == self.epoch:
            self.start()


class Nest:
    """Nested trainings, each started by the one before; `reaction` is called within the innermost."""

    def __init__(self, depth: int, reaction: Callable[[Any], Any], folder: Path | None = None) -> None:
        self.networks = [network(seed=i) for i in range(depth)]
        self.paths = [None if folder is None else folder / f"{i}.gpunn" for i in range(depth)]
        self.looks: list[Look] = [Look(INNER, reaction)]
        for i in reversed(range(1, depth)):
            self.looks.insert(0, Within(lambda i=i: self.begin(i)))  # type: ignore[misc]
        self.histories: dict[int, gn.History] = {}

    def begin(self, i: int = 0) -> None:
        self.histories[i] = fit(self.networks[i], callbacks=self.looks[i], checkpoint=self.paths[i])

    def ends(self) -> list[str]:
        return [look.run.history.stopped for look in self.looks]


def interrupt(run: Any) -> None:
    signal.raise_signal(signal.SIGINT)


def terminate(run: Any) -> None:
    signal.raise_signal(signal.SIGTERM)
