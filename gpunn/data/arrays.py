"""Tables of NumPy arrays: npz and npy files, dicts, matrices, (X, y)."""

from __future__ import annotations

import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, BinaryIO

import numpy as np

from gpunn.data.file_sizes import DAMAGED, check_size
from gpunn.data.table import NO_ROWS, USUAL_TARGETS, Column, Host, Table, column, table, text_column
from gpunn.errors import DataError, GpunnError

MOST_ARRAYS = 10_000
MOST_COLUMNS = 100_000  # each takes a few hundred bytes in addition to its numbers
PIECE = 1 << 20
METHODS = (
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
)  # of compression that NumPy uses, and that zipfile unpacks piece by piece


def from_arrays(
    source: str, arrays: Mapping[Any, Any], target: Any = None, kinds: Mapping[str, str] | None = None
) -> Table:
    """A vector is one column, a matrix X the columns X0, X1, ...; a matrix named y holds several targets."""
    pairs: list[tuple[str, Column]] = []
    for name, value in arrays.items():
        if not isinstance(name, str):
            raise DataError(source, expected="names of columns as text", got=repr(name), fix="rename the column")
        array = _host(f"{source} column {name!r}", value)
        if array.ndim == 1:
            pairs.append((name, _column(f"{source} column {name!r}", array)))
            continue
        width = math.prod(array.shape[1:])
        if not len(array):  # its width may be any number
            raise DataError(source, expected="rows", got="none", fix=NO_ROWS)
        if len(pairs) + width > MOST_COLUMNS:
            raise DataError(
                source,
                expected=f"at most {MOST_COLUMNS} columns",
                got=f"{len(pairs) + width} up to {name!r} of shape {array.shape}",
                fix="leave some out",
            )
        matrix = array.reshape(len(array), width)
        each = [f"{name}{j}" for j in range(matrix.shape[1])]
        if target is None and name.lower() in USUAL_TARGETS:
            target = each
        target = each if target == name else target
        pairs += [(n, _column(f"{source} column {n!r}", matrix[:, j])) for j, n in enumerate(each)]
    return table(source, pairs, target, kinds)


def from_memory(source: Any, target: Any, kinds: Mapping[str, str]) -> Table | None:
    """A dict, (X, y), matrix or structured array as a table; None for anything else."""
    if isinstance(source, Mapping):
        return from_arrays("table", source, target, kinds)
    if isinstance(source, tuple) and len(source) == 2:
        return from_arrays("(X, y)", {"X": source[0], "y": source[1]}, target, kinds)
    if isinstance(source, np.ndarray) and source.dtype.names:
        return from_arrays("array", {name: source[name] for name in source.dtype.names}, target, kinds)
    if isinstance(source, (np.ndarray, list)):
        return from_arrays("array", {"x": _matrix("array", _host("array", source))}, target, kinds)
    return None


def _matrix(where: str, array: Host) -> Host:
    if array.ndim < 2:
        raise DataError(
            where,
            expected="a matrix with the target among its columns",
            got=f"shape {array.shape}",
            fix="pass (X, y), or a dict of columns",
        )
    return array


def _host(where: str, value: Any) -> Host:
    """An array of at least one axis; lists keep their Python values, so that [1, "a"] does not become all text."""
    try:
        missing = np.ma.getmaskarray(value) if isinstance(value, np.ma.MaskedArray) else None
        array = np.array(value, object) if isinstance(value, (list, tuple)) else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DataError(
            where, expected="a NumPy array or a list", got=f"a {type(value).__name__}: {error}"[:200], fix="convert it"
        ) from None
    if array.ndim == 0:
        raise DataError(where, expected="one value a row", got=repr(value)[:80], fix="give an array")
    if missing is not None:
        array = array.astype(object)
        array[missing] = None
    return array


def _column(where: str, array: Host) -> Column:
    kind = array.dtype.kind
    if kind == "b":
        return column("boolean", array)
    if kind in "iuf":
        wide = array.dtype.itemsize > 8 or not array.dtype.isnative
        return column("numeric", array.astype(np.float64) if wide else array)
    if kind in "Mm":
        missing = np.isnat(array)
        days = array.astype("datetime64[us]" if kind == "M" else "timedelta64[us]").astype(np.int64) / 86_400e6
        return column("time", np.where(missing, 0.0, days), missing)
    if kind in "UT":
        return text_column(array.tolist())
    if kind == "O":
        return _objects(where, array)
    raise DataError(where, expected="numbers, bools, text or times", got=f"dtype {array.dtype}", fix="convert it")


