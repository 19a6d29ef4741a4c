"""Checks the users' data and brings them to the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpunn.backends.reference.backend import Backend
from gpunn.dataframes import is_table, matrix
from gpunn.errors import ArrayTypeError, DataError, GpunnError, ShapeError
from gpunn.frame import Planned
from gpunn.layers.embedding import Embedding
from gpunn.losses import Loss
from gpunn.types import Array, Shape

HOST = (1, 3)  # DLPack's numbers for host memory, normal and pinned


def as_array(where: str, value: Any, ops: Backend) -> Array:
    """A numeric array from anything that NumPy can read; it stays on the device or the host where it is.

    Arrays of other libraries on the same GPU (PyTorch, JAX, a column of cuDF) become CuPy arrays of the same memory.
    """
    if isinstance(value, np.ndarray):
        array = _from_host(where, value)
    elif getattr(value, "requires_grad", False) is True:
        raise ArrayTypeError(
            where,
            expected="plain numbers",
            got=f"a {type(value).__module__}.{type(value).__name__} that requires grad",
            fix="pass x.detach()",
        )
    elif ops.owns(value):
        array = value
    else:
        array = ops.adopt(where, value) if _on_gpu(value) else _from_host(where, value)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)  # exact
    if array.dtype.kind not in "fiub":
        sparse = hasattr(value, "toarray")
        raise ArrayTypeError(
            where,
            expected="real numbers",
            got=f"dtype {array.dtype}" if array.ndim else f"a {type(value).__name__}",
            fix="call its toarray()"
            if sparse
            else "encode categories as integers, leave out or fill missing values, and pass numbers",
        )
    return array


def _on_gpu(value: Any) -> bool:
    """Whether an array of any library lies in memory that the host cannot read."""
    try:
        if hasattr(value, "__dlpack_device__"):
            return value.__dlpack_device__()[0] not in HOST
        return hasattr(value, "__cuda_array_interface__")
    except (ValueError, TypeError, RuntimeError, BufferError):  # the library cannot say; NumPy will try
        return False


def _from_host(where: str, value: Any) -> np.ndarray[Any, Any]:
    """A NumPy array in the machine's byte order. Masked arrays lose their mask, so it must be empty."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DataError(
            where,
            expected="a number everywhere",
            got=f"{np.count_nonzero(value.mask)} masked values",
            fix="fill them, as x.filled(0) does, or leave their rows out",
        )
    try:
        bare = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
        array = np.from_dlpack(value) if bare else matrix(where, value) if is_table(value) else np.asarray(value)
    except GpunnError:
        raise
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        raise ArrayTypeError(
            where,
            expected="a rectangular table of numbers",
            got=f"{type(value).__name__} ({error})",
            fix="pass x.to_cupy()"
            if hasattr(value, "to_cupy")
            else "give every row the same length, or pass one NumPy array",
        ) from None
    native = array.dtype.kind not in "fiub" or array.dtype.isnative
    return array if native else array.astype(array.dtype.newbyteorder("="))


def check_inputs(
    array: Array, shape: Shape, tables: Sequence[tuple[Planned, range]], ops: Backend, models: int | None, dtype: Any
) -> None:
    """Raise an error unless X is finite, in the range of `dtype`, and of shape (n, *shape), or (K, n, *shape) with
    separate inputs for each model; columns for an Embedding must hold row numbers of it."""
    ranks = (len(shape) + 1,) if models is None else (len(shape) + 1, len(shape) + 2)
    by_model = array.ndim == len(shape) + 2 and models is not None
    if (
        array.ndim not in ranks
        or array.shape[array.ndim - len(shape) :] != shape
        or (by_model and array.shape[0] != models)
    ):
        raise ShapeError(
            "X", expected=_wanted_inputs(shape, models), got=f"{array.shape}", fix=_input_hint(array.shape, shape)
        )
    if array.shape[array.ndim - len(shape) - 1] == 0:
        raise DataError("X", expected="at least one example", got=f"shape {array.shape}", fix="pass a batch")
    _check_numbers("X", array, ops, dtype)
    for node, places in tables:
        if isinstance(node.layer, Embedding):
            _check_indices(node.path, node.layer, array, places, shape, ops)


