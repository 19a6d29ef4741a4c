"""Matrix products, each with as much of what follows it in a network as cuBLASLt can end a product in.

One launch where cuBLASLt has the ending for these dtypes and layouts, else the composition in `reference/`. Which of
the two is settled when a product first runs, and stays so. ReLU's derivative is read from bits that `affine` had
cuBLASLt write into `aux`, and only where it did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunn.backends.cuda.gemm import ARITHMETIC, Gemm
from gpunn.backends.reference import products as reference
from gpunn.backends.reference.products import ActivationFunction
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.cuda.backend import CupyBackend


class Cublaslt:
    """cuBLASLt as one backend uses it, if it is there; its handle and workspace are made at the first product."""

    def __init__(self, cupy: Any, module: Any, tf32: bool) -> None:
        self.cupy, self.module, self.tf32 = cupy, module, tf32  # `module` is None where it is not installed
        self.masks: set[int] = set()  # addresses of the aux that hold the bits of the last affine
        self.made: Gemm | None = None

    def gemm(self, A: Array) -> Gemm | None:
        """What multiplies arrays like this one; None where cuBLASLt does not."""
        if self.module is None or A.dtype.name not in ARITHMETIC:
            return None
        if self.made is None:
            self.made = Gemm(self.cupy, self.module, tf32=self.tf32)
        return self.made


def _fused(ops: CupyBackend, ending: str, A: Array, B: Array, out: Array, vector: Any = None, aux: Any = None) -> bool:
    ops.activate()
    gemm = ops.cublaslt.gemm(A)
    return gemm is not None and gemm.fused(ending, A, B, out, vector, aux)


def matmul(ops: CupyBackend, A: Array, B: Array, out: Array) -> Array:
    ops.activate()
    gemm = ops.cublaslt.gemm(A)
    if gemm is None:
        return _plain_matmul(ops, A, B, out)
    gemm(A, B, out)
    return out


def _plain_matmul(ops: CupyBackend, A: Array, B: Array, out: Array) -> Array:
    """Model by model, since CuPy copies transposed operands of a population; cannot be captured."""
    if A.dtype != out.dtype:  # CuPy would round the sums to the operands' dtype
        A, B = A.astype(out.dtype), B.astype(out.dtype)
    if out.ndim == 2:
        ops.xp.matmul(A, B, out=out)
    else:
        for k in range(out.shape[0]):
            ops.xp.matmul(*(X[k % X.shape[0]] if X.ndim == 3 else X for X in (A, B)), out=out[k])
    return out


def affine(
    ops: CupyBackend, X: Array, W: Array, b: Array | None, activation: ActivationFunction | None, out: Array,
    Z: Array | None = None, aux: Array | None = None,
) -> Array:  # fmt: skip
    if _affine(ops, X, W, b, activation, out, Z, aux):
        return out
    return reference.affine(ops, X, W, b, activation, out, Z, aux)


def _affine(
    ops: CupyBackend, X: Array, W: Array, b: Any, activation: ActivationFunction | None, out: Array, Z: Any, aux: Any
) -> bool:
    """Other activations share one pass with the bias, which an ending could not save."""
    if activation is None:
        return b is not None and _fused(ops, "bias", X, W, out, b)
    if activation.ending == "relu" and aux is not None:
        if _fused(ops, "relu", X, W, out, b, aux):
            ops.cublaslt.masks.add(aux.data.ptr)
            return True
        ops.cublaslt.masks.discard(aux.data.ptr)
    if activation.ending == "relu":
        return _fused(ops, "relu", X, W, out, b)
    return activation.ending == "gelu" and _fused(ops, "gelu", X, W, out, b, Z)


def affine_gradients(ops: CupyBackend, X: Array, dZ: Array, dW: Array, db: Array | None) -> None:
    if db is None or not _fused(ops, "column_sums", X.mT, dZ, dW, vector=db):
        reference.affine_gradients(ops, X, dZ, dW, db)


def input_gradient(
    ops: CupyBackend, dZ: Array, W: Array, dX: Array, activation: ActivationFunction | None, kept: Array,
    aux: Array | None, out: Array,
) -> Array:  # fmt: skip
    ending = None if activation is None else activation.ending
    if ending == "gelu" and _fused(ops, "gelu_gradient", dZ, W.mT, out, aux=kept):
        return out
    masked = aux is not None and aux.data.ptr in ops.cublaslt.masks
    if ending == "relu" and masked and _fused(ops, "relu_gradient", dZ, W.mT, out, aux=aux):
        return out
    return reference.input_gradient(ops, dZ, W, dX, activation, kept, aux, out)
