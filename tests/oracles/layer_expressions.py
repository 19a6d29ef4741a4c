"""PyTorch's operations in terms of gpunn's layers: each function here says how one is expressed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

import gpunn as gn
from gpunn.backends.reference.backend import Backend
from gpunn.layers import Layer
from tests.oracles.calls import Answer, Call, Expression, Key, expresses, with_rows
from tests.oracles.driver import LayerRun, layer_forward_backward

# Activations work on any shape; a scalar or vector is one row.


def activation(
    ops: Backend,
    layer: Layer,
    X: np.ndarray,
    r: np.ndarray,
    inner: float = 1.0,
    outer: float = 1.0,
    *,
    training: bool,
) -> Answer:
    """outer f(inner x)."""
    Z, dA = with_rows(X * X.dtype.type(inner)), with_rows(r * r.dtype.type(outer))
    run = layer_forward_backward(ops, layer, Z, dA, training=training)
    output, dX = run.A * run.A.dtype.type(outer), run.dX * r.dtype.type(inner)
    return Answer(output.reshape(X.shape), {"input": dX.reshape(X.shape)}, sizes={"input": float(np.abs(r).max())})


def named(make: Callable[[Call], Layer], inner: float = 1.0, outer: float = 1.0) -> Expression:
    return lambda ops, call, r: activation(ops, make(call), call.input, r, inner, outer, training=call.training)


expresses("nn.functional.relu")(named(lambda call: gn.ReLU()))
expresses("nn.functional.leaky_relu")(named(lambda call: gn.LeakyReLU(call.get(0, "negative_slope", 0.01))))
expresses("nn.functional.elu")(named(lambda call: gn.ELU(call.get(0, "alpha", 1.0))))
expresses("nn.functional.selu")(named(lambda call: gn.SELU()))
expresses("nn.functional.gelu")(named(lambda call: gn.GELU(call.get(0, "approximate", "none"))))
expresses("nn.functional.silu")(named(lambda call: gn.SiLU()))
expresses("nn.functional.softplus")(named(lambda call: gn.Softplus(call.get(0, "beta", 1.0))))
expresses("sigmoid")(named(lambda call: gn.Sigmoid()))
expresses("tanh")(named(lambda call: gn.Tanh()))
expresses("nn.functional.logsigmoid")(named(lambda call: gn.Softplus(), -1.0, -1.0))  # log σ(x) = -softplus(-x)


@expresses("nn.functional.celu")
def celu(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    """α ELU(x / α)."""
    alpha = call.get(0, "alpha", 1.0)
    return activation(ops, gn.ELU(), call.input, r, 1.0 / alpha, alpha, training=call.training)


def along_rows(layer: Layer, inner: float) -> Expression:
    """Softmax and its like along any axis: that axis last."""

    def express(ops: Backend, call: Call, r: np.ndarray) -> Answer:
        X = np.asarray(call.input, call.kwargs.get("dtype"))
        axes = (call.get(0, "dim"), -1) if X.ndim else ((), ())
        rows, dA = np.moveaxis(X, *axes), np.moveaxis(r, *axes)
        answer = activation(ops, layer, rows, dA, inner, training=call.training)
        dX = np.moveaxis(answer.gradients["input"], *reversed(axes)).astype(call.input.dtype)
        return Answer(np.moveaxis(answer.output, *reversed(axes)), {"input": dX}, sizes=answer.sizes)

    return express


expresses("softmax", "softmax.with_dtype")(along_rows(gn.Softmax(), 1.0))
expresses("log_softmax", "log_softmax.with_dtype")(along_rows(gn.LogSoftmax(), 1.0))
expresses("nn.functional.softmin", "nn.functional.softmin.with_dtype")(along_rows(gn.Softmax(), -1.0))


# Products: leading axes are rows where one matrix serves them all, and a population where each has its own.


def dense(
    ops: Backend,
    X: np.ndarray,
    W: np.ndarray,
    b: np.ndarray | None,
    r: np.ndarray,
    models: int | None = None,
    *,
    training: bool = True,
) -> LayerRun:
    layer = gn.Dense(W.shape[-1], bias=b is not None)
    values = {"W": W} if b is None else {"W": W, "b": b}
    return layer_forward_backward(ops, layer, X, r, values, training=training, models=models)


@expresses("nn.functional.linear")
def linear(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    X, W, b = call.input, call.args[0], call.get(1, "bias")
    row = None if b is None else b.reshape(1, -1)
    run = dense(ops, X.reshape(-1, X.shape[-1]), W.T, row, r.reshape(-1, len(W)), training=call.training)
    gradients: dict[Key, np.ndarray] = {"input": run.dX.reshape(X.shape), 0: run.gradients["W"].T}
    if b is not None:
        gradients[1] = run.gradients["b"].reshape(b.shape)
    return Answer(run.A.reshape(r.shape), gradients)


def unbroadcast(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient of an array that was broadcast: summed over the axes it was broadcast along."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(i for i, extent in enumerate(shape) if extent == 1 != gradient.shape[i])
    return gradient.sum(axis=axes, keepdims=True)


@expresses("mm", "bmm", "matmul")
def matmul(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    X, W = call.input, call.args[0]
    X2 = X if X.ndim > 1 else X[None, :]
    W2 = W if W.ndim > 1 else W[:, None]
    lead = np.broadcast_shapes(X2.shape[:-2], W2.shape[:-2])
    full = (*lead, X2.shape[-2], W2.shape[-1])
    if W2.size == math.prod(W2.shape[-2:]):
        rows = X2.reshape(-1, X2.shape[-1])
        run = dense(ops, rows, W2.reshape(W2.shape[-2:]), None, r.reshape(len(rows), -1))
        return Answer(
            run.A.reshape(r.shape), {"input": run.dX.reshape(X.shape), 0: run.gradients["W"].reshape(W.shape)}
        )
    models = math.prod(lead)
    own = np.broadcast_to(W2, lead + W2.shape[-2:]).reshape(models, *W2.shape[-2:])
    shared = X2.ndim == 2
    rows = X2 if shared else np.broadcast_to(X2, lead + X2.shape[-2:]).reshape(models, *X2.shape[-2:])
    run = dense(ops, rows, own, None, r.reshape(models, *full[-2:]), models)
    dX = unbroadcast(run.dX.reshape(lead + X2.shape[-2:]), X2.shape)
    dW = unbroadcast(run.gradients["W"].reshape(lead + W2.shape[-2:]), W2.shape)
    return Answer(run.A.reshape(r.shape), {"input": dX.reshape(X.shape), 0: dW.reshape(W.shape)})


@expresses("addmm", "addmm.decomposed", "addmv", "baddbmm")
def add_product(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    """β c + α X W with c the same for all rows: W scaled by α and the bias β c."""
    c, X, W = call.input, *call.args
    alpha, beta = (c.dtype.type(call.kwargs[name]) for name in ("alpha", "beta"))
    W2 = W if W.ndim > 1 else W[:, None]
    lead = W2.shape[:-2]
    b = np.broadcast_to(beta * c, (*lead, 1, W2.shape[-1]))
    run = dense(ops, X, alpha * W2, b, r.reshape(*X.shape[:-1], -1), lead[0] if lead else None)
    db = beta * unbroadcast(run.gradients["b"], c.shape)
    dW = alpha * run.gradients["W"]
    return Answer(run.A.reshape(r.shape), {"input": db, 0: run.dX, 1: dW.reshape(W.shape)})


@expresses("nn.functional.embedding")
def embedding(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    """PyTorch's first argument is the table here; a single index is a batch of one."""
    E, indices = call.input, call.args[0]
    X = indices.reshape(indices.shape or (1,))
    run = layer_forward_backward(
        ops, gn.Embedding(*E.shape), X, r.reshape(*X.shape, -1), {"E": E}, training=call.training
    )
    assert run.dX is None
    return Answer(run.A.reshape(r.shape), {"input": run.gradients["E"]})


