"""PyTorch's losses in terms of gpunn's: each function here says how one is expressed.

reduction="none" followed by a gradient r is a sum with r as weights of the rows, each number a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import gpunn as gn
from gpunn.backends.reference.backend import Backend
from gpunn.losses import Loss
from tests.oracles.calls import Answer, Call, expresses, with_rows
from tests.oracles.driver import loss_forward_backward


def reduced(
    ops: Backend,
    make: Callable[[str], Loss],
    A: np.ndarray,
    y: np.ndarray,
    r: np.ndarray,
    reduction: str,
    weight: np.ndarray | None = None,
    outer: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """outer times the loss, and its gradient at A; `weight` has one number for each row."""
    if reduction != "none":
        run = loss_forward_backward(ops, make(reduction), A, y, weight)
        return run.value * run.value.dtype.type(outer), run.dA * (r * outer).astype(A.dtype)
    loss = make("sum")
    terms = loss_forward_backward(ops, loss, A, y, weight).terms.sum(axis=-1)
    factors = (r.reshape(-1, 1) * outer).astype(A.dtype) * (1 if weight is None else weight)
    run = loss_forward_backward(ops, loss, A, y, factors)
    projected = terms * r.reshape(-1) * outer
    rounding = 10.0 * np.finfo(A.dtype).eps
    np.testing.assert_allclose(run.value, projected.sum(), rtol=rounding, atol=rounding * np.abs(projected).sum())
    return (terms * A.dtype.type(outer)).reshape(r.shape), run.dA


def pointwise(
    ops: Backend,
    call: Call,
    r: np.ndarray,
    make: Callable[[str], Loss],
    outer: float = 1.0,
    weight: np.ndarray | None = None,
    y: np.ndarray | None = None,
) -> Answer:
    """A loss of each number by itself. A weight makes each number a row, which the mean does not notice."""
    reduction = call.kwargs.get("reduction", "mean")
    A, y = call.input, call.args[0] if y is None else y
    if weight is not None:
        weight = np.broadcast_to(weight, A.shape).reshape(-1, 1)
    if weight is None and reduction != "none":
        A, y = with_rows(A), with_rows(y)
    else:
        A, y = A.reshape(-1, 1), y.reshape(-1, 1)
    output, dA = reduced(ops, make, A, y, r, reduction, weight, outer)
    return Answer(output, {"input": dA.reshape(call.input.shape)})


@expresses("nn.functional.mse_loss", loss=True)
def mse_loss(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    return pointwise(ops, call, r, lambda reduction: gn.SquaredError(reduction=reduction))


@expresses("nn.functional.l1_loss", loss=True)
def l1_loss(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    return pointwise(ops, call, r, lambda reduction: gn.AbsoluteError(reduction=reduction))


@expresses("nn.functional.huber_loss", loss=True)
def huber_loss(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    return pointwise(ops, call, r, lambda reduction: gn.Huber(call.kwargs.get("delta", 1.0), reduction=reduction))


@expresses("nn.functional.smooth_l1_loss", loss=True)
def smooth_l1_loss(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    """Huber(β) / β, and for β = 0 the absolute error."""
    beta = call.kwargs.get("beta", 1.0)
    if beta == 0:
        return l1_loss(ops, call, r)
    return pointwise(ops, call, r, lambda reduction: gn.Huber(beta, reduction=reduction), outer=1.0 / beta)


@expresses("nn.functional.soft_margin_loss", loss=True)
def soft_margin_loss(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    """log(1 + e^-tx) is the binary cross-entropy of the logit -tx for y = 0."""
    t = call.args[0]
    logits = Call(call.name, -t * call.input, call.args, call.kwargs)
    answer = pointwise(ops, logits, r, lambda reduction: gn.BinaryCrossEntropy(reduction=reduction), y=np.zeros_like(t))
    return Answer(answer.output, {"input": -t * answer.gradients["input"]})


@expresses("nn.functional.binary_cross_entropy", loss=True)
def binary_cross_entropy(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    return pointwise(ops, call, r, lambda reduction: gn.NLL(reduction=reduction), weight=call.kwargs.get("weight"))


@expresses("nn.functional.binary_cross_entropy_with_logits", loss=True)
def binary_cross_entropy_with_logits(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    """pos_weight p is the weight w = p y + 1 - y on the target p y / w."""
    y, weight, positive = call.args[0], call.kwargs.get("weight"), call.kwargs.get("pos_weight")
    if positive is not None:
        w = positive * y + (1.0 - y)
        y, weight = positive * y / w, w if weight is None else w * weight
    return pointwise(ops, call, r, lambda reduction: gn.BinaryCrossEntropy(reduction=reduction), weight=weight, y=y)


def classes_last(call: Call) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Rows of classes, their targets, and how to bring a gradient back: the classes are PyTorch's second axis."""
    X, y = call.input, call.args[0]
    if X.ndim == 1:
        return X[None], y.reshape(1) if y.ndim == 0 else y[None], lambda d: d[0]
    moved = np.moveaxis(X, 1, -1).shape
    targets = y.reshape(-1) if y.dtype.kind == "i" else np.moveaxis(y, 1, -1).reshape(-1, moved[-1])
    rows = np.moveaxis(X, 1, -1).reshape(-1, moved[-1])
    return rows, targets, lambda d: np.moveaxis(d.reshape(moved), -1, 1)


def row_weights(call: Call, y: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels and row weights for class weights and an ignored label; PyTorch's mean is over the sum of the weights."""
    weight, ignored = call.kwargs.get("weight"), y == call.kwargs.get("ignore_index", -100)
    if weight is None and not ignored.any():
        return y, None
    labels = np.where(ignored, 0, y)
    v = np.where(ignored, 0.0, 1.0 if weight is None else weight[labels])
    return labels, (v * (len(v) / v.sum()) if call.kwargs.get("reduction", "mean") == "mean" else v)[:, None]


@expresses("nn.functional.cross_entropy", loss=True)
def cross_entropy(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    """Class weights of targets that are probabilities multiply the targets; gpunn takes any row of numbers there."""
    Z, y, back = classes_last(call)
    weight = None
    if y.dtype.kind == "i":
        y, weight = row_weights(call, y)
    elif call.kwargs.get("weight") is not None:
        y = y * call.kwargs["weight"]
    smoothing = call.kwargs.get("label_smoothing", 0.0)
    output, dZ = reduced(
        ops, lambda reduction: gn.CrossEntropy(smoothing, reduction=reduction),
        Z, y, r, call.kwargs.get("reduction", "mean"), weight,
    )  # fmt: skip
    return Answer(output, {"input": back(dZ)})


@expresses("nn.functional.nll_loss", loss=True)
def nll_loss(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    """PyTorch's argument is log p; ours is p = e^x, so its gradient times p is the gradient at x."""
    X, y, back = classes_last(call)
    labels, weight = row_weights(call, y)
    P = np.exp(X)
    output, dP = reduced(
        ops, lambda reduction: gn.NLLM(reduction=reduction),
        P, np.eye(X.shape[1], dtype=X.dtype)[labels], r, call.kwargs.get("reduction", "mean"), weight,
    )  # fmt: skip
    return Answer(output, {"input": back(dP * P)})
