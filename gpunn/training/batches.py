"""Examples on the device, the order of an epoch, and loaders that gather batches.

The set is uploaded once in its own dtype. Permutations, batches and casts are made on the device. The place in the
epoch is a cursor on the device, so that a recorded step reads the next batch each time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.reference.backend import Backend
from gpunn.engine import Engine
from gpunn.errors import DataError, ShapeError
from gpunn.inputs import Checked, as_array, checked_targets
from gpunn.losses import Loss
from gpunn.randomness import Purpose, stream_key
from gpunn.types import Array, Shape


@dataclass(frozen=True)
class CheckedExamples:
    """A checked set, on the host or on the device, ready to be uploaded; fields as in `Examples`."""

    X: Checked
    y: Checked
    weight: Checked | None
    subsets: Checked | None
    size: int
    lengths: tuple[int, ...] | None = None

    @property
    def rows(self) -> int:
        """The rows of X, for all models together."""
        return len(self.X.array)

    def of_rows(self, where: str, rows: Any, network: Engine) -> CheckedExamples:
        """The same set, where model k sees `rows[k]` only; a network of one model sees `rows`."""
        self._require_one_set(where)
        chosen, lengths = _subsets(where, rows, self.rows, network)
        return replace(self, subsets=chosen, size=min(lengths or chosen.shape[1:]), lengths=lengths)

    def weighted(self, where: str, weight: Array | None, network: Engine) -> CheckedExamples:
        """The same set with these weights, which `weights_on_host` has made; None changes nothing."""
        if weight is None:
            return self
        self._require_one_set(where)
        return replace(self, weight=checked_weights(where, weight, self.rows, network))

    def _require_one_set(self, where: str) -> None:
        if self.subsets is not None:
            raise ShapeError(
                where,
                expected="one set for all models together with indices or weights",
                got=f"X of shape {self.subsets.shape}...",
                fix="pass X of shape (n, ...) and let folds= choose the rows of each model",
            )

    def to(self, ops: Backend) -> Examples:
        """The set on the device."""
        weight, subsets = (None if given is None else given.to(ops) for given in (self.weight, self.subsets))
        return Examples(self.X.to(ops), self.y.to(ops), weight, subsets, self.size, self.lengths, self.y)


@dataclass(frozen=True)
class Examples:
    """A set on the device: one copy for all models, and the rows that each model may see (None: all rows)."""

    X: Array  # (N, *shape)
    y: Array  # (N, ...)
    weight: Array | None  # (N, 1)
    subsets: Array | None  # (K, m) row numbers; a model with fewer than m has its first ones again at the end
    size: int  # rows that one model sees in an epoch
    lengths: tuple[int, ...] | None = None  # how many rows each model may see, if they differ; `size` is the smallest
    target: Checked | None = None  # y as it was handed in


def examples(network: Engine, where: str, X: Any, y: Any, loss: Loss, *, weight: Any = None) -> CheckedExamples:
    """The user's X, y and weights, checked against the network."""
    return examples_of(network, where, network.as_inputs(X), y, loss, weight=weight)


def examples_of(
    network: Engine, where: str, array: Array, y: Any, loss: Loss, *, weight: Any = None
) -> CheckedExamples:
    """The same for inputs that are an array already."""
    network.require_inputs(array)
    rank = len(network.inputs) + 1
    row_axes = array.shape[: array.ndim - rank + 1]
    target = checked_targets(y, loss, row_axes, network.outputs, network.ops, network.dtype)
    subsets = None
    if array.ndim > rank:  # a set for each model: joined to one, of which each model sees its part
        known = target.array
        if known.ndim < 2 + target.rank:  # one for all models
            known = network.ops.to_host(known) if network.ops.owns(known) else known
            known = np.broadcast_to(known, (row_axes[0], *known.shape))
        array, target = _joined(array), replace(target, array=_joined(known))
        subsets, _ = _subsets(where, np.arange(len(array)).reshape(row_axes), len(array), network)
    kept = array.dtype if array.dtype.kind in "ub" or network.reads_indices else network.dtype
    checked = CheckedExamples(Checked(array, kept), target, None, subsets, row_axes[-1])
    return checked if weight is None else checked.weighted(where, weights_on_host(where, weight, network), network)


def _joined(array: Array) -> Array:
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def _subsets(where: str, subsets: Any, rows: int, network: Engine) -> tuple[Checked, tuple[int, ...] | None]:
    """A table with the row numbers of one model in each row, and how many of them count, if that differs by model."""
    given = subsets if network.models else [subsets]
    sets = [_rows_of_model(where, numbers, k, rows, network) for k, numbers in enumerate(given)]
    lengths = tuple(len(numbers) for numbers in sets)
    table = np.stack([np.resize(numbers, max(lengths)) for numbers in sets])
    return Checked(table, table.dtype), None if len(set(lengths)) == 1 else lengths


def _rows_of_model(where: str, given: Any, k: int, rows: int, network: Engine) -> Array:
    """The checked row numbers of one model."""
    of_model = f" for model {k}" if network.models else ""
    array = as_array(f"{where} indices{of_model}", given, network.ops)
    numbers = network.ops.to_host(array) if network.ops.owns(array) else array
    if numbers.ndim != 1 or (numbers.dtype.kind not in "iu" and numbers.size):
        raise ShapeError(
            f"{where} indices",
            expected="a list of row numbers" + " for each model" * bool(of_model),
            got=f"{numbers.dtype} of shape {numbers.shape}{of_model}",
            fix="number the rows of X from 0; of a mask, pass np.flatnonzero(mask)",
        )
    if numbers.size == 0 or numbers.min() < 0 or numbers.max() >= rows:
        raise DataError(
            f"{where} indices",
            expected=f"row numbers from 0 to {rows - 1}",
            got=("none" if numbers.size == 0 else f"{numbers.min()} to {numbers.max()}") + of_model,
            fix="number the rows of X from 0",
        )
    return numbers.astype(np.int64)


