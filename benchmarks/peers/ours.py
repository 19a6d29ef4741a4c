"""gpunn's own step, exactly as `fit` makes it."""

from __future__ import annotations

from inspect import signature
from itertools import pairwise
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.cases import Case, Problem, Training, data
from benchmarks.counting import captured, host_waits
from gpunn import schedules
from gpunn.training.options import Options
from gpunn.training.prepare import prepare
from gpunn.training.threads import threads_for


def kind_of(device: Any) -> str:
    """ "cpu" or "cuda", of a name or a backend."""
    name = device if isinstance(device, str) else device.device
    return "cuda" if name.startswith("cuda") else "cpu"


def layers(case: Case) -> list[gn.Layer]:
    made: list[gn.Layer] = []
    for width in case.widths[1:-1]:
        made += (
            [gn.Dense(width, bias=False, initializer=gn.initializers.He()), gn.BatchNorm(activation="relu")]
            if case.norm
            else [gn.Dense(width, "relu")]
        )
        made += [gn.Dropout(case.dropout)] if case.dropout else []
    return [*made, gn.Dense(case.widths[-1])]


def options(**given: Any) -> Options:
    """The arguments of `fit`, its defaults where none is given."""
    defaults = {name: p.default for name, p in signature(gn.Network.fit).parameters.items() if p.kind is p.KEYWORD_ONLY}
    return Options(**{**defaults, **given})


class Steps:
    """Updates of one training, on the data that it shares with its competitors."""

    grain = 1

    def __init__(self, case: Case, device: Any) -> None:
        self.case = case
        self.X, self.y = data(case, kind_of(device))
        network = self.network = gn.Network(layers(case), case.widths[0], device=device, dtype=case.dtype, seed=0)
        start = {name: network.ops.to_host(value).copy() for name, value in network.parameters.items()}
        loss = gn.SquaredError() if case.regression else gn.CrossEntropy()
        optimizer = gn.Adam(case.rate) if case.optimizer == "Adam" else gn.SGD(case.rate)
        chosen = options(loss=loss, optimizer=optimizer, batch_size=case.batch, epochs=1, progress=False)
        self.training = prepare(network, self.X, self.y, chosen)
        self.source, self.step = self.training.source, self.training.step
        self.epoch = len(self.source.updates)
        self.rates = schedules.table(optimizer.rate, 0, self.epoch, network.models)
        self.begin()
        order = network.ops.to_host(self.source.order.rows).copy()
        self.problem = Problem(case, self.X, self.y, order, by_layer(start))

    def begin(self) -> None:
        """Every epoch is the first one, so that it is in the same order."""
        with self.network.ops.quiet():
            self.source.begin(0)
            self.step.begin(self.rates)
        self.network.ops.synchronize()

    def run(self, steps: int) -> None:
        with self.network.ops.quiet(), threads_for(self.network, self.case.batch):
            for i in range(steps):
                self.update(i)
        self.network.ops.synchronize()

    def update(self, i: int) -> None:
        """One of the epoch, as `fit` runs it."""
        program, times = self.step.program(i)
        program(times)

    def update_once(self) -> None:
        """The first update of an epoch, neither captured nor recorded."""
        self.step(self.source.updates[0])

    def losses(self, steps: int) -> list[float]:
        """Of each of the first steps."""
        found: list[float] = []
        while len(found) < steps:
            self.begin()
            for i in range(min(self.epoch, steps - len(found))):
                self.update(i)
                value = self.step.gradient.passes[self.case.batch].loss_frame.value
                found.append(float(self.network.ops.to_host(value).item()))
        return found

    def details(self, steps: int = 100) -> dict[str, Any]:
        """On a GPU: how often the host waits, over about so many steps, and what one step is made of."""
        ops = self.network.ops
        if kind_of(ops) == "cpu":
            return {}
        epochs, waits = -(-steps // self.epoch), 0
        for _ in range(epochs):
            self.begin()
            with host_waits(ops) as count, ops.quiet():
                for i in range(self.epoch):
                    self.update(i)
            waits += count.value
        ops.synchronize()
        return {"host waits a step": waits / (epochs * self.epoch), **captured(self.step.programs.values())}

    def close(self) -> None:
        """Nothing outlives this object."""


def by_layer(parameters: dict[str, np.ndarray[Any, Any]]) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Parameters by their short names, a dict for each Dense and what belongs to it."""
    found: list[dict[str, np.ndarray[Any, Any]]] = []
    for name in sorted(parameters, key=lambda name: (int(name.partition(".")[0]), name.partition(".")[2] != "W")):
        short = name.partition(".")[2]
        if short == "W":
            found.append({})
        found[-1][short] = parameters[name]
    assert all(a["W"].shape[1] == b["W"].shape[0] for a, b in pairwise(found))
    return found


def weights(case: Case, seed: int = 0) -> list[dict[str, np.ndarray[Any, Any]]]:
    """What a net starts with."""
    network = gn.Network(layers(case), case.widths[0], device="cpu", seed=seed)
    return by_layer(dict(network.parameters))


def fit(training: Training, device: Any) -> list[float]:
    """As a user would."""
    case = training.case
    network = gn.Network(layers(case), case.widths[0], device=device, seed=training.seed)

    def classes(X: Any) -> Any:
        return network.predict(X).argmax(axis=1)

    history = network.fit(
        training.X, training.y, loss=gn.CrossEntropy(), optimizer=gn.Adam(case.rate), epochs=training.epochs,
        batch_size=case.batch, sampling="shuffle" if training.shuffle else "sequential",
        callbacks=lambda *_: training.ended(classes), keep="last", progress=False,
    )  # fmt: skip
    return [float(value) for value in history["loss"]]
