"""Sizes that a file declares, added up before anything of that size is read: a small file must not fill the memory."""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from typing import Any

from gpunn.errors import DataError

DAMAGED = "write the file again"
FREE, RATIO = 256 << 20, 100  # bytes that any file may take, and how many it may take for each of its own


def check_size(path: str, size: int, memory: int | None) -> None:
    """Refuse a file that would become larger than it may: than `memory`, or than a compressed table usually does."""
    own = os.path.getsize(path)
    allowed = max(FREE, RATIO * own) if memory is None else memory
    if size > allowed:
        raise DataError(
            path,
            expected=f"at most {allowed} bytes when read",
            got=f"{size} declared in a file of {own}",
            fix="if you trust it, pass memory=BYTES; in a terminal: --memory BYTES",
        )


def check_places(path: str, metadata: Any) -> None:
    """No column of a Parquet file lies where another one does."""
    places = []
    for group in range(metadata.num_row_groups):
        part = metadata.row_group(group)
        for i in range(part.num_columns):
            chunk = part.column(i)
            first = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
            places.append((first, first + chunk.total_compressed_size, chunk.path_in_schema))
    for (_, end, name), (start, _, other) in pairwise(sorted(places)):
        if start < end:
            raise DataError(
                path, expected=f"a place of its own for column {other!r}", got=f"that of {name!r}", fix=DAMAGED
            )


# Arrow messages are FlatBuffers: a table starts with the distance back to its list of field offsets


def check_ipc(pa: Any, path: str, stream: Any, memory: int | None) -> None:
    """Buffers as they are, or, where they are compressed, as long as they say they will be."""
    size = 0
    for message in pa.ipc.MessageReader.open_stream(stream):
        if message.body is not None:
            size += _body_size(path, message.metadata.to_pybytes(), message.body)
            check_size(path, size, memory)


def _body_size(path: str, metadata: bytes, body: Any) -> int:
    try:
        kind = metadata[_field(metadata, _pointed(metadata, 0), 1)]
        if kind not in (2, 3):
            return int(body.size)
        batch = _pointed(metadata, _field(metadata, _pointed(metadata, 0), 2))
        if kind == 2:  # a dictionary has its batch inside
            batch = _pointed(metadata, _field(metadata, batch, 1))
        compressed = _slot(metadata, batch, 3) != 0
        buffers = _pointed(metadata, _field(metadata, batch, 2))
        size, end = 0, 0
        for i in range(struct.unpack_from("<I", metadata, buffers)[0]):
            offset, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * i)
            if length and not (end <= offset and 8 * compressed <= length <= body.size - offset):
                raise ValueError(f"a buffer of {length} bytes at {offset}, after one that ends at {end}")
            end = offset + length if length else end
            declared = struct.unpack("<q", body.slice(offset, 8).to_pybytes())[0] if compressed and length else 0
            size += max(length, declared)  # -1 marks one that is not compressed
        return size
    except (IndexError, ValueError, struct.error) as error:
        raise DataError(path, expected="a whole Arrow message", got=str(error)[:200], fix=DAMAGED) from None


def _pointed(data: bytes, place: int) -> int:
    """Where the offset at a place leads to."""
    return int(place + struct.unpack_from("<I", data, place)[0])


def _slot(data: bytes, table: int, field: int) -> int:
    fields = table - struct.unpack_from("<i", data, table)[0]
    if fields < 0:
        raise ValueError("a table without fields")
    length = struct.unpack_from("<H", data, fields)[0]
    return struct.unpack_from("<H", data, fields + 4 + 2 * field)[0] if 4 + 2 * field < length else 0


def _field(data: bytes, table: int, field: int) -> int:
    """Where a field of a table stands."""
    slot = _slot(data, table, field)
    if not slot:
        raise ValueError(f"no field {field}")
    return table + slot
