"""Losses: their values, their scaling, and what they refuse."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError, ShapeError
from gpunn.losses import Loss
from gpunn.testing import check_gradients
from tests.conftest import backend_named
from tests.faults import exactly

rng = np.random.default_rng(0)
Z = rng.normal(size=(5, 3))
P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
S = 1 / (1 + np.exp(-Z))
LABELS = np.array([0, 2, 1, 1, 0])
ONE_HOT = np.eye(3)[LABELS]
HARD = (rng.random((5, 3)) < 0.5).astype(float)
NUMBERS = rng.normal(size=(5, 3))
D = Z - NUMBERS


def huber(delta: float) -> Any:
    return np.where(abs(D) <= delta, 0.5 * D**2, delta * (abs(D) - 0.5 * delta))


CASES: dict[str, tuple[Loss, Any, Any, Any]] = {  # loss, outputs, targets, the term of every output or example
    "squared": (gn.SquaredError(), Z, NUMBERS, D**2),
    "absolute": (gn.AbsoluteError(), Z, NUMBERS, abs(D)),
    "Huber": (gn.Huber(), Z, NUMBERS, huber(1.0)),
    "Huber, narrow": (gn.Huber(0.3), Z, NUMBERS, huber(0.3)),
    "binary": (gn.BinaryCrossEntropy(), Z, HARD, -(HARD * np.log(S) + (1 - HARD) * np.log(1 - S))),
    "binary, soft": (gn.BinaryCrossEntropy(), Z, P, -(P * np.log(S) + (1 - P) * np.log(1 - S))),
    "NLL": (gn.NLL(), S, HARD, -(HARD * np.log(S) + (1 - HARD) * np.log(1 - S))),
    "NLLM": (gn.NLLM(), P, LABELS, -(ONE_HOT * np.log(P)).sum(axis=1)),
    "NLLM, one-hot": (gn.NLLM(), P, ONE_HOT, -(ONE_HOT * np.log(P)).sum(axis=1)),
    "classes": (gn.CrossEntropy(), Z, LABELS, -np.log(P[range(5), LABELS])),
    "one-hot": (gn.CrossEntropy(), Z, ONE_HOT, -np.log(P[range(5), LABELS])),
    "soft": (gn.CrossEntropy(), Z, P, -(P * np.log(P)).sum(axis=1)),
    "weights": (gn.CrossEntropy(), Z, S / 2, -(S / 2 * np.log(P)).sum(axis=1)),
    "smoothed": (gn.CrossEntropy(0.3), Z, LABELS, -((0.7 * ONE_HOT + 0.1) * np.log(P)).sum(axis=1)),
    "smoothed one-hot": (gn.CrossEntropy(0.3), Z, ONE_HOT, -((0.7 * ONE_HOT + 0.1) * np.log(P)).sum(axis=1)),
}


def passing_on(backend: Any, **options: Any) -> gn.Network:
    """A network whose outputs are its inputs."""
    return gn.Network([gn.Identity()], 3, device=backend, dtype="float64", **options)


def test_all_losses_are_tested() -> None:
    public = {cls for name in gn.__all__ if isinstance(cls := getattr(gn, name), type) and issubclass(cls, Loss)}
    assert {type(case[0]) for case in CASES.values()} == public


@pytest.mark.parametrize("case", CASES)
def test_a_loss_is_the_mean_or_the_sum_of_its_terms(backend: Any, case: str) -> None:
    loss, outputs, y, terms = CASES[case]
    network = passing_on(backend)
    np.testing.assert_allclose(network.loss_of(outputs, y, loss), terms.mean(), rtol=1e-12)
    summed = replace(loss, reduction="sum")
    np.testing.assert_allclose(network.loss_of(outputs, y, summed), terms.sum(), rtol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_each_model_of_a_population_has_a_loss_of_its_own(backend: Any, case: str) -> None:
    loss, outputs, y, _ = CASES[case]
    network, single = passing_on(backend, models=2), passing_on(backend)
    values = network.loss_of(np.stack([outputs, outputs[::-1]]), np.stack([y, y]), loss)
    expected = [single.loss_of(outputs, y, loss), single.loss_of(outputs[::-1], y, loss)]
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(network.loss_of(np.stack([outputs, outputs[::-1]]), y, loss), expected, rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_every_loss_is_exact(case: str, reduction: str) -> None:
    loss, _, y, _ = CASES[case]
    end = {gn.NLL: "sigmoid", gn.NLLM: "softmax"}.get(type(loss))
    network = gn.Network([gn.Dense(3, end)], 2, device="cpu", dtype="float64")
    X = np.random.default_rng(1).normal(size=(5, 2))
    check_gradients(network, X, y, replace(loss, reduction=reduction))


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(CASES[case][0], (gn.NLL, gn.NLLM))])
def test_a_loss_on_probabilities_is_the_same_fused_and_unfused(case: str) -> None:
    """A layer that changes nothing between activation and loss prevents fusing them."""
    loss, _, y, _ = CASES[case]
    end = "sigmoid" if isinstance(loss, gn.NLL) else "softmax"
    X = np.random.default_rng(1).normal(size=(5, 2))
    fused = gn.Network([gn.Dense(3, end)], 2, device="cpu", dtype="float64")
    apart = gn.Network([gn.Dense(3, end), gn.Identity()], 2, device="cpu", dtype="float64")
    assert fused.compile(5, loss).fused is not None
    assert apart.compile(5, loss).fused is None
    value, gradients = fused.gradients(X, y, loss)
    expected_value, expected = apart.gradients(X, y, loss)
    np.testing.assert_allclose(value, expected_value, rtol=1e-12)
    for name in expected:
        np.testing.assert_allclose(gradients[name], expected[name], rtol=1e-10, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("loss", "z", "y", "expected"),
    [
        (gn.BinaryCrossEntropy(), 1e4, 0.0, 1e4), (gn.BinaryCrossEntropy(), 1e4, 1.0, 0.0),
        (gn.BinaryCrossEntropy(), -1e4, 1.0, 1e4), (gn.BinaryCrossEntropy(), -50.0, 0.0, math.exp(-50)),
        (gn.BinaryCrossEntropy(), 0.0, 0.5, math.log(2)),
    ],
)  # fmt: skip
def test_losses_of_extreme_logits_of_two_classes_are_right(
    backend: Any, loss: Loss, z: float, y: float, expected: float, dtype: str
) -> None:  # fmt: skip
    network = gn.Network([gn.Identity()], 1, device=backend, dtype=dtype)
    value = network.loss_of([[z]], [[y]], loss)
    np.testing.assert_allclose(value, expected, rtol=1e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("y", [[0], [1], [[1.0, 0.0]], [[0.25, 0.75]]], ids=str)
def test_cross_entropy_of_extreme_logits_is_right(backend: Any, y: Any, smoothing: float, dtype: str) -> None:
    network = gn.Network([gn.Identity()], 2, device=backend, dtype=dtype)
    target = np.eye(2)[y[0]] if np.ndim(y) == 1 else np.array(y[0])
    target = (1 - smoothing) * target + smoothing / 2
    value = network.loss_of([[1e4, -1e4]], y, gn.CrossEntropy(smoothing))
    np.testing.assert_allclose(value, target[1] * 2e4, rtol=1e-6)


@pytest.mark.parametrize("loss", [gn.NLL(), gn.NLLM()], ids=repr)
def test_losses_of_impossible_probabilities_are_finite(backend: Any, loss: Loss) -> None:
    network = gn.Network([gn.Identity()], 2, device=backend, dtype="float32")
    value = network.loss_of([[0.0, 1.0]], [[1.0, 0.0]], loss)
    assert 80 < value < 200


# What is refused


@pytest.mark.parametrize("reduction", ["avg", "none", None, 1, ["mean"]])
@pytest.mark.parametrize("kind", sorted({type(case[0]) for case in CASES.values()}, key=lambda kind: kind.__name__))
def test_losses_refuse_an_unknown_reduction(kind: type[Loss], reduction: Any) -> None:
    message = f"{kind.__name__} reduction: expected one of 'mean', 'sum', got {reduction!r}; choose one of them"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        kind(reduction=reduction)


RANGE = "choose a value in that range"


@pytest.mark.parametrize(
    "delta", [0, -1.0, math.nan, math.inf, True, "1", None, 10**400, [1.0]], ids=lambda v: repr(v)[:9]
)
def test_huber_refuses_a_bad_delta(delta: Any) -> None:
    message = f"Huber delta: expected a number with 0 < value, got {delta!r}; {RANGE}"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        gn.Huber(delta)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, math.nan, True, "0", None], ids=repr)
def test_cross_entropy_refuses_a_bad_smoothing(smoothing: Any) -> None:
    message = f"CrossEntropy smoothing: expected a number with 0 <= value <= 1, got {smoothing!r}; {RANGE}"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        gn.CrossEntropy(smoothing)


@pytest.mark.parametrize("kind", [gn.SquaredError, gn.CrossEntropy, gn.NLL])
def test_the_reduction_of_a_loss_must_be_named(kind: Any) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        kind(0.1, "sum")


def test_cross_entropy_refuses_outputs_of_several_axes() -> None:
    network = gn.Network([gn.Reshape((2, 2))], 4, device=backend_named("cpu"))
    with pytest.raises(
        ShapeError, match=r"^CrossEntropy: expected a last layer with one output for each class, at leas"
    ):
        network.loss_of(np.ones((3, 4)), [0, 1, 0], gn.CrossEntropy())


def test_losses_of_outputs_of_several_axes_need_targets_of_their_shape(backend: Any) -> None:
    network = gn.Network([gn.Reshape((2, 2))], 4, device=backend, dtype="float64")
    X, y = rng.normal(size=(3, 4)), rng.normal(size=(3, 2, 2))
    expected = np.square(X.reshape(3, 2, 2) - y).mean()
    np.testing.assert_allclose(network.loss_of(X, y, gn.SquaredError()), expected, rtol=1e-12)
    with pytest.raises(ShapeError, match=r"^y: expected shape \(3, 2, 2\), got \(3, 4\); give y one row for each"):
        network.loss_of(X, X, gn.SquaredError())


def test_a_user_defined_loss_needs_an_evaluate_method() -> None:
    class Nothing(Loss, abstract=True):
        pass

    network = gn.Network([gn.Dense(1)], 1, device="cpu")
    with pytest.raises(NotImplementedError, match="Nothing needs an evaluate method"):
        network.loss_of([[1.0]], [[1.0]], Nothing())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_smoothing_of_targets_that_do_not_add_up_to_1_follows_its_formula(backend: Any, dtype: str) -> None:
    """The target is (1 - s) y + s / classes whatever y sums to."""
    rng = np.random.default_rng(0)
    Z, S = rng.normal(size=(6, 4)), rng.random((6, 4))
    smoothed = 0.7 * S + 0.3 / 4
    P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    net = gn.Network([gn.Dense(4)], 4, device=backend, dtype=dtype)
    net.load_parameters({"0.W": np.eye(4), "0.b": np.zeros((1, 4))})
    value, gradients = net.gradients(Z, S, gn.CrossEntropy(0.3))
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(value, -(smoothed * np.log(P)).sum(axis=1).mean(), rtol=tolerance)
    dZ = (P * smoothed.sum(axis=1, keepdims=True) - smoothed) / 6
    np.testing.assert_allclose(gradients["0.b"], dZ.sum(axis=0, keepdims=True), rtol=0, atol=tolerance)
