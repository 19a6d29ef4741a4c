"""Matrix products; with the bias, activation or gradient that follows, one launch if cuBLASLt has such an ending.

Otherwise, for other dtypes and layouts, the reference is used. This is decided at the first run of a product and stays
so. The derivative of ReLU is read from the bits in `aux`, if cuBLASLt has written them there in `affine`.
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
    """cuBLASLt for one backend, if it is installed; its handle and workspace are made at the first product."""

    def __init__(self, cupy: Any, module: Any, tf32: bool) -> None:
        self.cupy, self.module, self.tf32 = cupy, module, tf32  # `module` is None if it is not installed
        self.masks: set[int] = set()  # addresses of the arrays `aux` to which the last affine wrote bits
        self.made: Gemm | None = None

    def gemm(self, A: Array) -> Gemm | None:
        """The object that multiplies arrays of this dtype; None if cuBLASLt does not."""
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
        return _matmul_by_cupy(ops, A, B, out)
    gemm(A, B, out)
    return out


def _matmul_by_cupy(ops: CupyBackend, A: Array, B: Array, out: Array) -> Array:
    """One product for each model, since CuPy copies transposed operands of a population. It cannot be captured."""
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
    """Try one launch for all; False if there is none. Activations other than relu and gelu are one formula with the
    bias, so a fused bias would save nothing."""
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
    has_mask = aux is not None and aux.data.ptr in ops.cublaslt.masks
    if ending == "relu" and has_mask and _fused(ops, "relu_gradient", dZ, W.mT, out, aux=aux):
        return out
    return reference.input_gradient(ops, dZ, W, dX, activation, kept, aux, out)
