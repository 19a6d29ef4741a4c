"""One safetensors file of arrays and JSON, written whole or not at all, and checked to the last bit when read.

    8 bytes    n, the length of the header, little-endian
    n bytes    {"__metadata__": {"gpunn_format", "gpunn_version", "data_bytes", "sha256", "meta": JSON as one string},
                name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}, padded with spaces
    the rest   the arrays, little-endian, wider elements first, without gaps

The digest is that of the whole file with 64 zeros in its place; up to it, the header is the same in all formats.
A file is refused unless its header is, byte for byte, what `write` makes of its content. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from io import BufferedReader
from typing import Any, BinaryIO

import numpy as np

from gpunn import files
from gpunn.errors import CheckpointError, brief
from gpunn.types import Shape

Host = np.ndarray[Any, Any]
Path = str | os.PathLike[str]
Specs = dict[str, tuple[str, Shape]]  # the safetensors code and the shape of each array

FORMAT = 1
HEADER_LIMIT = 100_000_000  # bytes; safetensors' own
DEPTH_LIMIT = 650  # of nested JSON: that of a network and a few more; Python's own limit is about 1,000
CHUNK = 1 << 20
NO_DIGEST = "0" * 64
DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
CODES = {np.dtype(text).name: code for code, text in DTYPES.items()}
MARK = b'{"__metadata__":{"gpunn_format":"'
START = re.compile(
    re.escape(MARK) + rb'(\d{1,9})","gpunn_version":"([\w.+!-]{1,64})",'
    rb'"data_bytes":"(\d{1,19})","sha256":"([0-9a-f]{64})"'
)
DAMAGED = "the file was damaged: copy it again, or use an older checkpoint"


# The layout, for both directions


def named(path: Path) -> tuple[str, str]:
    """The path as text, and what errors call it."""
    try:
        name = os.fsdecode(path)
        usable = bool(os.path.basename(name)) and b"\0" not in os.fsencode(name)
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise CheckpointError(
            "checkpoint", expected="the name of a file", got=repr(path), fix='pass one such as "digits.gpunn"'
        )
    return name, f"checkpoint {name!r}"


def _failed(where: str, expected: str, error: OSError, fix: str) -> CheckpointError:
    return CheckpointError(where, expected=expected, got=error.strerror or str(error), fix=fix)


def _header(specs: Specs, text: str, version: str) -> tuple[bytes, dict[str, int]]:
    """The header for these arrays and this JSON, with no digest yet, and the start of each array, in file order."""
    widths = {name: np.dtype(DTYPES[code]).itemsize for name, (code, _) in specs.items()}
    sizes = {name: widths[name] * math.prod(shape) for name, (_, shape) in specs.items()}
    starts, end = {}, 0
    for name in sorted(specs, key=lambda name: -widths[name]):  # stable; so every array is aligned
        starts[name], end = end, end + sizes[name]
    header: dict[str, Any] = {"__metadata__": {
        "gpunn_format": str(FORMAT), "gpunn_version": version, "data_bytes": str(end), "sha256": NO_DIGEST, "meta": text
    }}  # fmt: skip
    for name, (code, shape) in specs.items():
        offsets = [starts[name], starts[name] + sizes[name]]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": offsets}
    packed = json.dumps(header, separators=(",", ":")).encode("ascii")
    return packed + b" " * (-len(packed) % 8), starts


def _check_json(where: str, value: dict[Any, Any] | list[Any]) -> None:
    """Refuse what JSON would not return unchanged; but tuples, which return as lists, and NaN are accepted."""
    waiting: list[tuple[Any, int, Any]] = [(value, 0, None)]
    while waiting:
        container, depth, place = waiting.pop()
        if depth > DEPTH_LIMIT:
            raise _too_deep(_path_in_json(where, place)[:200])
        for key, item in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(container, dict) and not isinstance(key, str):
                raise CheckpointError(
                    _path_in_json(where, place), expected="names as keys", got=repr(key), fix="turn the keys into text"
                )
            if isinstance(item, (dict, list, tuple)):
                waiting.append((item, depth + 1, (place, key)))
            elif item is not None and not isinstance(item, (str, int, float)):
                raise CheckpointError(
                    _path_in_json(where, (place, key)),
                    expected="numbers, text, lists and dicts",
                    got=f"a {type(item).__name__}",
                    fix="convert it, as float(x) and x.tolist() do, or store it as an array",
                )


def _path_in_json(where: str, place: Any) -> str:
    """What errors call a value in JSON: `place` is the place of its container, then its key there."""
    keys = []
    while place is not None:
        place, key = place
        keys.append(f".{key}" if isinstance(key, str) else f"[{key}]")
    return where + "".join(reversed(keys))


def _too_deep(where: str) -> CheckpointError:
    return CheckpointError(
        where, expected=f"at most {DEPTH_LIMIT} levels of nesting", got="more", fix="store it flatter"
    )


# Writing


def write(path: Path, arrays: Mapping[str, Host], meta: Mapping[str, Any]) -> None:
    """Write arrays and JSON to one file, which is replaced as a whole or stays as it was; links are followed.

    Needs 1 MiB beside the arrays, and a copy of each array that is not contiguous, one at a time.
    """
    name, where = named(path)
    specs = {key: _spec(where, key, array) for key, array in arrays.items()}
    _check_json(f"{where} meta", dict(meta))
    version: str = sys.modules["gpunn"].__version__  # an import here would be a cycle
    try:
        header, starts = _header(specs, json.dumps(dict(meta)), version)
    except ValueError as error:
        raise CheckpointError(where, expected="numbers JSON can hold", got=str(error), fix="store it as text") from None
    if len(header) > HEADER_LIMIT:
        raise CheckpointError(
            where,
            expected=f"at most {HEADER_LIMIT} bytes of names and meta",
            got=f"{len(header)} bytes",
            fix="store long lists as arrays",
        )
    target = os.path.realpath(name)
    unchanged = "free space, or save to a folder that exists and may be written; what was there before is unchanged"
    try:
        files.replace(target, partial(_fill, header, [arrays[key] for key in starts]))
    except OSError as error:
        raise _failed(where, "to write a file", error, unchanged) from error
    try:
        files.sync_folder(target)
    except OSError as error:
        lost = "the new file is in place but may not outlast a power cut: save again"
        raise _failed(where, "its folder to reach the disk", error, lost) from error


def _spec(where: str, name: Any, array: Any) -> tuple[str, Shape]:
    """The code and shape of an array that can be stored under this name."""
    if not isinstance(name, str) or name == "__metadata__" or name != name.encode(errors="replace").decode():
        raise CheckpointError(where, expected="names of arrays as text", got=repr(name), fix="choose another name")
    plain = isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray)
    if not plain or array.dtype.name not in CODES:
        raise CheckpointError(
            f"{where} array {name!r}",
            expected=f"a NumPy array of {', '.join(CODES)}",
            got=f"dtype {array.dtype}" if plain else f"a {type(array).__module__}.{type(array).__name__}",
            fix="convert it, or bring it to the host: network.ops.to_host(x)",
        )
    return CODES[array.dtype.name], array.shape


def _fill(header: bytes, arrays: Iterable[Host], file: BinaryIO) -> None:
    digest = hashlib.sha256()
    for piece in _pieces(header, arrays):
        digest.update(piece)
        file.write(piece)
    file.seek(8 + header.index(NO_DIGEST.encode()))
    file.write(digest.hexdigest().encode())


def _pieces(header: bytes, arrays: Iterable[Host]) -> Iterator[bytes]:
    """The file in pieces, each a copy: the same bytes are hashed and written, even if an array changes meanwhile."""
    yield len(header).to_bytes(8, "little") + header
    for array in arrays:
        flat = np.ascontiguousarray(array, DTYPES[CODES[array.dtype.name]]).reshape(-1).view(np.uint8)
        for start in range(0, flat.size, CHUNK):
            yield flat[start : start + CHUNK].tobytes()


# Reading


def read(path: Path) -> tuple[dict[str, Host], dict[str, Any]]:
    """The arrays and JSON of a file that `write` wrote; the arrays are writable views of one buffer.

    Needs memory for the file and about 30 times for its header, which is at most 100 MB.
    """
    name, where = named(path)
    try:
        with files.open_file(name) as file:
            header, data, start = _checked_bytes(where, file)
    except OSError as error:
        raise _failed(where, "a file to read", error, "check the name, the working folder and permissions") from error
    except MemoryError:
        raise CheckpointError(
            where, expected="memory for all of the file", got="less", fix="free some, or use another machine"
        ) from None
    if int(start[1]) > FORMAT:
        raise CheckpointError(
            where,
            expected=f"format {FORMAT} or older",
            got=f"format {int(start[1])}, written by gpunn {start[2].decode()}",
            fix="update gpunn",
        )
    return _parsed(where, header, data, start)


def _checked_bytes(where: str, file: BufferedReader) -> tuple[bytes, Host, re.Match[bytes]]:
    """The header and data of a checkpoint in any format; refuses a damaged one. Takes no more memory than the file."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8 + len(MARK))
    if prefix[8:] != MARK:
        raise CheckpointError(
            where, expected="a gpunn checkpoint", got=f"{size} bytes of something else", fix="give one that save wrote"
        )
    length = int.from_bytes(prefix[:8], "little")
    if not len(MARK) <= length <= min(HEADER_LIMIT, size - 8):
        raise CheckpointError(where, expected="all of its header", got=f"{size} bytes for one of {length}", fix=DAMAGED)
    header = MARK + file.read(length - len(MARK))
    start = START.match(header)
    if start is None:
        raise CheckpointError(where, expected="a header with a digest", got="none", fix=DAMAGED)
    if size != 8 + length + int(start[3]):
        raise CheckpointError(where, expected=f"{8 + length + int(start[3])} bytes", got=f"{size} bytes", fix=DAMAGED)
    data = np.empty(int(start[3]), np.uint8)
    digest = hashlib.sha256(prefix[:8] + header[: start.start(4)] + NO_DIGEST.encode() + header[start.end(4) :])
    for begin in range(0, data.size, CHUNK):
        piece = data[begin : begin + CHUNK]
        file.readinto(piece.data)  # if the file has become shorter, the digest is wrong
        digest.update(piece.data)
    if digest.hexdigest().encode() != start[4]:
        raise CheckpointError(where, expected=f"SHA-256 {start[4].decode()}", got=digest.hexdigest(), fix=DAMAGED)
    return header, data, start


