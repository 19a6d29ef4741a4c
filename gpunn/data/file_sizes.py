"""The sizes that a file states, added up before its content is read: a small file must not fill the memory."""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from typing import Any

from gpunn.errors import DataError

DAMAGED = "write the file again"
LEAST_LIMIT, RATIO = 256 << 20, 100  # bytes that any file may take in memory, and bytes for each byte on the disk


def check_size(path: str, size: int, memory: int | None) -> None:
    """Refuse a file that takes more than `memory` when read; by default, more than compressed tables usually do."""
    on_disk = os.path.getsize(path)
    allowed = max(LEAST_LIMIT, RATIO * on_disk) if memory is None else memory
    if size > allowed:
        raise DataError(
            path,
            expected=f"at most {allowed} bytes when read",
            got=f"{size} declared in a file of {on_disk}",
            fix="if you trust it, pass memory=BYTES; in a terminal: --memory BYTES",
        )


def check_overlaps(path: str, metadata: Any) -> None:
    """Refuse a Parquet file in which two columns overlap."""
    places = []
    for group in range(metadata.num_row_groups):
        columns = metadata.row_group(group)
        for i in range(columns.num_columns):
            chunk = columns.column(i)
            first = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
            places.append((first, first + chunk.total_compressed_size, chunk.path_in_schema))
    for (_, end, name), (start, _, other) in pairwise(sorted(places)):
        if start < end:
            raise DataError(
                path, expected=f"a place of its own for column {other!r}", got=f"that of {name!r}", fix=DAMAGED
            )


# Arrow messages are FlatBuffers: a table starts with the distance back to its list of field offsets


def check_messages(pa: Any, path: str, stream: Any, memory: int | None) -> None:
    """Add up the buffers of an Arrow stream; compressed ones count with the length that they state."""
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
            unpacked = struct.unpack("<q", body.slice(offset, 8).to_pybytes())[0] if compressed and length else 0
            size += max(length, unpacked)  # -1 marks a buffer that is not compressed
        return size
    except (IndexError, ValueError, struct.error) as error:
        raise DataError(path, expected="a whole Arrow message", got=str(error)[:200], fix=DAMAGED) from None


def _pointed(data: bytes, place: int) -> int:
    """The place that the offset at a place points to."""
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
