"""Tables that pyarrow reads: CSV, Parquet and Arrow files, and objects in memory with Arrow's interface."""

from __future__ import annotations

import errno
import mmap
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpunn.data.file_sizes import DAMAGED, check_messages, check_overlaps, check_size
from gpunn.data.table import NUMBER, Column, Table, check_names, column, table
from gpunn.dataframes import listed
from gpunn.errors import DataError, GpunnError, MissingExtraError

DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
BLOCK = 1 << 20
RAGGED = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
NO_MEMORY = ("failed to map segment", "annot allocate memory")  # what the loader of libraries says when memory is short
INDEX = re.compile(r"__index_level_\d+__")  # pandas' name for an index without one, which only counts the rows
MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "gzip", b"PK": "zip", b"PAR1": "Parquet"}


def library(source: str) -> Any:
    """pyarrow, which only this file imports."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError) and any(words in str(error) for words in NO_MEMORY):
            raise MemoryError(f"none to load pyarrow: {error}") from None
        raise MissingExtraError(
            source, expected="pyarrow", got=str(error), fix='run: python -m pip install "gpunn[data]"'
        ) from None
    return pyarrow


def of_pandas(value: Any) -> bool:
    """Whether this is an object of pandas, whose index is not a column."""
    return type(value).__module__.partition(".")[0] == "pandas"


def read_arrow(path: str, target: Any, kinds: Mapping[str, str], memory: int | None) -> Table:
    """A .csv, .parquet, .arrow or .feather file as a table; whatever is wrong with it raises a DataError."""
    pa = library(path)
    suffix = os.path.splitext(path)[1].lower()
    reader: Callable[..., Any] = {".csv": _csv, ".parquet": _parquet}.get(suffix, _ipc)
    try:
        found = reader(pa, path, kinds, memory)
        check_size(path, max(found.nbytes, 8 * found.num_rows * found.num_columns), memory)
        return from_arrow(path, found, target, kinds)
    except GpunnError:
        raise
    except MemoryError:
        raise DataError(
            path, expected="a table that fits in memory", got="a larger one", fix="give part of it, or free memory"
        ) from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError(str(error)) from None
        raise DataError(
            path, expected=f"a whole {suffix} file", got=" ".join(str(error).split())[:200], fix=DAMAGED
        ) from error


def from_arrow(source: str, found: Any, target: Any = None, kinds: Mapping[str, str] | None = None) -> Table:
    """A table of an Arrow table, or of anything that pyarrow can turn into one."""
    pa = library(source)
    try:
        if of_pandas(found):
            check_names(source, [str(name) for name in getattr(found, "columns", ())])
            found = pa.Table.from_pandas(found, preserve_index=False)
        elif not isinstance(found, pa.Table):
            found = pa.table(found)
        found.validate(full=True)
        found = found.drop_columns([name for name in found.schema.names if INDEX.fullmatch(name)])
        check_names(source, found.schema.names)
        pairs = [(n, _column(pa, f"{source} column {n!r}", c)) for n, c in zip(found.schema.names, found.columns)]
    except GpunnError:
        raise
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            source,
            expected="columns of one type each, with names of their own",
            got=" ".join(str(error).split())[:200],
            fix="convert the column to numbers or to text",
        ) from error
    return table(source, pairs, target, kinds)


# Columns


def _column(pa: Any, where: str, values: Any) -> Column:
    """One column as NumPy arrays, copied."""
    if isinstance(values.type, pa.BaseExtensionType):
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    t, types = values.type, pa.types
    if types.is_dictionary(t):
        if types.is_string(t.value_type) or types.is_large_string(t.value_type):
            return _categories(pa, where, values)
        values, t = values.cast(t.value_type), t.value_type
    if types.is_null(t):
        return column("empty", np.zeros(len(values)), np.ones(len(values), bool))
    if types.is_string(t) or types.is_large_string(t) or types.is_string_view(t):
        return _categories(pa, where, values.cast(pa.large_string()).dictionary_encode())
    if types.is_boolean(t):
        return column("boolean", np.array(values.fill_null(False).to_numpy(), bool), values.is_null().to_numpy())
    if types.is_temporal(t) and not types.is_interval(t):
        unit = "s" if types.is_date(t) else t.unit
        values = values.cast(pa.timestamp("s")) if types.is_date(t) else values
        values = values.cast(pa.int32()) if t in (pa.time32("s"), pa.time32("ms")) else values
        counts = np.array(values.cast(pa.int64()).fill_null(0).to_numpy())
        return column("time", counts / DAY[unit], values.is_null().to_numpy())
    if types.is_decimal(t) or types.is_float16(t):
        values = values.cast(pa.float64() if types.is_decimal(t) else pa.float32())
    if types.is_integer(t) or types.is_floating(t) or types.is_decimal(t):
        return column("numeric", np.array(values.fill_null(0).to_numpy()), values.is_null().to_numpy())
    raise DataError(
        where,
        expected="numbers, bools, text or times",
        got=f"Arrow's {t}"[:200],
        fix="leave it out, or split it into columns of one value a row",
    )


def _categories(pa: Any, where: str, values: Any) -> Column:
    """Dictionary-encoded text. Equal texts get the same code, even if a file repeats them in its dictionary."""
    values = values.unify_dictionaries().combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # of no rows
        return Column("categorical", np.zeros(0, np.int64))
    missing = np.array(values.is_null().to_numpy(zero_copy_only=False))
    data = np.array(values.indices.fill_null(0).to_numpy(zero_copy_only=False), np.int64)
    given = values.dictionary.to_pylist()
    places: dict[str, int] = {}
    codes = np.array([-1 if text is None else places.setdefault(text, len(places)) for text in given] or [-1])
    data = codes[data] if given else data - 1
    return column("categorical", np.maximum(data, 0), missing | (data < 0), tuple(places))


# CSV


def _csv(pa: Any, path: str, kinds: Mapping[str, str], memory: int | None) -> Any:
    """UTF-8, commas, one line of names, no line break inside a value; blanks and NA are missing values."""
    names = _names(path)
    check_names(path, names)
    numbered = [[str(i) for i in range(first, first + len(names))] for first in (0, 1)]  # as pandas does
    if all(NUMBER.fullmatch(name) for name in names) and names not in numbered:
        raise DataError(
            f"{path} line of names", expected="names", got=f"numbers, {listed(names, 3)}",
            fix="write a line of names above them",
        )  # fmt: skip
    csv = pa.csv
    forced = {name: pa.string() for name, kind in kinds.items() if kind == "categorical" and name in names}
    block = max(BLOCK, min(os.path.getsize(path), 64 * BLOCK))  # a row must fit in one
    try:
        with pa.OSFile(os.fsencode(path)) as file:
            found = csv.read_csv(
                file,
                # With threads, errors would not say which row.
                read_options=csv.ReadOptions(use_threads=False, block_size=block),
                convert_options=csv.ConvertOptions(
                    strings_can_be_null=True, quoted_strings_can_be_null=False, column_types=forced
                ),
            )
    except pa.ArrowInvalid as error:
        ragged = RAGGED.search(str(error))
        if not ragged:
            raise
        raise DataError(
            f"{path} row {int(ragged[1]) - 1}",
            expected=f"{ragged[2]} values, as many as names",
            got=ragged[3],
            fix="correct the row; quote values that have a comma in them",
        ) from None
    for name, values in zip(found.schema.names, found.columns):
        _check_text(pa, path, name, values)
    return found


def _names(path: str) -> list[str]:
    """The names in the first line; refuses anything but text in UTF-8 with commas."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise DataError(path, expected="a line of names and rows", got="an empty file", fix="give one with data")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            mark = next((name for start, name in MARKS.items() if content[: len(start)] == start), None)
            zero = content.find(b"\0")
            if mark or zero >= 0:
                got = mark or f"a zero byte in line {content[:zero].count(10) + 1}"
                raise DataError(path, expected="text in UTF-8", got=got, fix="save it as CSV in UTF-8")
            start = 3 if content[:3] == b"\xef\xbb\xbf" else 0
            while content[start : start + 1] in (b"\n", b"\r"):
                start += 1
            ends = [end for end in (content.find(b"\n", start), content.find(b"\r", start)) if end >= 0]
            line = content[start : min(ends, default=len(content))]
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{path} line of names", line[error.start :]) from None
    return _split(path, text)