def _parsed(where: str, header: bytes, data: Host, start: re.Match[bytes]) -> tuple[dict[str, Host], dict[str, Any]]:
    """The content; refuses a header that differs from the one that `write` makes for it."""
    try:
        entries = json.loads(header.decode("ascii"))
        text = entries.pop("__metadata__")["meta"]
        meta = _loaded(f"{where} meta", text)
        if isinstance(meta, dict):
            _check_json(f"{where} meta", meta)
        specs = {name: _spec_in_header(entry) for name, entry in entries.items()}
        expected, starts = _header(specs, text, start[2].decode())
        same = header == expected.replace(NO_DIGEST.encode(), start[4], 1)
        if not (same and isinstance(meta, dict) and json.dumps(meta) == text):
            raise ValueError("another order, spelling or offsets")
        return {name: _view(data, starts[name], *spec) for name, spec in specs.items()}, meta
    except CheckpointError:
        raise
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(
            where,
            expected="a header as gpunn writes it",
            got=brief(error),
            fix="save it again with gpunn; other programs may read its files but not edit them",
        ) from None


def _loaded(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise _too_deep(where) from None


def _spec_in_header(entry: Any) -> tuple[str, Shape]:
    """The code and shape of an array in a header; the rest of its entry follows from them."""
    code, shape = entry["dtype"], tuple(entry["shape"])
    if code not in DTYPES or any(type(n) is not int or not 0 <= n < 2**63 for n in shape):
        raise ValueError(f"an array of dtype {code!r} and shape {shape!r}")
    return code, shape


def _view(data: Host, start: int, code: str, shape: Shape) -> Host:
    dtype = np.dtype(DTYPES[code])
    return data[start : start + dtype.itemsize * math.prod(shape)].view(dtype).reshape(shape)