def _wanted_inputs(shape: Shape, models: int | None) -> str:
    extents = ", ".join(map(str, shape))
    shared = f"shape (n, {extents})" if shape else "shape (n,)"
    return shared if models is None else f"{shared}, or ({models}, n, {extents})"


def _input_hint(got: Shape, shape: Shape) -> str:
    if got == shape:
        return "for one example pass X[None]"
    if len(got) == 1 and shape == (1,):
        return "for one number an example pass X[:, None]"
    return f"give every example the shape {shape}"


def to_device(array: Array, ops: Backend, dtype: Any) -> Array:
    """A contiguous array on the device in this dtype; the same array if it is one already."""
    if ops.owns(array):
        if array.dtype == dtype and array.flags.c_contiguous:
            return array
        out = ops.empty(array.shape, dtype)
        ops.copy(array, out=out)
        return out
    return ops.from_host(array, dtype)


@dataclass(frozen=True)
class Checked:
    """Checked examples with `rank` axes each, on the host or the device; `to` brings them to the device in `dtype`.

    With `classes` they are labels that become one-hot rows there. `added` says whether the check added a last axis of
    length 1 (1), removed one (-1), or neither (0).
    """

    array: Array
    dtype: Any
    rank: int = 0
    classes: int | None = None
    added: int = 0

    @property
    def shape(self) -> Shape:
        given: Shape = self.array.shape
        return given if self.classes is None else (*given, self.classes)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def head(self, n: int) -> Checked:
        """The first n examples of each model."""
        return replace(self, array=self.array[(..., slice(n), *(slice(None),) * self.rank)])

    def given(self, ops: Backend) -> np.ndarray[Any, Any]:
        """The array on the host, in the shape in which the user gave it."""
        host = self.array if isinstance(self.array, np.ndarray) else ops.to_host(self.array)
        return host[..., 0] if self.added == 1 else host[..., None] if self.added == -1 else host

    def to(self, ops: Backend) -> Array:
        """The array on the device."""
        if self.classes is None:
            return to_device(self.array, ops, self.dtype)
        one_hot = ops.empty(self.shape, self.dtype)
        rows = ops.from_host(np.eye(self.classes), self.dtype)
        return ops.gather(rows, to_device(self.array, ops, np.int64), out=one_hot)


def _library(array: Array, ops: Backend) -> Any:
    return ops.xp if ops.owns(array) else np


def _range(array: Array) -> tuple[Any, Any]:
    """The smallest and the largest number, as Python numbers; both are NaN if any number is."""
    with np.errstate(invalid="ignore"):
        return array.min().item(), array.max().item()


def _first(array: Array, ops: Backend, wrong: Callable[[Any], Any]) -> str:
    """For messages: the first wrong number, its place, and how many more there are."""
    host = ops.to_host(array) if ops.owns(array) else array
    places = np.argwhere(wrong(host))
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{host[tuple(places[0])]} at [{', '.join(map(str, places[0]))}]{more}"


def _check_numbers(where: str, array: Array, ops: Backend, dtype: Any) -> None:
    """Raise an error for NaN, infinity, and numbers that would become infinite in the network's dtype."""
    if array.dtype.kind != "f":
        return
    low, high = _range(array)
    if not (math.isfinite(low) and math.isfinite(high)):
        got = _first(array, ops, lambda host: ~np.isfinite(host))
        raise DataError(where, expected="finite numbers", got=got, fix="drop or fill them")
    largest = float(np.finfo(dtype).max)
    if low < -largest or high > largest:
        raise DataError(
            where,
            expected=f"numbers in the range of {np.dtype(dtype)}",
            got=_first(array, ops, lambda host: np.abs(host) > largest),
            fix="scale them, or make the network with dtype='float64'",
        )


def _check_whole(
    where: str, array: Array, ops: Backend, count: int, *, expected: str, fix: str, fractions: str | None = None
) -> None:
    """Raise an error unless all numbers are whole, from 0 to count - 1."""
    xp = _library(array, ops)
    if array.dtype.kind == "f" and not bool((array == xp.floor(array)).all()):
        got = _first(array, ops, lambda host: host != np.floor(host))
        raise DataError(where, expected=expected, got=got, fix=fractions or fix)
    low, high = _range(array)
    if low < 0 or high >= count:
        got = _first(array, ops, lambda host: (host < 0) | (host >= count))
        raise DataError(where, expected=expected, got=got, fix=fix)


