"""Matrix products on CUDA, each with as much of what follows it in a network as cuBLASLt can end a product in."""

from __future__ import annotations

from typing import Any

from gpunn.backends.cuda_launch import Launcher
from gpunn.backends.gemm import ARITHMETIC, Gemm
from gpunn.backends.normalizing import Nonlinearity
from gpunn.types import Array


class CudaProducts(Launcher):
    """One launch where cuBLASLt has the ending for these dtypes and layouts, else the composition in `Backend`.

    Which of the two is settled when a product first runs, and stays so. ReLU's derivative is read from bits that
    `affine` had cuBLASLt write into `aux`, and only where it did.
    """

    tf32 = False  # whether float32 products round their inputs to 10 bits

    def __init__(self, cublaslt: Any) -> None:
        super().__init__()
        self._cublaslt = cublaslt
        self._gemm: Gemm | None = None
        self._masks: set[int] = set()  # addresses of the aux that hold the bits of the last affine

    def _products(self, A: Array) -> Gemm | None:
        """cuBLASLt, where there is one and it multiplies this dtype."""
        self.activate()
        if self._cublaslt is None or A.dtype.name not in ARITHMETIC:
            return None
        if self._gemm is None:
            self._gemm = Gemm(self.xp, self._cublaslt, tf32=self.tf32)
        return self._gemm

    def _fused(self, ending: str, A: Array, B: Array, out: Array, vector: Any = None, aux: Any = None) -> bool:
        gemm = self._products(A)
        return gemm is not None and gemm.fused(ending, A, B, out, vector, aux)

    def matmul(self, A: Array, B: Array, out: Array) -> Array:
        gemm = self._products(A)
        if gemm is None:
            return self._plain_matmul(A, B, out)
        gemm(A, B, out)
        return out

    def _plain_matmul(self, A: Array, B: Array, out: Array) -> Array:
        """Model by model, since CuPy copies transposed operands of a population; cannot be captured."""
        if A.dtype != out.dtype:  # CuPy would round the sums to the operands' dtype
            A, B = A.astype(out.dtype), B.astype(out.dtype)
        if out.ndim == 2:
            self.xp.matmul(A, B, out=out)
        else:
            for k in range(out.shape[0]):
                self.xp.matmul(*(X[k % X.shape[0]] if X.ndim == 3 else X for X in (A, B)), out=out[k])
        return out

    def affine(
        self,
        X: Array,
        W: Array,
        b: Array | None,
        activation: Nonlinearity | None,
        out: Array,
        Z: Array | None = None,
        aux: Array | None = None,
    ) -> Array:
        if self._affine(X, W, b, activation, out, Z, aux):
            return out
        return super().affine(X, W, b, activation, out, Z, aux)

    def _affine(
        self, X: Array, W: Array, b: Any, activation: Nonlinearity | None, out: Array, Z: Any, aux: Any
    ) -> bool:
        """Other activations share one pass with the bias, which an ending could not save."""
        if activation is None:
            return b is not None and self._fused("bias", X, W, out, b)
        if activation.ending == "relu" and aux is not None:
            if self._fused("relu", X, W, out, b, aux):
                self._masks.add(aux.data.ptr)
                return True
            self._masks.discard(aux.data.ptr)
        if activation.ending == "relu":
            return self._fused("relu", X, W, out, b)
        return activation.ending == "gelu" and self._fused("gelu", X, W, out, b, Z)

    def affine_gradients(self, X: Array, dZ: Array, dW: Array, db: Array | None) -> None:
        if db is None or not self._fused("column_sums", X.mT, dZ, dW, vector=db):
            super().affine_gradients(X, dZ, dW, db)

    def input_gradient(
        self,
        dZ: Array,
        W: Array,
        dX: Array,
        activation: Nonlinearity | None,
        kept: Array,
        aux: Array | None,
        out: Array,
    ) -> Array:
        ending = None if activation is None else activation.ending
        if ending == "gelu" and self._fused("gelu_gradient", dZ, W.mT, out, aux=kept):
            return out
        masked = aux is not None and aux.data.ptr in self._masks
        if ending == "relu" and masked and self._fused("relu_gradient", dZ, W.mT, out, aux=aux):
            return out
        return super().input_gradient(dZ, W, dX, activation, kept, aux, out)
