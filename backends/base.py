"""Every operation a network needs, in plain `xp`: what each one means. Other backends fuse, never change it.

Shapes: a matrix of n examples is (n, d), of K models (K, n, d); operations read the last two axes and broadcast
the rest. `out` and its like are written whole. Reductions keep their axis, so that results broadcast back.
Where an argument may be updated in place, pass the same array object as input and as output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gpunn.backends import formulas
from gpunn.backends.elementwise import Formula, Plain
from gpunn.backends.normalizing import Nonlinearity, Normalizing
from gpunn.backends.program import Program
from gpunn.backends.random_numbers import RandomNumbers
from gpunn.errors import ArrayTypeError, DeviceMemoryError, to_host_call
from gpunn.types import COLUMNS, Array, Shape


class Backend(Normalizing, RandomNumbers):
    """The plain backend on NumPy, any float or complex dtype; `reference` in the tests."""

    name = "reference"
    device = "cpu"
    precisions: tuple[str, ...] = ("float32", "float64", "complex128")  # that networks may compute in
    xp: Any = np

    def __init__(self) -> None:
        self.plain = Plain(self.xp)

    def __repr__(self) -> str:
        return f"<{self.name} backend on {self.device}>"

    def of_precision(self, name: str) -> Backend:
        """The backend of this device for networks that compute so, one of `precisions`; raises if a library lacks."""
        return self

    # Memory and transfers

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """Uninitialised memory whose first byte stands at a 256-byte boundary."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        try:
            memory = np.empty(size + 256, np.uint8)
        except (MemoryError, ValueError, OverflowError) as error:
            raise DeviceMemoryError(
                "memory",
                expected="room for every array",
                got=f"{size if size < 2**63 else 'more'} bytes asked for",
                fix="use a smaller batch or network",
            ) from error
        start = -memory.ctypes.data % 256
        return memory[start : start + size].view(dtype).reshape(shape)

    def zeros(self, shape: Shape, dtype: Any) -> Array:
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def owns(self, array: Any) -> bool:
        """Whether this is an array of the backend's own kind, on its own device."""
        return isinstance(array, np.ndarray)

    def require(self, where: str, *arrays: Array) -> None:
        """Refuse arrays of another library or device: nothing is converted behind the caller's back."""
        for array in arrays:
            if not self.owns(array):
                raise ArrayTypeError(
                    where,
                    expected=f"arrays on {self.device}",
                    got=f"{type(array).__module__}.{type(array).__name__}",
                    fix="move it with backend.from_host(array)",
                )

    def adopt(self, where: str, value: Any) -> Array:
        """An array that another library has on a GPU, as one of this backend's own, without a copy."""
        raise ArrayTypeError(
            where,
            expected=f"an array on {self.device}",
            got=f"a {type(value).__module__}.{type(value).__name__} on a GPU",
            fix=f"move one of the two: net = gn.Network(..., device='cuda'), or {to_host_call(value)}",
        )

    def from_host(self, array: np.ndarray[Any, Any], dtype: Any = None) -> Array:
        """Copy a NumPy array to the device."""
        out = self.empty(array.shape, dtype or array.dtype)
        out[...] = array
        return out

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        return np.array(array)

    def free_memory(self) -> float:
        """Bytes that data may still take on the device; the CPU's data lies where the caller has it."""
        return math.inf

    def staging(self, out: Array) -> np.ndarray[Any, Any]:
        """Host memory from which `out` is quickly filled: on the CPU, `out` itself."""
        host: np.ndarray[Any, Any] = out
        return host

    def mark(self) -> Any:
        """A place in what the device has been asked to do, for `upload` to come after."""

    def upload(self, source: np.ndarray[Any, Any], out: Array, after: Any) -> None:
        """Fill `out`, or a part of it, from its `staging` once the device has come to the mark `after`, beside whatever
        it does meanwhile; for a thread of its own, since it returns when all is there."""

    def synchronize(self) -> None:
        """Wait until everything asked of the device is done."""

    def copy(self, source: Array, out: Array) -> None:
        """out = source, cast and broadcast as needed; of a complex source a real `out` takes the real part."""
        if source.dtype.kind == "c" and out.dtype.kind != "c":
            source = source.real
        self.xp.copyto(out, source, casting="unsafe")

    def fill(self, out: Array, value: float) -> None:
        out[...] = value

    def all_finite(self, array: Array) -> bool:
        """Whether there is no NaN or infinity; waits for the device."""
        return bool(self.xp.isfinite(array).all())

    def program(self, step: Callable[[], None], *, own: bool = True, models: int | None = None) -> Program:
        """The step as a program, to be run once or several times on end.

        `own`: all its arrays are written by these operations, and not by code of others. `models`: K of a population.
        """
        return Program(step)

    def require_deterministic(self) -> None:
        """Raise unless the same program on the same machine gives the same bits every time; here it always does."""

    def quiet(self) -> AbstractContextManager[None]:
        """Within it, arithmetic that leaves the finite numbers gives no warning: training watches the loss itself."""
        return np.errstate(all="ignore")

    def sharing_models(self, models: int, threads: int) -> AbstractContextManager[Callable[[int], None]]:
        """Within it, so many threads of the host, or as many as it is told later, run the steps of a population."""
        return nullcontext(lambda threads: None)

    # Elementwise formulas and products

    def elementwise(self, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> None:
        """outputs = formula(inputs). A Python number among the inputs is compiled in: pass what changes as array."""
        results = formula(self.plain, *inputs)
        for out, result in zip(outputs, results if isinstance(results, tuple) else (results,), strict=True):
            out[...] = result

    def matmul(self, A: Array, B: Array, out: Array) -> Array:
        self.xp.matmul(A, B, out=out)
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
        """A = f(X W + b) in `out`; Z = X W + b is kept in `Z` where the activation's derivative needs it.

        `aux` is room for what the backend itself wants to keep for `input_gradient`; here, nothing.
        """
        kept = out if Z is None else Z
        self.matmul(X, W, out=kept)
        if Z is not None and b is not None:
            self.elementwise(formulas.add, (Z, b), (Z,))
            b = None
        if activation is not None:
            activation.value(self, kept, b, out)
        elif b is not None:
            self.elementwise(formulas.add, (kept, b), (out,))
        return out

    def activation_gradient(self, dA: Array, kept: Array, activation: Nonlinearity | None, out: Array) -> Array:
        """dZ = dA f'(Z); `kept` is the activation's output or its argument, as `keeps_output` says."""
        if activation is None:
            return dA
        activation.gradient(self, dA, kept, out)
        return out

    def affine_gradients(self, X: Array, dZ: Array, dW: Array, db: Array | None) -> None:
        """dW = X' dZ, db = column sums of dZ."""
        self.matmul(X.mT, dZ, out=dW)
        if db is not None:
            self.sum(dZ, COLUMNS, out=db)

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
        """On to the layer below, whose output A = f(Z) is X: dX = dZ W', and dX f'(Z) in `out`, which is returned.

        `kept` is as in `activation_gradient`, `aux` as `affine` left it. Where no activation stands between, dX is
        returned; where one does, dX need not be written.
        """
        self.matmul(dZ, W.mT, out=dX)
        return self.activation_gradient(dX, kept, activation, out=out)

    # Reductions

    def sum(self, X: Array, axis: int, out: Array) -> Array:
        self.xp.sum(X, axis=axis, keepdims=True, out=out)
        return out

    def sum_product(self, X: Array, Y: Array, axis: int, out: Array) -> Array:
        """The sum of X Y along an axis."""
        return self.sum(X * Y, axis, out=out)

    def total(self, X: Array, scale: float, out: Array) -> Array:
        """scale times the sum of each model's matrix; `out` has the shape of X without its last two axes."""
        out[...] = self.xp.sum(X, axis=(-2, -1)) * scale
        return out

    # Rows

    def softmax(self, Z: Array, out: Array) -> Array:
        E = self.xp.exp(Z - Z.real.max(axis=-1, keepdims=True))
        out[...] = E / E.sum(axis=-1, keepdims=True)
        return out

    def softmax_gradient(self, dA: Array, A: Array, out: Array) -> Array:
        """The whole Jacobian, diag(a) - a a', times dA."""
        out[...] = A * (dA - (dA * A).sum(axis=-1, keepdims=True))
        return out

    def log_softmax(self, Z: Array, out: Array) -> Array:
        S = Z - Z.real.max(axis=-1, keepdims=True)
        out[...] = S - self.xp.log(self.xp.exp(S).sum(axis=-1, keepdims=True))
        return out

    def log_softmax_gradient(self, dA: Array, A: Array, out: Array) -> Array:
        out[...] = dA - self.xp.exp(A) * dA.sum(axis=-1, keepdims=True)
        return out

    def softmax_cross_entropy(
        self, Z: Array, target: Array, smoothing: float, weight: Array | None, scale: float, loss: Array, dZ: Array
    ) -> Array:
        """Row losses -w Σ t log softmax(z), and scale times their gradient w (softmax(z) Σt - t), in one pass.

        `target` is integer classes (..., n) or weights t (..., n, c); `smoothing` s makes t (1 - s) t + s / c;
        `weight` (..., n, 1) is one factor a row; `loss` has shape (..., n, 1).
        """
        xp = self.xp
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

    # Scores, one for each row

    def correct(self, A: Array, y: Array, decision: float, out: Array) -> Array:
        """1 where the largest output is the class, or, of a single output, where it is on y's side of `decision`."""
        if A.shape[-1] == 1:
            out[...] = (A > decision) == (y > 0.5)
        else:
            classes = y if y.dtype.kind in "iu" else y.argmax(axis=-1)
            out[..., 0] = A.argmax(axis=-1) == classes
        return out

    def row_error(self, A: Array, y: Array, power: int, out: Array) -> Array:
        """The mean of |a - y| or of its square over each example's outputs."""
        difference = A - y
        terms = difference * difference if power == 2 else abs(difference)
        axes = tuple(range(out.ndim - 1, terms.ndim))
        out[...] = terms.mean(axis=axes).reshape(out.shape)
        return out

    # Gather and scatter

    def gather(self, source: Array, indices: Array, out: Array, scale: float = 1.0) -> Array:
        """out[..., i, :] = scale source[indices[..., i], :], cast to `out`; all models share the source."""
        rows = source[indices]
        out[...] = rows if scale == 1.0 else rows * scale
        return out

    def batch(self, source: Array, order: Array, cursor: Array, out: Array, scale: float = 1.0) -> Array:
        """The examples that stand at the cursor: out[..., i, :] = scale source[order[..., cursor + i], :].

        `order` is (m,) for all models or (K, m); `cursor` (1,) lies on the device, so that a captured step moves on.
        """
        start = int(cursor[0])
        return self.gather(source, order[..., start : start + out.shape[order.ndim - 1]], out, scale)

    def lookup(self, table: Array, indices: Array, out: Array) -> Array:
        """out[k, i] = table[k, indices[k, i]]: each model has a table of its own; indices may be shared."""
        if table.ndim == 2:
            out[...] = table[indices]
        else:
            for k in range(table.shape[0]):
                out[k] = table[k][_of_model(indices, out.shape[:-1], k)]
        return out

    def lookup_gradient(self, d: Array, indices: Array, out: Array) -> Array:
        """out[k, v] = the sum of d[k, i] over all i with indices[k, i] = v."""
        out[...] = 0
        if out.ndim == 2:
            self.xp.add.at(out, indices, d)
        else:
            for k in range(out.shape[0]):
                self.xp.add.at(out[k], _of_model(indices, d.shape[:-1], k), d[k])
        return out


def _of_model(indices: Array, shape: Shape, k: int) -> Array:
    """Model k's indices, which are the shared ones where they lack the population axis."""
    return indices[k] if indices.ndim == len(shape) else indices
