"""Matrix products, and the products of a dense layer with bias and activation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from gpunn.backends.formula import formulas
from gpunn.backends.operation import operation, same_as
from gpunn.types import COLUMNS, Array

if TYPE_CHECKING:
    from gpunn.backends.reference.backend import Backend


class ActivationFunction(Protocol):
    """What these operations use of an activation; `layers/activation.py` defines the activations."""

    @property
    def keeps_output(self) -> bool: ...

    @property
    def ending(self) -> str | None: ...

    def value(self, ops: Any, Z: Array, b: Array | None, out: Array) -> None: ...

    def gradient(self, ops: Any, dA: Array, kept: Array, out: Array) -> None: ...


@operation(writes=["out"], A=2, B=2, out=2)
def matmul(ops: Backend, A: Array, B: Array, out: Array) -> Array:
    ops.xp.matmul(A, B, out=out)
    return out


@operation(writes=["out", "Z", "aux"], composed=True, X=2, W=2, b=2, out=2, Z=2, aux=2)
def affine(
    ops: Backend,
    X: Array,
    W: Array,
    b: Array | None,
    activation: ActivationFunction | None,
    out: Array,
    Z: Array | None = None,
    aux: Array | None = None,
) -> Array:
    """A = f(X W + b) in `out`; Z = X W + b is kept in `Z` if the activation's derivative needs it.

    In `aux` a backend may keep data for `input_gradient`; the reference keeps none.
    """
    ops.matmul(X, W, out=out if Z is None else Z)
    return add_bias_and_activate(ops, b, activation, out, Z)


def add_bias_and_activate(
    ops: Backend, b: Array | None, activation: ActivationFunction | None, out: Array, Z: Array | None
) -> Array:
    """The rest of `affine` after the product X W, which is in `Z`, or in `out` if there is no `Z`."""
    product = out if Z is None else Z
    if Z is not None and b is not None:
        ops.elementwise(formulas.add, (Z, b), (Z,))
        b = None
    if activation is not None:
        activation.value(ops, product, b, out)
    elif b is not None:
        ops.elementwise(formulas.add, (product, b), (out,))
    return out


@operation(writes=["out"], composed=True, dA=same_as("out"), kept=same_as("out"), out=same_as("out"))
def activation_gradient(
    ops: Backend, dA: Array, kept: Array, activation: ActivationFunction | None, out: Array
) -> Array:
    """dZ = dA f'(Z) in `out`; `kept` is the activation's output if it `keeps_output`, else its argument.

    Without an activation the result is `dA` itself, and `out` is not written: use what this returns.
    """
    if activation is None:
        return dA
    activation.gradient(ops, dA, kept, out)
    return out


@operation(writes=["dW", "db"], composed=True, X=2, dZ=2, dW=2, db=2)
def affine_gradients(ops: Backend, X: Array, dZ: Array, dW: Array, db: Array | None) -> None:
    """dW = X' dZ, and db = the column sums of dZ."""
    ops.matmul(X.mT, dZ, out=dW)
    if db is not None:
        ops.sum(dZ, COLUMNS, out=db)


@operation(writes=["dX", "out"], composed=True, dZ=2, W=2, dX=2, kept=2, aux=2, out=2)
def input_gradient(
    ops: Backend,
    dZ: Array,
    W: Array,
    dX: Array,
    activation: ActivationFunction | None,
    kept: Array,
    aux: Array | None,
    out: Array,
) -> Array:
    """Gradient for the layer below, whose output A = f(Z) is X: dX = dZ W', then dX f'(Z) in `out`; returns the latter.

    `kept` is as in `activation_gradient`, `aux` as that layer's `affine` left it. Without an activation below, the
    result is `dX`, and `out` is not written. With one, a backend may leave `dX` unwritten.
    """
    ops.matmul(dZ, W.mT, out=dX)
    return ops.activation_gradient(dX, kept, activation, out=out)
