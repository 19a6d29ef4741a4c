"""Softmax, log-softmax and cross-entropy: operations on each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpunn.backends.operation import Arguments, operation
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.reference.backend import Backend


def _axes_of_target(arguments: Arguments) -> int:
    """A target of weights has a row for each example, a target of classes one number."""
    return 2 if arguments["target"].dtype.kind == "f" else 1


@operation(writes=["out"], Z=2, out=2)
def softmax(ops: Backend, Z: Array, out: Array) -> Array:
    E = ops.xp.exp(Z - Z.real.max(axis=-1, keepdims=True))
    out[...] = E / E.sum(axis=-1, keepdims=True)
    return out


@operation(writes=["out"], dA=2, A=2, out=2)
def softmax_gradient(ops: Backend, dA: Array, A: Array, out: Array) -> Array:
    """dA times the Jacobian diag(a) - a a' of each row a."""
    out[...] = A * (dA - (dA * A).sum(axis=-1, keepdims=True))
    return out


@operation(writes=["out"], Z=2, out=2)
def log_softmax(ops: Backend, Z: Array, out: Array) -> Array:
    S = Z - Z.real.max(axis=-1, keepdims=True)
    out[...] = S - ops.xp.log(ops.xp.exp(S).sum(axis=-1, keepdims=True))
    return out


@operation(writes=["out"], dA=2, A=2, out=2)
def log_softmax_gradient(ops: Backend, dA: Array, A: Array, out: Array) -> Array:
    out[...] = dA - ops.xp.exp(A) * dA.sum(axis=-1, keepdims=True)
    return out


@operation(writes=["loss", "dZ"], Z=2, target=_axes_of_target, weight=2, loss=2, dZ=2)
def softmax_cross_entropy(
    ops: Backend, Z: Array, target: Array, smoothing: float, weight: Array | None, scale: float, loss: Array, dZ: Array
) -> Array:
    """The loss -w Σ t log softmax(z) of each row, and in `dZ` `scale` times its gradient w (softmax(z) Σt - t).

    `target` is integer classes (..., n) or weights t (..., n, c); `smoothing` s replaces t by (1 - s) t + s / c;
    `weight` (..., n, 1) is the factor w of each row; `loss` has shape (..., n, 1).
    """
    xp = ops.xp
    T = target if target.dtype.kind in "fc" else target[..., None] == xp.arange(Z.shape[-1])
    T = T * (1.0 - smoothing) + smoothing / Z.shape[-1]
    mass = T.sum(axis=-1, keepdims=True)
    S = Z - Z.real.max(axis=-1, keepdims=True)
    E = xp.exp(S)
    norm = E.sum(axis=-1, keepdims=True)
    w = 1.0 if weight is None else weight
    loss[...] = w * (mass * xp.log(norm) - (T * S).sum(axis=-1, keepdims=True))
    dZ[...] = w * scale * (E / norm * mass - T)
    return dZ
