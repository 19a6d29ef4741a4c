"""S7, losses and their derivatives: notes 002 (6.40)–(6.44), Notation 14, 003 and 004."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from tests.lecture.notes import derivative, same

ROWS, WIDTH, DELTA = 6, 3, 0.8
rng = np.random.default_rng(7)
ANY, NUMBERS = rng.normal(scale=2, size=(2, ROWS, WIDTH))
SHARE = rng.uniform(0.05, 0.95, size=(ROWS, WIDTH))
ROWS_OF_SHARES = rng.dirichlet(np.ones(WIDTH), ROWS)
YES = rng.integers(0, 2, (ROWS, WIDTH)).astype(float)
SOFT = rng.uniform(size=(ROWS, WIDTH))
ONE_HOT = np.eye(WIDTH)[rng.integers(0, WIDTH, ROWS)]
SOFT_ROWS = rng.dirichlet(np.ones(WIDTH), ROWS)


def nll(a: Any, y: Any) -> Any:
    return -(y * np.log(a) + (1 - y) * np.log(1 - a))


def nll_slope(a: Any, y: Any) -> Any:
    """(6.44)."""
    return -(y / a - (1 - y) / (1 - a))


def on_logits(z: Any, y: Any) -> Any:
    return nll(1 / (1 + np.exp(-z)), y)


def log_softmax(z: Any) -> Any:
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def huber(a: Any, y: Any) -> Any:
    d = a - y
    return np.where(abs(d.real) <= DELTA, d * d / 2, DELTA * (np.sign(d.real) * d - DELTA / 2))


# Name, loss class and options, outputs, targets, the loss of each output, its derivative, and what the mean divides by.
CASES: dict[str, tuple[Any, ...]] = {
    "square": (gn.SquaredError, {}, ANY, NUMBERS, lambda a, y: (a - y) ** 2, lambda a, y: 2 * (a - y), ROWS * WIDTH),
    "absolute": (
        gn.AbsoluteError, {}, ANY, NUMBERS,
        lambda a, y: np.sign((a - y).real) * (a - y), lambda a, y: np.sign(a - y), ROWS * WIDTH,
    ),
    "NLL": (gn.NLL, {}, SHARE, YES, nll, nll_slope, ROWS * WIDTH),
    "NLL of shares": (gn.NLL, {}, SHARE, SOFT, nll, nll_slope, ROWS * WIDTH),
    "NLLM": (gn.NLLM, {}, ROWS_OF_SHARES, ONE_HOT, lambda a, y: -y * np.log(a), lambda a, y: -y / a, ROWS),
    "NLLM of shares": (gn.NLLM, {}, ROWS_OF_SHARES, SOFT_ROWS, lambda a, y: -y * np.log(a), lambda a, y: -y / a, ROWS),
    "binary cross-entropy": (
        gn.BinaryCrossEntropy, {}, ANY, YES, on_logits, lambda z, y: 1 / (1 + np.exp(-z)) - y, ROWS * WIDTH,
    ),
    "cross-entropy": (
        gn.CrossEntropy, {}, ANY, ONE_HOT,
        lambda z, y: -y * log_softmax(z), lambda z, y: np.exp(log_softmax(z)) - y, ROWS,
    ),
    "cross-entropy of shares": (
        gn.CrossEntropy, {}, ANY, SOFT_ROWS,
        lambda z, y: -y * log_softmax(z), lambda z, y: np.exp(log_softmax(z)) - y, ROWS,
    ),
    "Huber": (
        gn.Huber, {"delta": DELTA}, ANY, NUMBERS, huber, lambda a, y: np.clip(a - y, -DELTA, DELTA), ROWS * WIDTH,
    ),
}  # fmt: skip


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("case", CASES)
def test_a_loss_and_its_derivative_are_those_of_the_notes(backend: Any, case: str, reduction: str) -> None:
    loss, options, a, y, value, slope, count = CASES[case]
    scale = 1.0 if reduction == "sum" else 1.0 / count
    got = derivative(a, [], y, loss(**options, reduction=reduction), backend)
    same(got[0], scale * value(a, y).sum())
    same(got[1], scale * slope(a, y))


@pytest.mark.parametrize("case", CASES)
def test_the_expected_derivatives_of_losses_agree_with_the_complex_step(case: str) -> None:
    """By the complex step; away from the kinks, where none of the random points lies."""
    _, _, a, y, value, slope, _ = CASES[case]
    numeric = np.empty_like(a)
    for index in np.ndindex(a.shape):
        moved = a.astype(complex)
        moved[index] += 1e-30j
        numeric[index] = value(moved, y).sum().imag / 1e-30
    same(slope(a, y), numeric)


def test_the_default_reduction_of_squared_error_is_the_mean(backend: Any) -> None:
    """004's MSE."""
    assert gn.SquaredError() == gn.SquaredError(reduction="mean")
    same(derivative(ANY, [], NUMBERS, gn.SquaredError(), backend)[0], np.square(ANY - NUMBERS).mean())


def test_the_negative_log_likelihood_is_positive(backend: Any) -> None:
    """With the minus of (6.44), which (6.2) lacks: a confident wrong answer costs more than a right one."""
    one, zero = np.array([[1.0]]), np.array([[0.0]])
    sure = np.array([[0.99]])
    right, wrong = (derivative(sure, [], y, gn.NLL(), backend)[0] for y in (one, zero))
    assert 0 < right < wrong
    same(right, -np.log(0.99))
    same(wrong, -np.log(1 - 0.99))


@pytest.mark.parametrize("loss", [gn.NLLM, gn.CrossEntropy])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_integer_classes_give_the_loss_of_their_one_hot_rows(backend: Any, loss: Any, reduction: str) -> None:
    a = ROWS_OF_SHARES
    by_class = derivative(a, [], ONE_HOT.argmax(axis=1), loss(reduction=reduction), backend)
    by_row = derivative(a, [], ONE_HOT, loss(reduction=reduction), backend)
    same(by_class[0], by_row[0])
    same(by_class[1], by_row[1])


def test_the_gradient_of_absolute_error_at_its_minimum_is_zero(backend: Any) -> None:
    """(6.43) takes 1 at 0, where there is no derivative; gpunn takes 0, so that a fit that is exact stays."""
    value, slope = derivative(NUMBERS, [], NUMBERS, gn.AbsoluteError(), backend)
    assert value == 0
    np.testing.assert_array_equal(slope, np.zeros_like(NUMBERS))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", [gn.NLL(), gn.NLLM()], ids=str)
def test_log_losses_of_probabilities_zero_and_one_are_finite(backend: Any, loss: Any, dtype: str) -> None:
    a = np.array([[0.0, 1.0], [1.0, 0.0]])
    value, slope = derivative(a, [], np.array([[1.0, 0.0], [1.0, 0.0]]), loss, backend, dtype)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    assert slope[0, 0] < 0  # more of what is missing makes the loss smaller
