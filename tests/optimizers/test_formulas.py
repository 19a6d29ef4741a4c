"""Optimizers compared with the formulas of their papers."""

import math
from typing import Any

import numpy as np
import pytest

from gpunn import optimizers as o
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.optimizers.base import Optimizer, OptimizerFrame
from tests.optimizers.runs import SHAPES, flat, gradient, new_store, trajectory


def plain_run(optimizer: Optimizer, formula: Any, steps: int = 60) -> None:
    """Compare the weights of the optimizer with those of `formula(W, g, t)`, which keeps its own moments."""
    backend = NumpyBackend()
    found = trajectory(backend, optimizer, new_store(backend), steps)
    W = flat(backend, new_store(backend))
    for step in range(steps):
        W = formula(W, gradient(W, step), step + 1)
        np.testing.assert_allclose(found[step], W, rtol=0, atol=1e-12)


class Moments(dict[str, Any]):
    """Every moment starts at 0."""

    def __missing__(self, name: str) -> float:
        return 0.0


def sgd(W: Any, g: Any, t: int, s: Moments) -> Any:
    s["v"] = g if t == 1 else 0.8 * s["v"] + (1 - 0.4) * g
    return W - 0.05 * s["v"]


def nesterov(W: Any, g: Any, t: int, s: Moments) -> Any:
    s["v"] = 0.8 * s["v"] + g
    return W - 0.05 * (g + 0.8 * s["v"])


def adagrad(W: Any, g: Any, t: int, s: Moments) -> Any:
    s["sum"] += g**2
    return W - 0.1 / (1 + 0.1 * (t - 1)) * g / (np.sqrt(0.2 + s["sum"]) + 1e-3)


def adadelta(W: Any, g: Any, t: int, s: Moments) -> Any:
    s["v"] = 0.8 * s["v"] + 0.2 * g**2
    d = np.sqrt(s["u"] + 1e-3) / np.sqrt(s["v"] + 1e-3) * g
    s["u"] = 0.8 * s["u"] + 0.2 * d**2
    return W - 0.7 * d


def rmsprop(W: Any, g: Any, t: int, s: Moments) -> Any:
    s["v"], s["m"] = 0.9 * s["v"] + 0.1 * g**2, 0.9 * s["m"] + 0.1 * g
    s["b"] = 0.5 * s["b"] + g / (np.sqrt(s["v"] - s["m"] ** 2) + 1e-3)
    return W - 0.02 * s["b"]


def amsgrad(W: Any, g: Any, t: int, s: Moments) -> Any:
    s["m"], s["v"] = 0.8 * s["m"] + 0.2 * g, 0.95 * s["v"] + 0.05 * g**2
    s["most"] = np.maximum(s["most"], s["v"])
    return W - 0.02 * s["m"] / (1 - 0.8**t) / (np.sqrt(s["most"] / (1 - 0.95**t)) + 1e-3)


def adamax(W: Any, g: Any, t: int, s: Moments) -> Any:
    s["m"], s["u"] = 0.8 * s["m"] + 0.2 * g, np.maximum(0.95 * s["u"], np.abs(g) + 1e-3)
    return W - 0.02 / (1 - 0.8**t) * s["m"] / s["u"]


def nadam(W: Any, g: Any, t: int, s: Moments) -> Any:
    """Dozat 2016, whose momentum schedule makes the product."""
    s["m"], s["v"] = 0.8 * s["m"] + 0.2 * g, 0.95 * s["v"] + 0.05 * g**2
    mu = [0.8 * (1 - 0.5 * 0.96 ** (i * 0.01)) for i in range(1, t + 2)]
    m = mu[-1] * s["m"] / (1 - math.prod(mu)) + (1 - mu[-2]) * g / (1 - math.prod(mu[:-1]))
    return W - 0.02 * m / (np.sqrt(s["v"] / (1 - 0.95**t)) + 1e-3)


