"""S8, batch, stochastic and mini-batch gradient descent: notes 002 §6.7.1, Definitions 21, 22 and 24; 003."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from tests.lecture.descent import LOSS, OUTPUTS, POINTS, Watch, X, Y, added, distance, network, step, values

SIZES = {"batch (BGD)": POINTS, "stochastic (SGD)": 1, "mini-batch, K = 4": 4, "mini-batch, K = 5": 5}
ETA = 0.03


def fit(net: gn.Network, size: int, loss: Any = LOSS, eta: float = ETA, **options: Any) -> list[Any]:
    """The weights after each step, with points in their order unless told otherwise."""
    watch = Watch()
    defaults = {"epochs": 1, "sampling": "sequential", "keep": "last"}
    net.fit(
        X, Y, loss=loss, optimizer=gn.SGD(eta), batch_size=size, callbacks=[watch], **(defaults | options)
    )  # fmt: skip
    return watch.seen


@pytest.mark.parametrize("kind", SIZES)
def test_a_step_on_a_batch_with_reduction_sum_adds_the_gradients_of_its_points(backend: Any, kind: str) -> None:
    """W_{t+1} = W_t - η Σ ∇L⁽ⁱ⁾(W_t) over the K points of the batch: `reduction="sum"` is exactly the notes'."""
    net, points = network(backend), range(SIZES[kind])
    before = values(net)
    (after,) = fit(net, SIZES[kind], epochs=None, steps=1)
    assert distance(after, step(before, ETA, added(before, points))) < 1e-13
    assert distance(after, before) > 1e-3


@pytest.mark.parametrize("kind", SIZES)
def test_a_step_on_a_batch_with_reduction_mean_divides_by_points_and_outputs(backend: Any, kind: str) -> None:
    """Our default divides by the K points, and an elementwise loss by its outputs too, as PyTorch does."""
    net, size = network(backend), SIZES[kind]
    before = values(net)
    (after,) = fit(net, size, gn.SquaredError(), epochs=None, steps=1)
    assert distance(after, step(before, ETA / (size * OUTPUTS), added(before, range(size)))) < 1e-13


@pytest.mark.parametrize("kind", SIZES)
def test_an_epoch_is_one_pass_through_the_points_in_batches(backend: Any, kind: str) -> None:
    """Each step with a new mini-batch, the last one with the points that are left (K = 5: two of twelve)."""
    net, size = network(backend), SIZES[kind]
    w, seen = values(net), fit(net, size)
    batches = [range(start, min(start + size, POINTS)) for start in range(0, POINTS, size)]
    assert len(seen) == len(batches)
    for points, after in zip(batches, seen):
        w = step(w, ETA, added(w, points))
        assert distance(after, w) < 1e-13


@pytest.mark.parametrize("kind", SIZES)
def test_mini_batches_are_drawn_at_random(backend: Any, kind: str) -> None:
    """Definition 24, "we randomly select K data points": from linear outputs of point i's own weight alone."""
    size = SIZES[kind]
    net = gn.Network([gn.Dense(1, bias=False)], POINTS, device=backend, dtype="float64")
    watch = Watch()
    loss = gn.SquaredError(reduction="sum")
    net.fit(
        np.eye(POINTS), np.full((POINTS, 1), 9.0), loss=loss, optimizer=gn.SGD(0.01), batch_size=size, epochs=2,
        callbacks=[watch], keep="last",
    )  # fmt: skip
    start = values(gn.Network([gn.Dense(1, bias=False)], POINTS, device=backend, dtype="float64"))
    w, batches = [start["0.W"], *(seen["0.W"] for seen in watch.seen)], []
    for before, after in pairwise(w):
        batches.append(set(np.flatnonzero((after != before)[:, 0]).tolist()))
    steps = -(-POINTS // size)
    for epoch in (batches[:steps], batches[steps:]):
        assert [len(batch) for batch in epoch] == [size] * (POINTS // size) + [POINTS % size] * (POINTS % size > 0)
        assert set().union(*epoch) == set(range(POINTS))
    if size < POINTS:
        assert batches[:steps] != batches[steps:]


def test_batch_stochastic_and_mini_batch_descent_all_learn() -> None:
    for kind, size in SIZES.items():
        net = network("cpu")
        before = net.loss_of(X, Y, LOSS)
        fit(net, size, eta=0.02, epochs=150, sampling="shuffle")
        assert net.loss_of(X, Y, LOSS) < 0.5 * before, kind