# Shapes and dropout


@expresses("flatten")
def flatten(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    """With start_dim=0 the whole tensor is one example."""
    X = call.input if call.get(0, "start_dim", 0) == 1 else call.input[None]
    run = layer_forward_backward(ops, gn.Flatten(), X, r.reshape(len(X), -1))
    return Answer(run.A.reshape(r.shape), {"input": run.dX.reshape(call.input.shape)})


@expresses("reshape")
def reshape(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    """The whole tensor is one example."""
    run = layer_forward_backward(ops, gn.Reshape(r.shape), call.input[None], r[None])
    return Answer(run.A[0], {"input": run.dX[0]})


@expresses("nn.functional.dropout")
def dropout(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    layer, training = gn.Dropout(call.get(0, "p", 0.5)), call.get(1, "training", True)
    run = layer_forward_backward(ops, layer, with_rows(call.input), with_rows(r), training=training)
    return Answer(run.A.reshape(r.shape), {"input": run.dX.reshape(r.shape)})


# Normalisation: the normalised axes are one axis, all others are rows.

Part = tuple[Key, np.ndarray | None]  # one of PyTorch's arguments


def normalized(
    ops: Backend,
    layer: gn.BatchNorm | gn.LayerNorm | gn.RMSNorm,
    X: np.ndarray,
    r: np.ndarray,
    gain: Part,
    shift: Part,
    state: dict[str, np.ndarray] | None = None,
    *,
    training: bool = True,
) -> tuple[LayerRun, Answer]:
    """A layer run on rows, and an answer that lacks only the shapes of the input and the state.

    Of G and B, one alone leaves the other at its start, 1 or 0.
    """
    parts = {name: part for name, part in (("G", gain), ("B", shift)) if part[1] is not None}
    values = {name: value.reshape(1, -1) for name, (_, value) in parts.items()} | (state or {})
    run = layer_forward_backward(ops, replace(layer, affine=bool(parts)), X, r, values, training=training)
    gradients = {key: run.gradients[name].reshape(value.shape) for name, (key, value) in parts.items()}
    if training or not state:
        variance = X.var(axis=layer.axis) if layer.center else (X * X).mean(axis=layer.axis)
    else:
        variance = state["var"]
    steepest = 1.0 / np.sqrt(variance.min() + layer.eps)  # both X - μ and the gradient at X cancel, then grow by this
    largest = np.abs(r).max() * (1.0 if gain[1] is None else np.abs(gain[1]).max())
    sizes = {"input": steepest * largest, gain[0]: steepest * np.abs(X).max() * np.abs(r).sum(axis=0).max()}
    return run, Answer(run.A, gradients | {"input": run.dX}, sizes=sizes)


def rowwise(
    ops: Backend, call: Call, r: np.ndarray, layer: gn.LayerNorm | gn.RMSNorm, gain: Part, shift: Part
) -> Answer:
    rows = (-1, math.prod(call.args[0]))
    X, dA = call.input.reshape(rows), r.reshape(rows)
    _, answer = normalized(ops, layer, X, dA, gain, shift, training=call.training)
    dX = answer.gradients["input"].reshape(r.shape)
    return replace(answer, output=answer.output.reshape(r.shape), gradients=answer.gradients | {"input": dX})


@expresses("nn.functional.layer_norm", "native_layer_norm")
def layer_norm(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    layer = gn.LayerNorm(call.get(3, "eps", 1e-5))
    return rowwise(ops, call, r, layer, (1, call.get(1, "weight")), (2, call.get(2, "bias")))


@expresses("nn.functional.rms_norm")
def rms_norm(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    """eps=None is the spacing of the dtype at 1."""
    eps = call.get(2, "eps")
    layer = gn.RMSNorm(float(np.finfo(r.dtype).eps) if eps is None else eps)
    return rowwise(ops, call, r, layer, (1, call.get(1, "weight")), (2, None))


@expresses("nn.functional.batch_norm")
def batch_norm(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    mean, var, gain, shift = enumerate(call.args)
    return columnwise(ops, call.input, r, mean, var, gain, shift, **call.kwargs)


@expresses("native_batch_norm")
def native_batch_norm(ops: Backend, call: Call, r: np.ndarray) -> Answer:
    gain, shift, mean, var = enumerate(call.args[:4])
    return columnwise(ops, call.input, r, mean, var, gain, shift, *call.args[4:])


def columnwise(
    ops: Backend,
    X: np.ndarray,
    r: np.ndarray,
    mean: Part,
    var: Part,
    gain: Part,
    shift: Part,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Answer:
    """Channels are the second axis in PyTorch and the last one here; the momentum counts in training only."""
    shape = np.moveaxis(X, 1, -1).shape
    X, r = (np.moveaxis(array, 1, -1).reshape(-1, shape[-1]) for array in (X, r))
    parts = {name: part for name, part in (("mean", mean), ("var", var)) if part[1] is not None}
    state = {name: value.reshape(1, -1) for name, (_, value) in parts.items()}
    layer = gn.BatchNorm(eps, momentum) if training else gn.BatchNorm(eps)
    run, answer = normalized(ops, layer, X, r, gain, shift, state, training=training)
    output, dX = (np.moveaxis(d.reshape(shape), -1, 1) for d in (answer.output, answer.gradients["input"]))
    changed: dict[Key, np.ndarray] = {key: run.state[name].reshape(-1) for name, (key, _) in parts.items()}
    sizes = answer.sizes | {mean[0]: float(np.abs(X).max())}
    return replace(answer, output=output, gradients=answer.gradients | {"input": dX}, changed=changed, sizes=sizes)
