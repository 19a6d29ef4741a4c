"""Calls of every operation, with arrays on the host: the same call runs on any backend."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.reference.normalization import Norm, Statistics
from gpunn.types import COLUMNS, ROWS, Array

MATRICES = ((1, 1), (1, 7), (5, 1), (33, 10), (1037, 3), (4, 331))
POPULATIONS = ((3, 33, 10), (1, 5, 4), (2, 1037, 20))
SHAPES = MATRICES + POPULATIONS


@dataclass(frozen=True)
class Out:
    """An array for a result: its shape, and its dtype where it is not the one under test."""

    shape: tuple[int, ...]
    dtype: Any = None


@dataclass(frozen=True)
class Call:
    """An operation and its arguments: host arrays, `Out`s, tuples of them, and plain values."""

    name: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return self.name


def each_of(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value, or each one of a tuple, changed."""
    if isinstance(value, Statistics):
        return Statistics(*(each_of(part, change) for part in value))
    return tuple(each_of(part, change) for part in value) if isinstance(value, tuple) else change(value)


class Placed:
    """A call whose arrays lie on a backend's device, floats in one dtype but for the arguments named in `dtypes`."""

    def __init__(
        self, backend: Any, call: Call, dtype: Any, strided: bool = False, dtypes: dict[str, Any] | None = None
    ) -> None:
        self.backend, self.call, self.strided = backend, call, strided
        self.outputs: list[Any] = []
        self.inputs: list[tuple[Any, Any]] = []
        self.arguments = {
            name: self._place(value, np.dtype((dtypes or {}).get(name, dtype)))
            for name, value in call.arguments.items()
        }

    def _place(self, value: Any, dtype: Any) -> Any:
        if isinstance(value, tuple):
            return each_of(value, lambda part: self._place(part, dtype))
        if isinstance(value, Out):
            out = self._array(value.shape, dtype if value.dtype is None else np.dtype(value.dtype))
            self.outputs.append(out)
            return out
        if isinstance(value, np.ndarray):
            array = self._array(value.shape, dtype if value.dtype == np.float64 else value.dtype)
            self.backend.copy(self.backend.from_host(np.asarray(value, array.dtype)), out=array)
            self.inputs.append((value, array))
            return array
        return value

    def _array(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """New memory; if `strided`, a population lies in a buffer like that of the parameters, with gaps."""
        if not self.strided or len(shape) != 3 or dtype.kind not in "fV":
            return self.backend.zeros(shape, dtype)
        size = shape[1] * shape[2]
        return self.backend.zeros((shape[0], size + 100), dtype)[:, 64 : 64 + size].reshape(shape)

    def run(self) -> None:
        getattr(self.backend, self.call.name)(**self.arguments)

    def results(self) -> list[np.ndarray]:
        return [self.backend.to_host(out) for out in self.outputs]


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Normal numbers that float32 holds exactly, so that both precisions see the same input."""
    return rng.standard_normal(shape).astype(np.float32).astype(np.float64)


def row_calls(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[Call]:
    for name in ("softmax", "log_softmax"):
        yield Call(name, {"Z": random(rng, *shape) * 3, "out": Out(shape)})
    for name in ("softmax_gradient", "log_softmax_gradient"):
        yield Call(name, {"dA": random(rng, *shape), "A": -np.abs(random(rng, *shape)), "out": Out(shape)})
    rows, classes = (*shape[:-1], 1), shape[-1]
    labels = rng.integers(0, classes, shape[:-1])
    soft = np.abs(random(rng, *shape))
    for target in (labels, labels.astype(np.int32), labels.astype(np.uint8) if classes < 256 else labels, soft):
        for smoothing, weight in ((0.0, None), (0.125, np.abs(random(rng, *rows)))):
            yield Call(
                "softmax_cross_entropy",
                {"Z": random(rng, *shape) * 3, "target": target, "smoothing": smoothing, "weight": weight,
                 "scale": 0.25, "loss": Out(rows), "dZ": Out(shape)},
            )  # fmt: skip


def score_calls(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[Call]:
    A, out = random(rng, *shape).round(1), Out((*shape[:-1], 1))  # rounded: equal elements are common
    soft, labels = random(rng, *shape).round(1), rng.integers(0, shape[-1], shape[:-1])
    soft[..., ::2, :] = A[..., ::2, :]  # else hardly a row of many columns would be right
    labels[..., ::2] = A.argmax(axis=-1)[..., ::2]
    for y in (soft,) if shape[-1] == 1 else (soft, labels):
        yield Call("correct", {"A": A, "y": y, "decision": 0.25, "out": out})
    for power in (1, 2):
        yield Call("row_error", {"A": A, "y": soft, "power": power, "out": out})


def sum_calls(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[Call]:
    X, Y = random(rng, *shape), random(rng, *shape)
    for axis, kept in ((ROWS, (*shape[:-1], 1)), (COLUMNS, (*shape[:-2], 1, shape[-1]))):
        yield Call("sum", {"X": X, "axis": axis, "out": Out(kept)})
        yield Call("sum_product", {"X": X, "Y": Y, "axis": axis, "out": Out(kept)})
    yield Call("total", {"X": X, "scale": 0.5, "out": Out(shape[:-2])})


def normalization_calls(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[Call]:
    column, row = (*shape[:-2], 1, shape[-1]), (*shape[:-1], 1)
    for axis, kept in ((ROWS, row), (COLUMNS, column)):
        for center, outside in ((True, False), (False, True)):
            norm = Norm(axis, center, 0.1, outside)
            shifted = (random(rng, *shape) + 5).astype(np.float32).astype(np.float64)
            found: Any = Statistics(Out(kept) if center else random(rng, *kept), Out(kept), Out(kept))
            yield Call("normalize", {"X": shifted, "norm": norm, "statistics": found, "out": Out(shape)})
            for G in (random(rng, *column), None):
                dZ, Xhat = random(rng, *shape), random(rng, *shape)
                var, inverse = np.abs(random(rng, *kept)) + 0.5, np.abs(random(rng, *kept))
                known: Any = Statistics(None, var, inverse, Out(kept), Out(kept))
                yield Call(
                    "normalize_gradient",
                    {"dZ": dZ, "Xhat": Xhat, "G": G, "norm": norm,
                     "statistics": known, "dG": Out(column), "dB": Out(column), "out": Out(shape)},
                )  # fmt: skip


def mean_calls(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[Call]:
    row = (*shape[:-1], 1)
    for G in (random(rng, *shape[:-2], 1, shape[-1]), None):
        read = {"dZ": random(rng, *shape), "Xhat": random(rng, *shape), "G": G}
        yield Call("row_means", {**read, "gradient_mean": Out(row), "product_mean": Out(row)})


def index_calls(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[Call]:
    *models, rows, columns = shape
    entries = 13
    indices = rng.integers(0, entries, shape[:-1])
    shared = rng.integers(0, entries, rows)
    for source in (random(rng, entries, columns), rng.integers(0, 256, (entries, columns)).astype(np.uint8)):
        for scale in (1.0, 0.25):
            yield Call("gather", {"source": source, "indices": indices, "out": Out(shape), "scale": scale})
    labels = rng.integers(0, 2**40, entries)
    yield Call("gather", {"source": labels, "indices": indices, "out": Out(shape[:-1], np.int64)})
    yield Call("gather", {"source": random(rng, entries, columns), "indices": shared, "out": Out(shape)})
    order = rng.integers(0, entries, (*models, 3 * rows))
    place = {"order": order, "cursor": np.array([rows])}
    for source in (random(rng, entries, columns), rng.integers(0, 256, (entries, columns)).astype(np.uint8)):
        yield Call("batch", {"source": source, **place, "out": Out(shape), "scale": 0.25})
    yield Call("batch", {"source": labels[:, None], **place, "out": Out((*shape[:-1], 1), np.int64)})
    for own in (indices, shared) if models else (indices,):
        table = random(rng, *models, entries, columns)
        yield Call("lookup", {"table": table, "indices": own, "out": Out(shape)})
        yield Call("lookup_gradient", {"d": random(rng, *shape), "indices": own, "out": Out(table.shape)})


def product_calls(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[Call]:
    *models, rows, columns = shape
    units = 6
    X, W, b = random(rng, *shape), random(rng, *models, columns, units), random(rng, *models, 1, units)
    dZ = random(rng, *models, rows, units)
    yield Call("matmul", {"A": X, "B": W, "out": Out(dZ.shape)})
    yield Call("affine", {"X": X, "W": W, "b": b, "activation": None, "out": Out(dZ.shape)})
    yield Call("affine", {"X": X, "W": W, "b": b, "activation": Square(), "out": Out(dZ.shape), "Z": Out(dZ.shape)})
    yield Call("activation_gradient", {"dA": dZ, "kept": dZ * 2, "activation": Square(), "out": Out(dZ.shape)})
    yield Call("affine_gradients", {"X": X, "dZ": dZ, "dW": Out(W.shape), "db": Out(b.shape)})
    below = {"dX": Out(shape), "activation": Square(), "kept": X * 3, "aux": None, "out": Out(shape)}
    yield Call("input_gradient", {"dZ": dZ, "W": W, **below})
    G, B = random(rng, *models, 1, columns), random(rng, *models, 1, columns)
    yield Call("scale_shift", {"X": X, "G": G, "B": B, "activation": None, "out": Out(shape), "Z": None})
    yield Call("scale_shift", {"X": X, "G": G, "B": B, "activation": Square(), "out": Out(shape), "Z": Out(shape)})
    yield Call("scale_shift", {"X": X, "G": G, "B": None, "activation": None, "out": Out(shape), "Z": None})
    yield Call("copy", {"source": G, "out": Out(shape)})
    yield Call("fill", {"out": Out(shape), "value": 2.5})
    yield Call("elementwise", {"formula": formulas.scale_shift, "inputs": (X, G, B), "outputs": (Out(shape),)})


class Square:
    """f(Z) = Z², an activation that needs its argument."""

    keeps_output = False
    ending = None

    def value(self, ops: Any, Z: Any, b: Any, out: Any) -> None:
        if b is not None:
            ops.elementwise(formulas.add, (Z, b), (Z,))
        ops.elementwise(formulas.multiply, (Z, Z), (out,))

    def gradient(self, ops: Any, dA: Any, kept: Any, out: Any) -> None:
        ops.elementwise(formulas.scaled_product, (dA, kept, 2.0), (out,))


FAMILIES = {  # but `mean_calls`, of an operation that the normalisation of CUDA has in its kernel
    "rows": row_calls,
    "scores": score_calls,
    "sums": sum_calls,
    "normalization": normalization_calls,
    "indices": index_calls,
    "products": product_calls,
}


def calls(family: str, shape: tuple[int, ...]) -> list[Call]:
    return list({**FAMILIES, "means": mean_calls}[family](np.random.default_rng(7), shape))


def reverse(array: Array) -> None:
    """Reverse the elements along every axis, in place."""
    array[...] = array[tuple(slice(None, None, -1) for _ in array.shape)].copy()
