"""Trainings drawn by a number, callbacks that end them early, and how they ended.

Run as `python -m tests.training.drawn_trainings NUMBER FILE`, it resumes a training from a file in a process of its own
and prints how that ended.
"""

import hashlib
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.regularization import L1, L2, MaxNorm
from gpunn.schedules import Cosine, Exponential, InverseTime, OneCycle, ReduceOnPlateau, StepDecay, Warmup

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 7
ROWS = 41
BETAS = (0.8, 0.95)
TIMES = ("seconds", "examples_per_second")  # the only columns that may differ
X = np.random.default_rng(0).normal(size=(ROWS, 4))
Y = np.random.default_rng(1).integers(0, 3, ROWS)

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda rate: gn.SGD(rate),
    "momentum": lambda rate: gn.SGD(rate, momentum=0.8, dampening=0.1, weight_decay=1e-2),
    "nesterov": lambda rate: gn.SGD(rate, momentum=0.7, nesterov=True),
    "lion": lambda rate: gn.Lion(rate, betas=BETAS, weight_decay=0.1),
    "adam": lambda rate: gn.Adam(rate, betas=BETAS, eps=1e-6),
    "amsgrad": lambda rate: gn.Adam(rate, betas=BETAS, amsgrad=True, epsilon="hat"),
    "adamw": lambda rate: gn.AdamW(rate, betas=BETAS, weight_decay=0.1),
    "adamax": lambda rate: gn.Adamax(rate, betas=BETAS),
    "nadam": lambda rate: gn.NAdam(rate, betas=BETAS, decoupled_weight_decay=True, weight_decay=0.1),
    "radam": lambda rate: gn.RAdam(rate, betas=BETAS),
    "adagrad": lambda rate: gn.Adagrad(rate, lr_decay=0.01, initial_accumulator_value=0.1),
    "adadelta": lambda rate: gn.Adadelta(rate, rho=0.8),
    "rmsprop": lambda rate: gn.RMSprop(rate, alpha=0.9, momentum=0.5, centered=True),
    "lbfgs": lambda rate: gn.LBFGS(rate, history_size=3, max_evaluations=8),
}
RATES = {"lion": 0.02, "adadelta": 3.0, "lbfgs": 1.0, "sgd": 0.8, "momentum": 0.3, "nesterov": 0.3, "rmsprop": 0.02}
SCHEDULES: dict[str, Callable[[float], Any]] = {
    "constant": lambda rate: rate,
    "warmup": lambda rate: Warmup(5, Cosine(rate, 20), start_factor=0.1),
    "one cycle": lambda rate: OneCycle(rate, 30),
    "exponential": lambda rate: Exponential(rate, 0.97),
    "per model": lambda rate: (rate, StepDecay(rate, 7, 0.5), InverseTime(rate, 0.05)),
}
EXTRAS = ({}, {"regularization": L2(1e-3)}, {"regularization": [L1(1e-3), MaxNorm(2.0)], "clip_norm": 1.0})
WAYS = ("signal", "error", "copy", "fewer", "twice")


class Stopped(Exception):
    """What a callback raises to end a training."""