def _check_indices(path: str, layer: Embedding, array: Array, places: range, shape: Shape, ops: Backend) -> None:
    """Raise an error unless the numbers at these places of each input are row numbers of the layer's table."""
    part = f"[:, {places.start}:{places.stop}]" if len(places) < math.prod(shape) else ""
    if part:
        outer = array.shape[: array.ndim - len(shape)]
        array = array.reshape(*outer, math.prod(shape))[..., places.start : places.stop]
    _check_whole(
        f"X{part} for layers.{path} Embedding",
        array,
        ops,
        layer.categories,
        expected=f"whole numbers from 0 to {layer.categories - 1}",
        fix="raise categories, or map the column to 0, 1, 2, ...",
    )


def checked_targets(y: Any, loss: Loss, row_axes: Shape, output: Shape, ops: Backend, dtype: Any) -> Checked:
    """y as this loss needs it, for outputs of shape (*row_axes, *output); `row_axes` is (n,) or (K, n).

    A last axis of 1 may be missing or extra: (n,) is read as (n, 1) for one output, (n, 1) as (n,) for classes.
    """
    array = as_array("y", y, ops)
    allowed = [(*row_axes, *output), (row_axes[-1], *output)]
    if loss.target in ("classes", "one_hot"):
        if len(output) != 1 or output[0] < 2:
            raise ShapeError(
                type(loss).__name__,
                expected="a last layer with one output for each class, at least 2",
                got=f"outputs of shape {output}",
                fix="end the network in Dense(classes), or use BinaryCrossEntropy for one output",
            )
        one_hot = (
            array.shape == (row_axes[-1], *output) and array.dtype.kind == "f"
        )  # of K = n models it could be either
        labels, added = (array, 0) if one_hot else _last_axis(array, [row_axes, row_axes[-1:]])
        if labels is not None and not one_hot:
            return replace(_classes(labels, loss, output[0], ops, dtype), added=added)
    read, added = _last_axis(array, allowed)
    if read is None:
        raise ShapeError(
            "y",
            expected=_wanted(loss, row_axes, output),
            got=f"{array.shape}",
            fix="give y one row for each example of X and one column for each output",
        )
    array = read
    _check_numbers("y", array, ops, dtype)
    if loss.target != "numbers":
        low, high = _range(array)
        if low < 0 or high > 1:
            raise DataError(
                "y",
                expected="probabilities from 0 to 1",
                got=f"values from {low} to {high}",
                fix="pass 0 and 1, or a regression loss such as SquaredError()",
            )
    return Checked(array, dtype, len(output), added=added)


def _last_axis(array: Array, allowed: list[Shape]) -> tuple[Array | None, int]:
    """The array in one of these shapes, and how many last axes of 1 were added: 1, 0 or -1. None if no shape fits.

    The shapes differ in their first axes only, so at most one way fits.
    """
    shape = tuple(array.shape)
    if shape in allowed:
        return array, 0
    if (*shape, 1) in allowed:
        return array.reshape(*shape, 1), 1
    if shape[-1:] == (1,) and shape[:-1] in allowed:
        return array.reshape(shape[:-1]), -1
    return None, 0


def _classes(array: Array, loss: Loss, classes: int, ops: Backend, dtype: Any) -> Checked:
    """Checked integer labels; they become one-hot rows on the device if the loss needs that."""
    _check_numbers("y", array, ops, np.float64)
    _check_whole(
        "y",
        array,
        ops,
        classes,
        expected=f"whole classes from 0 to {classes - 1}",
        fix="give the last layer one unit for each class, and count classes from 0",
        fractions="pass integer classes, or probabilities of shape (n, classes)",
    )
    return Checked(array, np.dtype(np.int64)) if loss.target == "classes" else Checked(array, dtype, 0, classes)


def _wanted(loss: Loss, row_axes: Shape, output: Shape) -> str:
    full = f"shape {(row_axes[-1], *output)}"
    wanted = f"{row_axes[-1]} classes or {full}" if loss.target in ("classes", "one_hot") else full
    return wanted if len(row_axes) == 1 else f"{wanted}, or that for each of {row_axes[0]} models"
