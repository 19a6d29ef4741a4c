"""Where batches come from, and that a training is put together from pieces that know nothing of each other's kinds."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.regularization import Constraints
from gpunn.training.best import Best
from gpunn.training.source import Source, rows_of, updates_of
from gpunn.training.standing import Standing
from gpunn.training.step import Gradient, TrainingStep
from gpunn.training.training import Training

X = np.random.default_rng(0).normal(size=(30, 4))
Y = np.random.default_rng(1).integers(0, 3, 30)
BATCH, EPOCHS = 5, 3


@pytest.mark.parametrize(
    ("arguments", "updates"),
    [
        ({"rows": 10, "batch_size": 5}, [(5,), (5,)]),
        ({"rows": 12, "batch_size": 5}, [(5,), (5,), (2,)]),
        ({"rows": 12, "batch_size": 5, "drop_last": True}, [(5,), (5,)]),
        ({"rows": 11, "batch_size": 5, "smallest": 2}, [(5,), (5,)]),
        ({"rows": 12, "batch_size": 5, "accumulate": 2}, [(5, 5), (2,)]),
        ({"rows": 12, "batch_size": 5, "accumulate": 12}, [(5, 5, 2)]),
        ({"rows": 3, "batch_size": 5}, [(3,)]),
        ({"rows": 1, "batch_size": 5, "smallest": 2}, [(1,)]),
    ],
)
def test_how_rows_are_cut_into_updates(arguments: dict[str, Any], updates: list[tuple[int, ...]]) -> None:
    found = updates_of(arguments.pop("rows"), **arguments)
    assert found == updates
    assert rows_of(found) == sum(map(sum, updates))


@pytest.mark.parametrize("method", ["begin", "loader"])
def test_a_source_says_which_method_it_lacks(method: str) -> None:
    class Empty(Source):
        pass

    source = Empty(gn.Network([gn.Dense(1)], 1, device="cpu"))
    with pytest.raises(NotImplementedError, match=f"Empty needs a {method} method"):
        getattr(source, method)(1)


class EverySecondRow(Source):
    """One of two machines' rows, which come from the host batch by batch."""

    by_operations = False

    def __init__(self, network: gn.Network, X: Any, y: Any) -> None:
        super().__init__(network)
        self.X, self.y, self.size = X[::2], y[::2], len(X[::2])
        self.updates = updates_of(self.size, batch_size=BATCH)
        self.batch = SimpleNamespace(load=self.load, weight=None)
        self.batch.X, self.batch.y = np.empty((BATCH, 4)), np.empty(BATCH, np.int64)

    def begin(self, epoch: int, first_update: int = 0) -> None:
        self.cursor[...] = rows_of(self.updates[:first_update])

    def loader(self, rows: int) -> Any:
        return self.batch

    def load(self) -> None:
        start = int(self.cursor[0])
        self.batch.X[...], self.batch.y[...] = self.X[start : start + BATCH], self.y[start : start + BATCH]


class StopsAfter:
    """A judge that looks at nothing but the number of epochs."""

    def __init__(self, network: gn.Network, epochs: int) -> None:
        self.best, self.epochs = Best(network, latest=False, before=False), epochs

    def begin(self) -> Standing:
        return Standing(stopped=[""], factors=[1.0])

    def judge(self, standing: Standing, record: Any, history: gn.History, going: Any, first_bad: Any) -> None:
        if standing.epoch == self.epochs:
            standing.stop("enough")

    def keep_last(self, standing: Standing, going: Any) -> None:
        pass

    def to_restore(self, standing: Standing) -> Any:
        return np.zeros(1, bool)


def network() -> gn.Network:
    return gn.Network([gn.Dense(6, "tanh"), gn.Dense(3)], 4, device="cpu", dtype="float64")


def test_a_source_and_a_judge_of_ones_own() -> None:
    net, expected = network(), network()
    gradient = Gradient(net, EverySecondRow(net, X, Y), gn.CrossEntropy(), {})
    step = TrainingStep(gradient, Constraints(net.ops, net.store), gn.Adam(0.01))
    history = Training(net, step, StopsAfter(net, EPOCHS), total=1000).run()
    plain = expected.fit(
        X[::2], Y[::2], loss=gn.CrossEntropy(), optimizer=gn.Adam(0.01), epochs=EPOCHS, batch_size=BATCH, keep="last",
        sampling="sequential", progress=False,
    )  # fmt: skip
    assert history.stopped == "enough" and history.epochs == EPOCHS
    np.testing.assert_array_equal(history["loss"], plain["loss"])
    np.testing.assert_array_equal(net.vector, expected.vector)