class Case:
    """A training drawn by its number, which always gives the same network and the same arguments of fit."""

    def __init__(self, number: int) -> None:
        rng = random.Random(number)
        self.number, self.way = number, WAYS[number % len(WAYS)]
        self.optimizer = rng.choice(list(OPTIMIZERS))
        full = self.optimizer == "lbfgs"
        self.models = None if full else rng.choice((None, 3))
        self.dropout, self.normal = rng.choice(((True, False), (False, True), (True, True), (False, False)))
        self.at_edge = full or rng.random() < 0.4  # interrupted between two epochs
        self.sampling = rng.choice(("shuffle", "replacement", "sequential"))
        self.accumulate = rng.choice((1, 3))
        names = [name for name in SCHEDULES if name != "per model" or self.models]
        self.schedule = rng.choice(names)
        self.plateau = rng.choice((None, ReduceOnPlateau(0.5, rng.randrange(2), cooldown=1)))
        self.patience = rng.choice((None, 1, 2, 3))
        self.dtype = rng.choice(("float32", "float64"))
        self.batch = rng.choice((4, 7, 8))
        self.validation = rng.choice((None, 0.3, (X[:9] + 0.5, Y[:9])))
        self.extra = rng.choice(EXTRAS[:2] if full else EXTRAS)  # which takes penalties only
        self.weighted, self.dropped, self.measured = (rng.random() < 0.3 for _ in range(3))
        self.keep = "last" if rng.random() < 0.15 else "best"
        self.rng = rng

    def __repr__(self) -> str:
        return f"Case({', '.join(f'{k}={v!r}' for k, v in vars(self).items() if k not in ('rng', 'validation'))})"

    def network(self, **options: Any) -> gn.Network:
        layers = [gn.Dense(6), *[gn.BatchNorm()] * self.normal, gn.Tanh(), *[gn.Dropout(0.3)] * self.dropout]
        given = {"device": "cpu", "dtype": self.dtype, "models": self.models, "seed": self.number, **options}
        return gn.Network([*layers, gn.Dense(3)], 4, **given)

    def options(self) -> dict[str, Any]:
        stopping = [] if self.patience is None else [gn.EarlyStopping(self.patience)]
        stopping += [gn.GradientTolerance(1e-9)] * self.measured
        return {
            "loss": gn.CrossEntropy(),
            "optimizer": OPTIMIZERS[self.optimizer](SCHEDULES[self.schedule](RATES.get(self.optimizer, 0.05))),
            "epochs": EPOCHS, "batch_size": self.batch, "validation": self.validation, "metrics": ("accuracy",),
            "stopping": stopping, "sampling": self.sampling, "accumulate": self.accumulate, "plateau": self.plateau,
            "keep": self.keep, "drop_last": self.dropped, "progress": False,
            "sample_weight": np.linspace(0.1, 1.0, ROWS) if self.weighted else None, **self.extra,
        }  # fmt: skip

    def run(self, *callbacks: Any, **more: Any) -> dict[str, Any]:
        """Train a new network and return everything about how that ended."""
        watch = Watch()
        network = self.network()
        history = network.fit(X, Y, **{**self.options(), "callbacks": [watch, *callbacks], **more})
        return watch.ended(network, history)


class Watch(gn.Callback):
    """Everything to compare, read during the training and not from a file."""

    def __init__(self) -> None:
        self.epochs: dict[int, str] = {}
        self.steps = 0

    def on_start(self, run: Any) -> None:
        self.run = run
        self.updates = len(run.source.updates)

    def on_epoch(self, run: Any, record: Any) -> None:
        self.epochs[run.epoch] = self.digest()

    def digest(self) -> str:
        """Values, state and everything the optimizer keeps, as they are now."""
        run = self.run
        arrays = [run.network.vector, run.network.store.state, run.network.step]
        arrays += [run.step.frame.state()[name] for name in sorted(run.step.frame.state())]
        return hashlib.sha256(b"".join(run.network.ops.to_host(a).tobytes() for a in arrays)).hexdigest()

    def ended(self, network: gn.Network, history: gn.History) -> dict[str, Any]:
        kept = {name: network.ops.to_host(a) for name, a in self.run.step.frame.state().items()}
        columns = {name: history[name].tobytes().hex() for name in history.names if name not in TIMES}
        return {
            "epochs": self.epochs, "best": bits(network), "columns": columns, "stopped": history.stopped,
            "best_epoch": history.best_epoch, "optimizer": {name: a.tobytes().hex() for name, a in kept.items()},
            "done": self.run.standing.done, "updates": self.updates, "loss": repr(network.loss),
            "progress": {k: v for k, v in vars(self.run.standing).items() if k != "seconds"},
        }  # fmt: skip


def bits(network: gn.Network) -> str:
    """All that a network holds, in hexadecimal."""
    host = network.ops.to_host
    return (host(network.vector).tobytes() + host(network.store.state).tobytes() + host(network.step).tobytes()).hex()


class Interrupt(gn.Callback):
    """Ctrl-C after a number of updates."""

    def __init__(self, done: int) -> None:
        self.done = done

    def on_step(self, run: Any) -> None:
        if run.standing.done == self.done:
            run.signals.interrupted = True


class Fail(Interrupt):
    """An error after a number of updates: in the step, or in the epoch that it ends."""

    def on_step(self, run: Any) -> None:
        if run.standing.done == self.done and run.standing.update < len(run.source.updates):
            raise Stopped

    def on_epoch(self, run: Any, record: Any) -> None:
        if run.standing.done == self.done:
            raise Stopped


class Copy(gn.Callback):
    """Copies the checkpoint, as it is after so many updates, to a name of its own."""

    def __init__(self, path: Path, at: set[int]) -> None:
        self.path, self.at = path, at

    def on_step(self, run: Any) -> None:
        if run.standing.done in self.at and self.path.exists():
            shutil.copy(self.path, f"{self.path}.{run.standing.done}")


if __name__ == "__main__":
    print(json.dumps(Case(int(sys.argv[1])).run(resume=sys.argv[2])))
