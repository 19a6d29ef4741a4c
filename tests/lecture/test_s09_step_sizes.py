"""S9, step sizes: notes 002 §6.7.2–6.7.3, Concept 28, Appendix B; 004."""

import math
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.schedules import (
    Constant,
    Cosine,
    Exponential,
    InverseTime,
    OneCycle,
    Power,
    Sequence,
    StepDecay,
    Warmup,
)
from tests.lecture.descent import LOSS, POINTS, Watch, X, Y, added, distance, network, step, values

T = 12
SCHEDULES: dict[str, Any] = {
    "constant": Constant(0.02),
    "number": 0.02,
    "η_1 … η_T": Sequence([0.02 / t for t in range(1, T + 1)]),
    "function": lambda t: 0.02 / (t + 1),
    "1/t": InverseTime(0.02),
    "t^-p": Power(0.02, 0.6),
    "γ^t": Exponential(0.02, 0.8),
    "steps": StepDecay(0.02, 4, 0.5),
    "cosine": Cosine(0.02, T, 0.001),
    "warm-up": Warmup(4, Power(0.02), 0.1),
    "one cycle": OneCycle(0.02, T),
}
# Each with a rate at which this problem is learnt in 60 steps.
OPTIMIZERS: dict[str, Any] = {
    "SGD": gn.SGD(0.02),
    "momentum": gn.SGD(0.01, momentum=0.7),
    "Nesterov": gn.SGD(0.01, momentum=0.7, nesterov=True),
    "Adagrad": gn.Adagrad(0.2),
    "Adadelta": gn.Adadelta(1.0, eps=1e-3),
    "RMSprop": gn.RMSprop(0.02),
    "Adam": gn.Adam(0.05),
    "Adam, the other ε": gn.Adam(0.05, epsilon="hat"),
    "AdamW": gn.AdamW(0.05),
    "Adamax": gn.Adamax(0.05),
    "NAdam": gn.NAdam(0.05),
    "RAdam": gn.RAdam(0.1),
    "Lion": gn.Lion(0.02),
}


def fit(net: gn.Network, optimizer: Any, steps: int = T, **options: Any) -> tuple[gn.History, list[Any]]:
    """Batch gradient descent: an epoch is one step."""
    watch = Watch()
    history = net.fit(
        X, Y, loss=LOSS, optimizer=optimizer, steps=steps, batch_size=POINTS, callbacks=[watch], keep="last", **options
    )
    return history, watch.seen


# Step sizes


@pytest.mark.parametrize("name", SCHEDULES)
def test_step_t_of_a_schedule_has_the_size_eta_t(backend: Any, name: str) -> None:
    net, rate = network(backend), SCHEDULES[name]
    w = values(net)
    history, seen = fit(net, gn.SGD(rate))
    etas = [rate(t) if callable(rate) else rate for t in range(T)]
    np.testing.assert_allclose(history.rate, etas, rtol=1e-15)
    for eta, after in zip(etas, seen):
        w = step(w, eta, added(w, range(POINTS)))
        assert distance(after, w) < 1e-13


def blocks(rate: Any, power: int) -> Any:
    """Σ η^power over steps 10 to 99, 100 to 999, …: where these shrink geometrically the sum is finite."""
    etas = np.array([rate(t) for t in range(100_000)]) ** power
    return np.array([etas[10**k : 10 ** (k + 1)].sum() for k in range(1, 5)])


THEOREM: dict[str, tuple[Any, bool, bool]] = {  # schedule, whether Ση = ∞, whether Ση² < ∞
    "η/(1 + t)": (InverseTime(0.5), True, True),
    "η/(1 + 0.1 t)": (InverseTime(0.5, 0.1), True, True),
    "1/t": (Power(0.5), True, True),
    "t^-0.6": (Power(0.5, 0.6), True, True),
    "1/√t": (Power(0.5, 0.5), True, False),
    "t^-1.5": (Power(0.5, 1.5), False, True),
    "γ^t": (Exponential(0.5, 0.99), False, True),
    "constant": (Constant(0.5), True, False),
}


@pytest.mark.parametrize("name", THEOREM)
def test_schedules_satisfy_the_sums_of_the_theorem_exactly_where_they_claim_to(name: str) -> None:
    """Ση = ∞ and Ση² < ∞, where it is claimed and nowhere else. Equal or growing blocks have no finite sum."""
    rate, diverges, squares_converge = THEOREM[name]
    sums, squares = blocks(rate, 1), blocks(rate, 2)
    assert (sums[-1] > 0.97 * sums[-2]) == diverges
    assert (squares[-1] < 0.7 * squares[-2]) == squares_converge


def test_sums_of_schedules_agree_with_their_closed_forms() -> None:
    """Σ η/t grows as η (log T + γ), Σ (η/t)² ends at η² π²/6, Σ η γ^t at η / (1 - γ)."""
    etas = np.array([Power(0.5)(t) for t in range(100_000)])
    assert abs(etas.sum() - 0.5 * (math.log(100_000) + np.euler_gamma)) < 1e-5
    assert abs((etas**2).sum() - 0.25 * math.pi**2 / 6) < 1e-5
    assert abs(sum(Exponential(0.5, 0.9)(t) for t in range(1000)) - 5.0) < 1e-12
    for name, (rate, diverges, squares_converge) in THEOREM.items():
        claims = type(rate).__doc__ or ""
        assert ("Satisfies Ση = ∞ and Ση² < ∞" in claims) or not (diverges and squares_converge), name


