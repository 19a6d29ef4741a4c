"""L-BFGS: how fast it converges, and what it does where it cannot."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import optimizers as o
from gpunn import schedules
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.errors import ConfigurationError
from gpunn.initializers import Gaussian
from gpunn.optimizers.base import OptimizerFrame
from gpunn.optimizers.wolfe import Point, wolfe_search
from gpunn.parameters import Parameter, ParameterStore
from tests.optimizers.runs import new_store, write

Function = Callable[[np.ndarray], tuple[float, np.ndarray]]


def logistic(n: int = 200, d: int = 8) -> Function:
    """Mean logistic loss with a small ridge, of d weights."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, d)) * np.logspace(0, 1, d)
    y = (rng.uniform(size=n) < 1 / (1 + np.exp(-X @ rng.normal(size=d)))) * 1.0

    def evaluate(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = X @ w
        loss = np.mean(np.logaddexp(0.0, z) - y * z) + 0.5e-3 * w @ w
        return float(loss), X.T @ (0.5 + 0.5 * np.tanh(z / 2) - y) / n + 1e-3 * w

    return evaluate


def rosenbrock(w: np.ndarray) -> tuple[float, np.ndarray]:
    a, b = w[:-1], w[1:]
    g = np.zeros_like(w)
    g[:-1] = -400 * a * (b - a * a) - 2 * (1 - a)
    g[1:] += 200 * (b - a * a)
    return float(np.sum(100 * (b - a * a) ** 2 + (1 - a) ** 2)), g


class Problem:
    """A function of a store's parameters on some backend."""

    def __init__(self, backend: Any, function: Function, d: int, dtype: str = "float64", start: float = 0.5) -> None:
        self.backend, self.function, self.calls = backend, function, 0
        self.store = ParameterStore({"W": Parameter((d, 1), Gaussian(1.0))}, {}, backend, dtype, (0,), None)
        write(backend, np.full((d, 1), start), self.store.views["W"])

    @property
    def w(self) -> np.ndarray:
        host: np.ndarray = self.backend.to_host(self.store.views["W"]).astype(np.float64).reshape(-1)
        return host

    def evaluate(self) -> float:
        self.calls += 1
        loss, g = self.function(self.w)
        write(self.backend, g.reshape(-1, 1), self.store.gradient_views["W"])
        return loss

    def run(self, optimizer: o.LBFGS, steps: int) -> tuple[OptimizerFrame, list[Any]]:
        t, outcomes = OptimizerFrame(self.backend, self.store, optimizer), []
        for _ in range(steps):
            outcomes.append(optimizer.minimize_step(t, self.evaluate))
            if outcomes[-1].reason:
                break
        return t, outcomes


def test_lbfgs_solves_logistic_regression_in_few_evaluations(backend: Any) -> None:
    """To a gradient of 1e-8 in a few dozen evaluations, each loss below the one before up to rounding."""
    problem = Problem(backend, logistic(), 8)
    _, outcomes = problem.run(o.LBFGS(tolerance_gradient=1e-8), 100)
    last = outcomes[-1]
    assert last.reason == "the gradient is within tolerance_gradient"
    assert last.gradient_norm <= 1e-8 and np.linalg.norm(problem.function(problem.w)[1]) <= 1.01e-8
    assert len(outcomes) <= 45 and problem.calls == sum(out.evaluations for out in outcomes) <= 60
    losses = [out.loss for out in outcomes]
    assert all(b <= a + 1e-14 for a, b in pairwise(losses))
    assert last.loss == pytest.approx(problem.function(problem.w)[0], abs=1e-14)


def test_lbfgs_goes_on_where_losses_round_to_the_same_number() -> None:
    """Below a gradient of about 1e-8 all losses nearby round to the same number."""
    problem = Problem(NumpyBackend(), logistic(), 8)
    _, outcomes = problem.run(o.LBFGS(tolerance_gradient=1e-14), 100)
    assert outcomes[-1].reason == "the gradient is within tolerance_gradient" and problem.calls <= 80


def test_lbfgs_keeps_no_pair_of_negative_curvature() -> None:
    """At a maximum, with no evaluation left to find a better step."""
    problem = Problem(NumpyBackend(), lambda w: (float(np.cos(w).sum()), -np.sin(w)), 3, start=0.1)
    t, outcomes = problem.run(o.LBFGS(max_evaluations=1), 1)
    assert outcomes[0].loss < 3 * math.cos(0.1) and float(t.pairs[0, ...]) == 0.0
    problem = Problem(NumpyBackend(), lambda w: (float(np.cos(w).sum()), -np.sin(w)), 3, start=0.1)
    problem.run(o.LBFGS(), 30)
    np.testing.assert_allclose(problem.w, np.pi, atol=1e-6)


def test_lbfgs_solves_the_rosenbrock_function() -> None:
    problem = Problem(NumpyBackend(), rosenbrock, 10, start=-1.2)
    _, outcomes = problem.run(o.LBFGS(tolerance_gradient=1e-9), 200)
    assert outcomes[-1].reason == "the gradient is within tolerance_gradient"
    assert min(np.abs(problem.w - 1).max(), outcomes[-1].loss) < 1e-8 or outcomes[-1].loss < 4.0  # its other minimum
    assert problem.calls < 200


def test_lbfgs_solves_a_quadratic_in_few_steps() -> None:
    curvature = np.array([1.0, 10.0, 100.0])

    def bowl(w: np.ndarray) -> tuple[float, np.ndarray]:
        return float(0.5 * w @ (curvature * w)), curvature * w

    problem = Problem(NumpyBackend(), bowl, 3)
    _, outcomes = problem.run(o.LBFGS(), 40)
    assert outcomes[-1].reason == "the gradient is within tolerance_gradient" and len(outcomes) < 20


@pytest.mark.parametrize("history", [1, 3])
def test_lbfgs_converges_with_a_short_history(history: int) -> None:
    problem = Problem(NumpyBackend(), logistic(), 8)
    t, outcomes = problem.run(o.LBFGS(history_size=history), 300)
    assert outcomes[-1].reason == "the gradient is within tolerance_gradient"
    assert len(t.moments) == 4 + 2 * history


def test_lbfgs_takes_the_same_steps_on_every_backend(backend: Any) -> None:
    other = Problem(NumpyBackend(), logistic(), 8)
    problem = Problem(backend, logistic(), 8)
    found, expected = problem.run(o.LBFGS(), 12)[1], other.run(o.LBFGS(), 12)[1]
    assert [out.evaluations for out in found] == [out.evaluations for out in expected]
    np.testing.assert_allclose(problem.w, other.w, atol=1e-9)


def test_lbfgs_in_float32_stops_at_the_limit_of_its_precision(backend: Any) -> None:
    problem = Problem(backend, logistic(), 8, "float32")
    _, outcomes = problem.run(o.LBFGS(tolerance_gradient=1e-12), 200)
    exact = Problem(NumpyBackend(), logistic(), 8)
    exact.run(o.LBFGS(tolerance_gradient=1e-9), 200)
    assert outcomes[-1].reason is not None and len(outcomes) < 200
    assert outcomes[-1].loss - exact.function(exact.w)[0] < 1e-6
    assert outcomes[-1].loss == pytest.approx(problem.function(problem.w)[0], abs=1e-7)


def test_lbfgs_resumes_from_its_state(backend: Any) -> None:
    whole = Problem(backend, logistic(), 8)
    whole.run(o.LBFGS(), 20)
    first = Problem(backend, logistic(), 8)
    t, _ = first.run(o.LBFGS(), 13)
    second = Problem(backend, logistic(), 8)
    u = OptimizerFrame(backend, second.store, o.LBFGS())
    write(backend, backend.to_host(first.store.values), second.store.values)
    assert set(u.state()) == set(t.state())
    for name, array in u.state().items():
        write(backend, backend.to_host(t.state()[name]), array)
    for _ in range(7):
        o.LBFGS().minimize_step(u, second.evaluate)
    np.testing.assert_array_equal(second.w, whole.w)


# Ends


def test_lbfgs_stops_when_the_loss_no_longer_changes() -> None:
    problem = Problem(NumpyBackend(), logistic(), 8)
    _, outcomes = problem.run(o.LBFGS(tolerance_gradient=0.0, tolerance_change=1e-6), 100)
    assert outcomes[-1].reason == "the loss changes within tolerance_change"
    assert 1e-9 < outcomes[-1].gradient_norm < 1e-2


def test_lbfgs_started_at_the_minimum_makes_one_evaluation() -> None:
    problem = Problem(NumpyBackend(), lambda w: (0.0, 0.0 * w), 3)
    _, outcomes = problem.run(o.LBFGS(), 5)
    assert [(out.evaluations, out.reason) for out in outcomes] == [(1, "the gradient is within tolerance_gradient")]


def test_lbfgs_stops_at_a_loss_that_is_not_finite() -> None:
    problem = Problem(NumpyBackend(), lambda w: (math.nan, w), 3)
    before = problem.w
    _, outcomes = problem.run(o.LBFGS(), 5)
    assert [out.reason for out in outcomes] == ["the loss is not finite"]
    np.testing.assert_array_equal(problem.w, before)


def test_lbfgs_with_a_wrong_gradient_moves_nothing() -> None:
    """The loss grows where the gradient says that it falls: no step is made, and values and gradient are unchanged."""
    problem = Problem(NumpyBackend(), lambda w: (float(-w.sum()), np.ones_like(w)), 3)
    before = problem.w
    _, outcomes = problem.run(o.LBFGS(), 5)
    assert outcomes[-1].reason == "no step makes the loss smaller" and len(outcomes) == 1
    np.testing.assert_array_equal(problem.w, before)
    np.testing.assert_array_equal(problem.store.gradient_views["W"], np.ones((3, 1)))


def test_lbfgs_drops_a_history_that_points_uphill() -> None:
    """After some steps the history is changed so that it points uphill."""
    problem = Problem(NumpyBackend(), logistic(), 8)
    optimizer = o.LBFGS()
    t, _ = problem.run(optimizer, 8)
    for i in range(8):
        t.kept[f"rho{i}"][...] *= -1e3
    loss = problem.function(problem.w)[0]
    assert optimizer.minimize_step(t, problem.evaluate).loss < loss
    assert float(t.pairs[0, ...]) == 1.0


def test_lbfgs_steps_back_from_points_where_the_loss_is_infinite() -> None:
    """-log w has no value at or below 0; the first step would land there."""

    def barrier(w: np.ndarray) -> tuple[float, np.ndarray]:
        if (w <= 0).any():
            return math.inf, np.full_like(w, math.nan)
        return float(np.sum(5 * w - np.log(w))), 5 - 1 / w

    problem = Problem(NumpyBackend(), barrier, 3, start=0.4)
    _, outcomes = problem.run(o.LBFGS(10.0), 50)
    assert outcomes[-1].reason == "the gradient is within tolerance_gradient"
    np.testing.assert_allclose(problem.w, 0.2, atol=1e-7)


# The line search


@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("name", ["More and Thuente 1", "quartic", "sine"])
def test_the_line_search_satisfies_the_strong_wolfe_conditions(name: str, first: float) -> None:
    phi, slope = {
        "More and Thuente 1": (lambda a: -a / (a * a + 2), lambda a: (a * a - 2) / (a * a + 2) ** 2),
        "quartic": (lambda a: (a - 3) ** 4, lambda a: 4 * (a - 3) ** 3),
        "sine": (lambda a: math.sin(a) * -1 + 0.01 * a * a, lambda a: -math.cos(a) + 0.02 * a),
    }[name]
    tried = []

    def at(a: float) -> Point:
        tried.append(a)
        return Point(a, phi(a), slope(a))

    start = Point(0.0, phi(0.0), slope(0.0))
    end = wolfe_search(at, start, first, 40, 0.0)
    assert end is not None and end in [Point(a, phi(a), slope(a)) for a in tried] and len(tried) <= 12
    assert end.loss <= start.loss + 1e-4 * end.step * start.slope
    assert abs(end.slope) <= 0.9 * abs(start.slope)


def test_lbfgs_returns_the_best_point_within_its_budget_of_evaluations() -> None:
    """On an endless slope the search returns the longest step tried; if every step gives an infinite loss, none."""
    tried = []

    def steep(a: float) -> Point:
        tried.append(a)
        return Point(a, -a, -1.0)

    end = wolfe_search(steep, Point(0.0, 0.0, -1.0), 1.0, 4, 0.0)
    assert end is not None and end.step == max(tried) and len(tried) == 4
    wall = Point(0.0, 0.0, -1.0)
    assert wolfe_search(lambda a: Point(a, math.inf, math.nan), wall, 1.0, 5, 0.0) is None


@pytest.mark.parametrize("budget", [3, 4])
def test_lbfgs_evaluates_a_shortened_step_again(budget: int) -> None:
    """If the search returns a step that is not the last one tried, values, loss and gradient are those of that step."""

    def waves(w: np.ndarray) -> tuple[float, np.ndarray]:
        return float(np.sum(np.sin(5 * w) + 0.1 * w * w)), 5 * np.cos(5 * w) + 0.2 * w

    problem = Problem(NumpyBackend(), waves, 8)
    optimizer, more = o.LBFGS(50.0, max_evaluations=budget), 0
    t = OptimizerFrame(problem.backend, problem.store, optimizer)
    for i in range(5):
        outcome = optimizer.minimize_step(t, problem.evaluate)
        more += outcome.evaluations > budget + (i == 0)  # the first step also evaluates where it starts
        loss, g = waves(problem.w)
        assert outcome.loss == pytest.approx(loss, abs=1e-14)
        np.testing.assert_allclose(problem.store.gradient_views["W"][:, 0], g, atol=1e-14)
    assert more


# Rates and numbers that are 0, or nearly


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lbfgs_with_rate_zero_moves_nothing(backend: Any, dtype: str) -> None:
    """The next step goes on as if this one had not been made; loss and gradient are those of the point."""
    problem, other = (Problem(backend, logistic(), 8, dtype) for _ in range(2))
    schedule = schedules.Sequence([1.0, 0.0, 1.0])
    optimizer, outcomes, points = o.LBFGS(schedule), [], []
    t = OptimizerFrame(backend, problem.store, optimizer)
    for step in range(3):
        write(backend, np.full((1,), schedule(step)), t.rate)
        outcomes.append(optimizer.minimize_step(t, problem.evaluate))
        points.append(problem.w)
        np.testing.assert_allclose(
            backend.to_host(problem.store.gradient_views["W"])[:, 0], problem.function(problem.w)[1], rtol=1e-5
        )
    assert outcomes[1].loss == outcomes[0].loss and outcomes[1].reason is None and outcomes[1].evaluations == 1
    np.testing.assert_array_equal(points[1], points[0])
    other.run(o.LBFGS(), 2)
    np.testing.assert_array_equal(points[2], other.w)


@pytest.mark.parametrize("rate", [0.0, 5e-324, lambda step: 1.0 - step % 2])
def test_a_training_by_lbfgs_with_rates_of_zero_moves_nothing(rate: Any) -> None:
    """The loss of an epoch in which nothing moves is that of the one before, as with any optimizer."""
    X = np.random.default_rng(0).normal(size=(20, 3))
    net = gn.Network([gn.Dense(4, "tanh"), gn.Dense(1)], 3, device="cpu", dtype="float64")
    before = net.vector.copy()
    history = net.fit(
        X, X[:, :1] ** 2, loss=gn.SquaredError(), optimizer=o.LBFGS(rate), epochs=4, batch_size=20, progress=False
    )
    losses = history["loss"]
    if rate == 0.0:
        np.testing.assert_array_equal(net.vector, before)
        assert losses == pytest.approx([losses[0]] * 4) and losses[0] > 0  # to rounding: the order is another
    elif callable(rate):
        assert losses[1] == pytest.approx(losses[0]) and losses[3] == pytest.approx(losses[2])
        assert losses[1] > losses[2] > 0


def test_lbfgs_survives_changes_whose_squares_underflow() -> None:
    """The squares of the changes of the gradient are 0 in float32: the pair is not kept, and nothing is divided by
    0."""

    def slight(w: np.ndarray) -> tuple[float, np.ndarray]:
        return float(1e-20 * w.sum() + 5e-24 * (w * w).sum()), 1e-20 + 1e-23 * w

    problem = Problem(NumpyBackend(), slight, 8, "float32")
    t, outcomes = problem.run(o.LBFGS(1e20, tolerance_gradient=0.0, max_evaluations=1), 3)
    assert len(outcomes) == 3 and float(t.pairs[0]) == 0.0


# Errors


def test_lbfgs_refuses_populations_and_single_updates() -> None:
    backend = NumpyBackend()
    with pytest.raises(ConfigurationError, match="LBFGS: expected one network, got a population of 2; train each"):
        o.LBFGS().minimize_step(OptimizerFrame(backend, new_store(backend, models=2), o.LBFGS()), lambda: 0.0)
    with pytest.raises(ConfigurationError, match="LBFGS: expected a full batch and minimize_step, got a step of"):
        o.LBFGS().update(OptimizerFrame(backend, new_store(backend), o.LBFGS()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": -1.0}, "LBFGS rate: expected a number with 0 <= value, got -1.0"),
        ({"history_size": 0}, "LBFGS history_size: expected a whole number >= 1, got 0"),
        (
            {"history_size": 10**18},
            "LBFGS history_size: expected a whole number >= 1 and <= 10000, got 1000000000000000000",
        ),
        ({"max_evaluations": 2.5}, "LBFGS max_evaluations: expected a whole number >= 1, got 2.5"),
        ({"tolerance_gradient": -1.0}, "LBFGS tolerance_gradient: expected a number with 0 <= value, got -1.0"),
        ({"tolerance_change": math.nan}, "LBFGS tolerance_change: expected a number with 0 <= value, got nan"),
    ],
)
def test_lbfgs_refuses_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        o.LBFGS(**arguments)