def _objects(where: str, array: Host) -> Column:
    """Python values that are all of one kind, except for None and NaN."""
    values = [None if v is None or v != v else v for v in map(_plain, array.tolist())]
    kinds = (("boolean", bool), ("numeric", (int, float)), ("categorical", str), ("time", date))
    present = next((v for v in values if v is not None), None)
    found = next(((name, types) for name, types in kinds if isinstance(present, types)), ("numeric", (int, float)))
    name, types = found
    for row, value in enumerate(values):
        if value is not None and (not isinstance(value, types) or (name == "numeric" and isinstance(value, bool))):
            raise DataError(
                f"{where}, row {row + 1}",
                expected="numbers, bools, text or times" if value is present else f"{name} values as before",
                got=repr(value)[:80],
                fix="give the column one type, and None where a value is missing",
            )
    if name == "categorical":
        return text_column(values)
    if name == "time":
        return _column(where, np.array([_utc(v) for v in values], "datetime64[us]"))
    missing = np.array([v is None for v in values], bool)
    try:
        data = np.array([0 if v is None else v for v in values], bool if name == "boolean" else np.float64)
    except OverflowError:
        raise DataError(
            where, expected="numbers in the range of float64", got="a larger one", fix="scale the column"
        ) from None
    return column(name, data, missing)


def _plain(value: Any) -> Any:
    """A NumPy value as Python's; times are cut to microseconds, as nanoseconds would become whole numbers."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]")
    return value.item() if isinstance(value, np.generic) else value


def _utc(value: Any) -> Any:
    aware = isinstance(value, datetime) and value.tzinfo is not None
    return value.astimezone(UTC).replace(tzinfo=None) if aware else value


# Files. NumPy would allocate what a header says before it looks whether the file is that long


def read_arrays(path: str, target: Any, kinds: Mapping[str, str], memory: int | None) -> Table:
    """The arrays of an npz as columns, or the matrix of an npy; nothing is unpickled."""
    try:
        if path.lower().endswith(".npy"):
            with open(path, "rb") as file:
                array = _array(path, file, os.path.getsize(path))
            return from_arrays(path, {"x": _matrix(path, array)}, target, kinds)
        return from_arrays(path, _archive(path, memory), target, kinds)
    except GpunnError:
        raise
    except MemoryError:
        raise DataError(
            path, expected="arrays that fit in memory", got="larger ones", fix="give part of them"
        ) from None
    except (EOFError, LookupError, OSError, OverflowError, RuntimeError, SyntaxError, TypeError, ValueError,
            struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        raise DataError(
            path, expected="arrays that NumPy wrote", got=f"{type(error).__name__}: {error}"[:200], fix=DAMAGED
        ) from error


def _archive(path: str, memory: int | None) -> dict[str, Host]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        strange = [m.filename for m in members if not m.filename.endswith(".npy") or m.compress_type not in METHODS]
        if strange or len(set(names)) < len(names) or not 0 < len(names) <= MOST_ARRAYS:
            got = repr(strange[0])[:200] if strange else f"{len(names)} names, {len(set(names))} of them different"
            raise DataError(path, expected="plain .npy arrays, each with a name of its own", got=got, fix=DAMAGED)
        check_size(path, sum(member.file_size for member in members), memory)
        arrays = {}
        for name, member in zip(names, members):
            with archive.open(member) as file:
                arrays[name] = _array(f"{path} array {name!r}", file, member.file_size)
        return arrays


def _array(where: str, file: Any, size: int) -> Host:
    """The array of a file; its header and the data that this describes must take exactly `size` bytes."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise DataError(where, expected="format 1.0 or 2.0", got=f"{version}", fix="save it with numpy.save")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.names:
        raise DataError(
            where, expected="numbers, bools or text", got=f"dtype {dtype}"[:200], fix="save each column as an array"
        )
    if any(extent < 0 for extent in shape):
        raise DataError(where, expected="a shape of numbers >= 0", got=f"{shape}"[:200], fix=DAMAGED)
    needed, available = math.prod(shape) * dtype.itemsize, size - file.tell()
    if needed != available:
        raise DataError(
            where, expected=f"{needed} bytes for {dtype} of shape {shape}"[:200], got=f"{available}", fix=DAMAGED
        )
    flat = _read(file, needed).view(dtype)
    return flat.reshape(shape[::-1]).transpose() if fortran else flat.reshape(shape)


def _read(file: BinaryIO, size: int) -> Host:
    """`size` bytes, read piece by piece: a zip member may become larger than it says if it is read at once."""
    content = np.empty(size, np.uint8)
    place = 0
    while place < size:
        piece = file.read(min(PIECE, size - place))
        if not piece:
            raise EOFError(f"{place} of {size} bytes")
        content[place : place + len(piece)] = np.frombuffer(piece, np.uint8)
        place += len(piece)
    if file.read(1):
        raise ValueError("more bytes than declared")
    return content