def test_only_a_decreasing_step_size_reaches_the_minimum() -> None:
    """Single points pull in different directions: only steps as the theorem needs them end at the best point."""
    y = X @ np.array([[1.0], [2.0], [-1.0]]) + np.sin(5 * X[:, :1])
    best, away = np.linalg.lstsq(X, y, rcond=None)[0], {}
    for name, rate in {"constant": 0.05, "1/t": InverseTime(0.1, 0.02)}.items():
        net = gn.Network([gn.Dense(1, bias=False)], 3, device="cpu", dtype="float64", models=20)
        optimizer = gn.SGD(rate)
        net.fit(X, y, loss=LOSS, optimizer=optimizer, epochs=600, batch_size=1, sampling="replacement", keep="last")
        away[name] = float(np.square(values(net)["0.W"] - best).mean() ** 0.5)
    assert away["1/t"] < 0.04 < 0.1 < away["constant"]


# Optimizers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_reduces_the_loss(backend: Any, name: str) -> None:
    net = network(backend)
    before = net.loss_of(X, Y, LOSS)
    fit(net, OPTIMIZERS[name], 60)
    assert net.loss_of(X, Y, LOSS) < 0.65 * before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_every_schedule_of_step_sizes(name: str) -> None:
    """A rate of 0 stands still, and only then."""
    net = network("cpu")
    start = values(net)
    _, seen = fit(net, type(OPTIMIZERS[name])(Sequence([0.0, 0.1, 0.0])), 3)
    moved = [distance(before, after) for before, after in zip([start, *seen], seen)]
    assert moved[0] == moved[2] == 0.0 < moved[1]


def follow(net: gn.Network, optimizer: Any, formula: Any) -> None:
    """T steps beside `formula(name, W, g, t)`, t from 1."""
    w = values(net)
    _, seen = fit(net, optimizer)
    for t, after in enumerate(seen, start=1):
        g = added(w, range(POINTS))
        w = {name: formula(name, w[name], g[name], t) for name in w}
        assert distance(after, w) < 1e-12


def test_momentum_follows_the_formula_of_the_notes(backend: Any) -> None:
    """V_t = γ V_{t-1} + η ∇J, W ← W - V_t."""
    eta, gamma = 0.01, 0.8
    V: dict[str, Any] = {}

    def formula(name: str, W: Any, g: Any, t: int) -> Any:
        V[name] = gamma * V.get(name, 0.0) + eta * g
        return W - V[name]

    follow(network(backend), gn.SGD(eta, momentum=gamma), formula)


def test_adagrad_follows_the_formula_of_the_notes(backend: Any) -> None:
    """G_t = G_{t-1} + g², W ← W - η g / √(G_t + ε), ε being too small to show where it stands."""
    G: dict[str, Any] = {}

    def formula(name: str, W: Any, g: Any, t: int) -> Any:
        G[name] = G.get(name, 0.0) + g**2
        return W - 0.1 * g / np.sqrt(G[name])

    follow(network(backend), gn.Adagrad(0.1, eps=1e-25), formula)


def test_adadelta_follows_the_formula_of_the_notes(backend: Any) -> None:
    """Running means of g² and of the squared steps; the ratio of their roots is each weight's step size."""
    rho, eps = 0.8, 1e-4
    G: dict[str, Any] = {}
    D: dict[str, Any] = {}

    def formula(name: str, W: Any, g: Any, t: int) -> Any:
        G[name] = rho * G.get(name, 0.0) + (1 - rho) * g**2
        d = np.sqrt(D.get(name, 0.0) + eps) / np.sqrt(G[name] + eps) * g
        D[name] = rho * D.get(name, 0.0) + (1 - rho) * d**2
        return W - d

    follow(network(backend), gn.Adadelta(rho=rho, eps=eps), formula)


def test_adam_follows_the_formula_of_the_notes(backend: Any) -> None:
    """m and v, both divided by what they lack for having started at 0: W ← W - η m̂ / (√v̂ + ε)."""
    eta, b1, b2, eps = 0.05, 0.7, 0.95, 1e-4
    m: dict[str, Any] = {}
    v: dict[str, Any] = {}

    def formula(name: str, W: Any, g: Any, t: int) -> Any:
        m[name] = b1 * m.get(name, 0.0) + (1 - b1) * g
        v[name] = b2 * v.get(name, 0.0) + (1 - b2) * g**2
        return W - eta * (m[name] / (1 - b1**t)) / (np.sqrt(v[name] / (1 - b2**t)) + eps)

    follow(network(backend), gn.Adam(eta, (b1, b2), eps), formula)


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "Adam", "Adamax", "NAdam", "Lion", "SGD"])
def test_adaptive_optimizers_give_each_weight_a_step_size_of_its_own(name: str) -> None:
    """Concept 28: gradients from 1e-4 to 1e4 move their weights equally far, but for plain SGD."""
    scales = np.diag(10.0 ** np.arange(-2, 3))
    net = gn.Network([gn.Dense(1, bias=False)], 5, device="cpu", dtype="float64")
    before = values(net)["0.W"]
    target = scales @ (before + 1.0)  # of each example one weight is too small by 1
    net.fit(scales, target, loss=LOSS, optimizer=OPTIMIZERS[name], steps=1, batch_size=5, keep="last")
    moves = np.abs(values(net)["0.W"] - before)
    ratio = moves.max() / moves.min()
    assert ratio > 1e7 if name == "SGD" else ratio < 1.02