def _split(path: str, line: str) -> list[str]:
    import csv

    try:
        names = next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        raise DataError(
            f"{path} line of names", expected="names with commas between, in one line", got=str(error),
            fix="take line breaks out of names, where they are not read, and correct the quotes",
        ) from None  # fmt: skip
    other = next((sign for sign in ";\t|" if len(names) == 1 and sign in line), None)
    if other:
        raise DataError(
            f"{path} line of names",
            expected="commas between names",
            got=f"{other!r}",
            fix="save it with commas, and points in numbers",
        )
    return names


def _check_text(pa: Any, path: str, name: str, values: Any) -> None:
    """Refuse bytes that are not UTF-8, and values with a line break: in most cases, a quote was never closed."""
    if pa.types.is_binary(values.type):
        for row, value in enumerate(values):
            try:
                (value.as_py() or b"").decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(f"{path} row {row + 1} column {name!r}", value.as_py()[error.start :]) from None
    if pa.types.is_string(values.type):
        broken = pa.compute.match_substring_regex(values, "[\r\n]").fill_null(False).to_numpy()
        if broken.any():
            row = int(np.argmax(broken))
            raise DataError(
                f"{path} row {row + 1} column {name!r}",
                expected="a value within one line",
                got=repr(values[row].as_py())[:80],
                fix="close its quote, or write a space for the line break",
            )


def _not_utf8(where: str, rest: bytes) -> DataError:
    return DataError(where, expected="text in UTF-8", got=f"the bytes {rest[:8]!r}", fix="save it as CSV in UTF-8")


# Binary files


def _mapped(pa: Any, path: str) -> Any:
    """The file mapped into memory; its name is given as bytes, because it need not be UTF-8."""
    return pa.memory_map(os.fsencode(path))


def _parquet(pa: Any, path: str, kinds: Mapping[str, str], memory: int | None) -> Any:
    with _mapped(pa, path) as content, pa.parquet.ParquetFile(content) as file:
        schema = file.schema_arrow
        check_names(path, schema.names)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        check_size(path, sum(max(g.total_byte_size, 8 * g.num_rows * g.num_columns) for g in groups), memory)
        texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    checked = {"read_dictionary": texts, "page_checksum_verification": True}
    with _mapped(pa, path) as content, pa.parquet.ParquetFile(content, **checked) as file:
        found = file.read(use_threads=False)
        # After `read`, which refuses damaged entries: to look at one ends the process.
        check_overlaps(path, file.metadata)
    return found


def _ipc(pa: Any, path: str, kinds: Mapping[str, str], memory: int | None) -> Any:
    """Arrow's file and stream formats; a file is a stream between two marks."""
    with _mapped(pa, path) as file:
        content = file.read_buffer()
        start = 8 if content.slice(0, 6).to_pybytes() == b"ARROW1" else 0
        stream = content.slice(start)
        check_messages(pa, path, stream, memory)
        with pa.ipc.open_stream(stream) as reader:
            check_names(path, reader.schema.names)
            found = reader.read_all()
    return found
