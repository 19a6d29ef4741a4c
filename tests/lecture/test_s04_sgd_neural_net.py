"""S4, SGD-NEURAL-NET: notes 002 §6.6.2, 000."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.schedules import InverseTime, Sequence
from tests.lecture.descent import LOSS, POINTS, Watch, X, Y, distance, gradients, network, step, values

T = 40


def eta(t: int) -> float:
    """The notes count steps from 1, Python and our schedules from 0."""
    return 0.08 / (t + 1) ** 0.6


class Stateful:
    """A step size with a memory of its own, as any callable may have."""

    def __init__(self) -> None:
        self.known: dict[int, float] = {}

    def __call__(self, t: int) -> float:
        return self.known.setdefault(t, eta(t))


RATES: dict[str, Any] = {
    "function": eta,
    "lambda": lambda t: eta(t),
    "object": Stateful(),
    "sequence": Sequence([eta(t) for t in range(T)]),
    "schedule": InverseTime(0.08, 0.1),
}


def run(net: gn.Network, rate: Any, **options: Any) -> tuple[gn.History, Watch]:
    watch = Watch()
    defaults = {"steps": T, "keep": "last", "callbacks": [watch]}
    history = net.fit(
        X, Y, loss=LOSS, optimizer=gn.SGD(rate), batch_size=1, sampling="replacement", **(defaults | options)
    )
    return history, watch


def drawn(before: Any, after: list[Any], rates: list[float]) -> list[int]:
    """Which point each step was made with: the one whose step, computed in NumPy, ends where the network is."""
    points = []
    for now, rate in zip(after, rates):
        away = [distance(step(before, rate, gradients(before, i)), now) for i in range(POINTS)]
        points.append(int(np.argmin(away)))
        assert min(away) < 1e-13 and np.partition(away, 1)[1] > 1e-6
        before = now
    return points


@pytest.mark.parametrize("rate", RATES)
def test_fit_follows_sgd_neural_net_step_by_step(backend: Any, rate: str) -> None:
    """T steps, each W ← W - η(t) ∂L/∂W of one random point, for weights and offsets of both layers."""
    net = network(backend)
    start = values(net)
    history, watch = run(net, RATES[rate])
    wanted = [RATES[rate](t) for t in range(T)]
    points = drawn(start, watch.seen, wanted)
    assert len(watch.seen) == T and distance(values(net), watch.seen[-1]) == 0.0
    assert len(set(points[:POINTS])) < POINTS  # with replacement
    assert len(set(points)) > POINTS // 2
    assert history.epochs == -(-T // POINTS) and history.rate[-1] == wanted[-1]


def test_stochastic_gradient_descent_draws_points_uniformly() -> None:
    """2,400 draws: each point 200 times, with a deviation of 13.5."""
    net = network("cpu")
    start = values(net)
    _, watch = run(net, 1e-3, steps=200 * POINTS)
    counts = np.bincount(drawn_quickly(start, watch.seen, 1e-3), minlength=POINTS)
    assert counts.sum() == 200 * POINTS
    assert np.abs(counts - 200).max() < 5 * 13.5
    assert (((counts - 200) / 13.5) ** 2).sum() < 35  # χ² with 11 degrees of freedom: 1 in 4,000


def drawn_quickly(before: Any, after: list[Any], rate: float) -> list[int]:
    """By the last offsets alone, whose gradient is 2 (a - y): all points at once."""
    points = []
    for now in after:
        a = np.tanh(X @ before["0.W"] + before["0.b"]) @ before["1.W"] + before["1.b"]
        away = np.abs(before["1.b"] - 2 * rate * (a - Y) - now["1.b"]).max(axis=1)
        points.append(int(np.argmin(away)))
        assert away.min() < 1e-14
        before = now
    return points


def test_weights_and_offsets_of_sgd_neural_net_start_at_random(backend: Any) -> None:
    """Lines 1 to 4: every weight and every offset, another for each seed."""
    one, same, other = (values(network(backend, seed=seed)) for seed in (2, 2, 3))
    for name, value in one.items():
        assert np.count_nonzero(value) == value.size == len(np.unique(value))
        np.testing.assert_array_equal(value, same[name])
        assert np.abs(value - other[name]).min() > 0


def test_initial_weights_and_offsets_have_the_deviation_asked_for() -> None:
    start: dict[str, Any] = {"initializer": gn.initializers.Gaussian(0.5)}
    layer = gn.Dense(400, **start, bias_initializer=gn.initializers.Gaussian(0.3))
    found = values(gn.Network([layer], 100, device="cpu", dtype="float64"))
    for name, deviation in (("0.W", 0.5), ("0.b", 0.3)):
        size = found[name].size
        assert abs(found[name].mean()) < 5 * deviation / size**0.5
        assert abs(found[name].std() / deviation - 1) < 5 / (2 * size) ** 0.5


def test_a_termination_condition_ends_stochastic_gradient_descent(backend: Any) -> None:
    """The loop's `while termination condition not met`, looked at after every step."""

    class Enough(gn.Callback):
        steps = 0

        def on_step(self, run: Any) -> None:
            self.steps += 1
            if np.abs(values(run.network)["1.b"]).max() < 0.3 or self.steps == 1000:
                run.stop("the offsets are small enough")

    condition, net = Enough(), network(backend)
    assert np.abs(values(net)["1.b"]).max() > 0.3
    history, watch = run(net, 0.05, steps=2000, callbacks=[condition])
    assert 1 < condition.steps < 200 and not watch.seen
    assert history.stopped == "the offsets are small enough"
    assert np.abs(values(net)["1.b"]).max() < 0.3


def test_stochastic_gradient_descent_learns(backend: Any) -> None:
    net = network(backend)
    before = net.loss_of(X, Y, LOSS)
    run(net, lambda t: 0.1 / (1 + 0.01 * t), steps=400)
    assert net.loss_of(X, Y, LOSS) < 0.6 * before