def weights_on_host(where: str, weight: Any, network: Engine) -> Array:
    """The user's weights of examples, as numbers on the host."""
    array = as_array(f"{where} sample_weight", weight, network.ops)
    return np.asarray(network.ops.to_host(array) if network.ops.owns(array) else array, np.float64)


def checked_weights(where: str, weight: Array, rows: int, network: Engine) -> Checked:
    """The weights as a column, one for each example; raise an error unless they are valid."""
    weight = weight[:, 0] if weight.shape == (rows, 1) else weight
    if weight.shape != (rows,) or not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise DataError(
            f"{where} sample_weight",
            expected=f"{rows} finite numbers >= 0, not all 0",
            got=f"shape {weight.shape}" if weight.shape != (rows,) else f"values from {weight.min()} to {weight.max()}",
            fix="give one weight for each example",
        )
    return Checked(weight[:, None], network.dtype)


class Order:
    """Row numbers in the order of an epoch, (m,) for all models or (K, m). They follow from seed and epoch alone."""

    def __init__(self, network: Engine, data: Examples, sampling: str) -> None:
        ops = self.ops = network.ops
        self.sampling, self.size, self.data = sampling, data.size, data
        shared = network.models is None or (sampling == "sequential" and data.subsets is None)
        self.model_axes: Shape = () if shared else (len(network.seeds),)
        purpose = Purpose.SHUFFLE if sampling == "shuffle" else Purpose.SAMPLE
        self.keys = np.stack([stream_key(seed, purpose) for seed in network.seeds])
        self.key = ops.from_host(self.keys if self.model_axes else self.keys[0])
        self.epoch = ops.zeros((1,), np.uint64)
        self.rows = ops.from_host(np.broadcast_to(np.arange(self.size), (*self.model_axes, self.size)))
        if sampling == "replacement":
            self.uniform = ops.empty((*self.model_axes, self.size), np.float64)
        width = self.size if data.subsets is None else data.subsets.shape[1]
        starts = np.arange(math.prod(self.model_axes))[:, None] * width
        self.starts = ops.from_host(starts if self.model_axes else starts[0])
        self.chosen = None if data.subsets is None else ops.empty((*self.model_axes, self.size, 1), np.int64)
        self.places = None if data.subsets is None else ops.empty(self.rows.shape, np.int64)

    @property
    def current(self) -> Array:
        """The row numbers of the epoch, (m,) or (K, m)."""
        return self.rows if self.chosen is None else self.chosen.reshape(self.rows.shape)

    def begin(self, epoch: int) -> None:
        """Make the order of an epoch, on the device."""
        self.epoch[...] = epoch
        self._draw(epoch)
        if self.chosen is not None and self.places is not None:
            self.ops.elementwise(formulas.add, (self.rows, self.starts), (self.places,))
            self.ops.gather(self.data.subsets.reshape(-1, 1), self.places, out=self.chosen)  # type: ignore[union-attr]

    def _draw(self, epoch: int) -> None:
        if self.sampling == "shuffle":
            self.ops.permutation(self.key, self.epoch, out=self.rows)
        elif self.sampling == "replacement":
            self._draw_freely(float(self.size))

    def _draw_freely(self, count: Any) -> None:
        """Draw a row number below `count` for each place; the same one may come several times."""
        self.ops.random_uniform(self.key, self.epoch, out=self.uniform)
        self.ops.elementwise(formulas.multiply, (self.uniform, count), (self.uniform,))
        self.ops.copy(self.uniform, out=self.rows)  # the cast cuts the fraction off


class Loader:
    """Batches of one size: `load` gathers the rows at the cursor into the same arrays each time."""

    def __init__(self, network: Engine, order: Order, rows: int, cursor: Array) -> None:
        ops: Backend = network.ops
        data, model_axes = order.data, order.model_axes
        self.ops, self.data, self.cursor, self.scale = ops, data, cursor, network.scale
        dtype = np.int64 if network.reads_indices else network.precision.compute
        self.X = ops.empty((*model_axes, rows, *network.inputs), dtype)
        self.y, self._y, self._source = self._target(model_axes, rows)
        self.weight = None if data.weight is None else ops.empty((*model_axes, rows, 1), network.dtype)
        self.order = order.current

    def _target(self, model_axes: Shape, rows: int) -> tuple[Array, Array, Array]:
        """The batch's target; the same memory as `ops.batch` writes it; the whole set's y as it reads it."""
        y = self.data.y
        if y.ndim > 1:
            batch = self.ops.empty((*model_axes, rows, *y.shape[1:]), y.dtype)
            return batch, batch, y
        column = self.ops.empty((*model_axes, rows, 1), y.dtype)
        return column.reshape(*model_axes, rows), column, y.reshape(-1, 1)

    def load(self) -> None:
        self.load_inputs()
        ops, data, place = self.ops, self.data, (self.order, self.cursor)
        ops.batch(self._source, *place, out=self._y)
        if data.weight is not None:
            ops.batch(data.weight, *place, out=self.weight)

    def load_inputs(self) -> None:
        """Load X alone."""
        self.ops.batch(self.data.X, self.order, self.cursor, out=self.X, scale=self.scale)
