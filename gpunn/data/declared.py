"""Sizes that a file declares, added up before anything of that size is read: a small file must not fill the memory."""

from __future__ import annotations

import os
import struct
from typing import Any

from gpunn.errors import DataError

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
            fix="pass memory= with the bytes it may take, if you trust it",
        )


def check_parquet(path: str, metadata: Any, memory: int | None) -> None:
    """Columns as their pages say, and at least eight bytes for each value: runs of one value take next to nothing."""
    size = 0
    for group in range(metadata.num_row_groups):
        part = metadata.row_group(group)
        for i in range(part.num_columns):
            chunk = part.column(i)
            if chunk.num_values != part.num_rows or chunk.num_values < 0:
                raise DataError(
                    path,
                    expected=f"{part.num_rows} values in column {chunk.path_in_schema!r}",
                    got=f"{chunk.num_values}",
                    fix="leave out lists and nested columns, or write the file again",
                )
            size += max(chunk.total_uncompressed_size, 8 * chunk.num_values)
    check_size(path, size, memory)


# Arrow messages are FlatBuffers: a table starts with the distance back to its list of field offsets


def check_ipc(pa: Any, path: str, stream: Any, memory: int | None) -> None:
    """Buffers as they are, or, where they are compressed, as long as they say they will be."""
    size = 0
    with pa.ipc.MessageReader.open_stream(stream) as messages:
        for message in messages:
            if message.body is not None:
                size += _body_size(path, message.metadata.to_pybytes(), message.body)
                check_size(path, size, memory)


def _body_size(path: str, metadata: bytes, body: Any) -> int:
    try:
        kind = metadata[_field(metadata, _pointed(metadata, 0), 1)]
        batch = _pointed(metadata, _field(metadata, _pointed(metadata, 0), 2))
        if kind == 2:  # a dictionary has its batch inside
            batch = _pointed(metadata, _field(metadata, batch, 1))
        if kind not in (2, 3) or not _has(metadata, batch, 3):
            return int(body.size)
        buffers = _pointed(metadata, _field(metadata, batch, 2))
        size = 0
        for i in range(struct.unpack_from("<I", metadata, buffers)[0]):
            offset, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * i)
            inside = 0 <= offset and 0 <= length <= body.size - offset
            if length and (not inside or length < 8):
                raise ValueError(f"a buffer of {length} bytes at {offset}")
            declared = struct.unpack("<q", body.slice(offset, 8).to_pybytes())[0] if length else 0
            size += max(length, declared)  # -1 marks one that is not compressed
        return size
    except (IndexError, ValueError, struct.error) as error:
        raise DataError(
            path, expected="a whole Arrow message", got=str(error)[:200], fix="write the file again"
        ) from None


def _pointed(data: bytes, place: int) -> int:
    """Where the offset at a place leads to."""
    return int(place + struct.unpack_from("<I", data, place)[0])


def _slot(data: bytes, table: int, field: int) -> int:
    fields = table - struct.unpack_from("<i", data, table)[0]
    if fields < 0:
        raise ValueError("a table without fields")
    length = struct.unpack_from("<H", data, fields)[0]
    return struct.unpack_from("<H", data, fields + 4 + 2 * field)[0] if 4 + 2 * field < length else 0


def _has(data: bytes, table: int, field: int) -> bool:
    return _slot(data, table, field) != 0


def _field(data: bytes, table: int, field: int) -> int:
    """Where a field of a table stands."""
    slot = _slot(data, table, field)
    if not slot:
        raise ValueError(f"no field {field}")
    return table + slot