@pytest.mark.parametrize(
    ("optimizer", "formula"),
    [
        (o.SGD(0.05, momentum=0.8, dampening=0.4), sgd),
        (o.SGD(0.05, momentum=0.8, nesterov=True), nesterov),
        (o.Adagrad(0.1, lr_decay=0.1, initial_accumulator_value=0.2, eps=1e-3), adagrad),
        (o.Adadelta(0.7, rho=0.8, eps=1e-3), adadelta),
        (o.RMSprop(0.02, alpha=0.9, eps=1e-3, centered=True, momentum=0.5), rmsprop),
        (o.Adam(0.02, (0.8, 0.95), 1e-3, amsgrad=True), amsgrad),
        (o.Adamax(0.02, (0.8, 0.95), 1e-3), adamax),
        (o.NAdam(0.02, (0.8, 0.95), 1e-3, momentum_decay=0.01), nadam),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_optimizer_follows_its_formula_written_out(optimizer: Optimizer, formula: Any) -> None:
    moments = Moments()
    plain_run(optimizer, lambda W, g, t: formula(W, g, t, moments))


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.8, 0.95), (0.9, 0.5)], ids=str)
def test_radam_follows_the_algorithm_of_its_paper(betas: tuple[float, float]) -> None:
    """Liu et al. 2020, Algorithm 2, with PyTorch's ε beside the root; the last β₂ never rectifies (ρ∞ = 3)."""
    rate, eps, (beta1, beta2) = 0.02, 1e-8, betas
    m, v, branches = 0.0, 0.0, set()

    def formula(W: Any, g: Any, t: int) -> Any:
        nonlocal m, v
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * t * beta2**t / (1 - beta2**t)
        corrected = m / (1 - beta1**t)
        branches.add(length > 5)
        if length <= 5:
            return W - rate * corrected
        adaptive = np.sqrt(1 - beta2**t) / (np.sqrt(v) + eps)
        rectifier = np.sqrt(((length - 4) * (length - 2) * longest) / ((longest - 4) * (longest - 2) * length))
        return W - rate * rectifier * corrected * adaptive

    plain_run(o.RAdam(rate, betas=betas, eps=eps), formula)
    assert branches == ({False} if beta2 == 0.5 else {False, True})


def test_lion_follows_the_algorithm_of_its_paper() -> None:
    """Chen et al. 2023, Algorithm 2."""
    rate, beta1, beta2, decay = 0.01, 0.8, 0.95, 0.3
    m = 0.0
    decaying = np.concatenate([np.full(math.prod(shape), not name.endswith("b")) for name, shape in SHAPES.items()])

    def formula(W: Any, g: Any, t: int) -> Any:
        nonlocal m
        c = beta1 * m + (1 - beta1) * g
        W = W - rate * (np.sign(c) + decay * decaying * W)
        m = beta2 * m + (1 - beta2) * g
        return W

    plain_run(o.Lion(rate, betas=(beta1, beta2), weight_decay=decay), formula)


def test_adam_with_epsilon_hat_follows_the_other_convention() -> None:
    """ε is added to the root of v as it is, not as it is corrected (Kingma & Ba 2015, end of section 2)."""
    rate, beta1, beta2, eps = 0.02, 0.8, 0.95, 0.1
    m, v = 0.0, 0.0

    def formula(W: Any, g: Any, t: int) -> Any:
        nonlocal m, v
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        return W - rate * np.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + eps)

    plain_run(o.Adam(rate, (beta1, beta2), eps, epsilon="hat"), formula)
    with pytest.raises(AssertionError, match="Mismatch"):
        plain_run(o.Adam(rate, (beta1, beta2), eps), formula)


def test_centered_rmsprop_counts_a_variance_rounded_below_zero_as_zero() -> None:
    """A constant gradient has no variance: m² comes to exceed v by rounding, where √(v - m²) would be NaN."""
    backend, optimizer = NumpyBackend(), o.RMSprop(0.01, alpha=0.5, centered=True)
    store = new_store(backend, "float32")
    t = OptimizerFrame(backend, store, optimizer)
    store.gradients[...] = np.random.default_rng(0).normal(size=store.gradients.shape)
    for _ in range(100):
        optimizer.update(t)
    assert (t.moments["m"] ** 2 > t.moments["v"]).any()
    assert np.isfinite(store.values).all()
