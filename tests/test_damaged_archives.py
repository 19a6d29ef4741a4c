"""Files that are no checkpoints, or damaged, or forged: refused with a message and without a large allocation."""

import json
import pickle
import random
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

import gpunn as gn
from gpunn import archive
from gpunn.archive import START, read, write
from gpunn.errors import CheckpointError
from tests.archives import ARRAYS, parts, same, seal, sealed, write_sample
from tests.faults import FORM
from tests.unprivileged import unprivileged


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_sample(tmp_path)


@pytest.fixture
def data(path: Path) -> bytes:
    return path.read_bytes()


def refuses(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"checkpoint '.*file.gpunn'.*: expected {message}") as caught:
        read(path)
    assert re.match(FORM, str(caught.value))


def test_reading_a_missing_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"expected a file to read, got No such file or directory; check the name"
    ):
        read(tmp_path / "missing")


def test_reading_an_archive_without_permission_is_refused(path: Path) -> None:
    path.chmod(0)
    with unprivileged(), pytest.raises(CheckpointError, match="a file to read, got Permission denied; check the name"):
        read(path)


def test_reading_an_archive_without_enough_memory_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", none)
    with pytest.raises(CheckpointError, match="expected memory for all of the file, got less; free some"):
        read(path)


def test_files_that_are_not_archives_are_refused(path: Path) -> None:
    others = [
        b"",
        b"{",
        bytes(100),
        b"PK\x03\x04" * 40,
        pickle.dumps(ARRAYS),
        save({"a": np.zeros(3)}),
    ]
    for other in others:
        refuses(path, other, f"a gpunn checkpoint, got {len(other)} bytes of something else; give one that save wrote")


def test_an_archive_that_is_too_short_or_too_long_is_refused(path: Path, data: bytes) -> None:
    length = int.from_bytes(data[:8], "little")
    assert data[-1:] != b""
    refuses(path, data[:-1], rf"{len(data)} bytes, got {len(data) - 1} bytes; the file was damaged")
    refuses(path, data + b"\0", rf"{len(data)} bytes, got {len(data) + 1} bytes; the file was damaged")
    refuses(path, data[: length - 1], rf"all of its header, got {length - 1} bytes for one of {length}; the file was")


def test_an_archive_with_a_flipped_bit_is_refused(path: Path, data: bytes) -> None:
    changed = bytearray(data)
    changed[-1] ^= 1
    refuses(path, bytes(changed), "SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}; the file was damaged: copy it again")


def test_an_archive_without_a_digest_is_refused(path: Path, data: bytes) -> None:
    refuses(path, data.replace(b'"sha256"', b'"sha257"'), "a header with a digest, got none; the file was damaged")


@pytest.mark.parametrize("length", [0, 1, archive.HEADER_LIMIT + 1, 2**63, 2**64 - 1])
def test_an_archive_with_a_wrong_header_length_is_refused(path: Path, data: bytes, length: int) -> None:
    refuses(path, length.to_bytes(8, "little") + data[8:], rf"all of its header, got \d+ bytes for one of {length};")


def test_an_archive_with_a_header_beyond_the_limit_is_refused(
    path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "HEADER_LIMIT", 100)
    refuses(path, data, rf"all of its header, got {len(data)} bytes for one of \d+;")


def test_an_archive_of_a_newer_format_is_refused_with_advice_to_update(path: Path, data: bytes) -> None:
    """It is not mistaken for damage, whatever else the newer format has changed."""
    header, content = parts(data)
    newer = header.replace(b'"gpunn_format":"1"', b'"gpunn_format":"12"').replace(gn.__version__.encode(), b"3.0", 1)
    message = "format 1 or older, got format 12, written by gpunn 3.0; update gpunn"
    refuses(path, sealed(newer, content), message)
    refuses(path, sealed(newer.replace(b"data_offsets", b"somewhere"), content), message)
    refuses(path, data.replace(b'"gpunn_format":"1"', b'"gpunn_format":"9"'), "SHA-256")


def entry(**changes: Any) -> bytes:
    described = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
    return json.dumps({"a": described}, separators=(",", ":"))[1:].encode()


HOSTILE = {
    "overlap": entry()[:-1] + b"," + entry().replace(b'"a"', b'"b"'),
    "twice": entry()[:-1] + b"," + entry(),
    "beyond the end": entry(data_offsets=[0, 2**63]),
    "negative offset": entry(data_offsets=[-8, 0]),
    "backwards": entry(data_offsets=[8, 0]),
    "gigantic": entry(shape=[2**62]),
    "overflow": entry(shape=[2**32, 2**32]),
    "overflow to 8 bytes": entry(shape=[2**62 + 2]),
    "beyond int64": entry(shape=[2**64 + 2]),
    "gigantic but empty": entry(shape=[2**62, 0], data_offsets=[0, 0]),
    "negative shape": entry(shape=[-1, -2]),
    "shape of floats": entry(shape=[2.0]),
    "shape of bools": entry(shape=[True, 2]),
    "shape of text": entry(shape="2"),
    "shape of a dict": entry(shape={"2": 2}),
    "too many axes": entry(shape=[2] + [1] * 70),
    "many huge axes": entry(shape=[2**62] * 60),
    "unknown dtype": entry(dtype="O"),
    "pickle": entry(dtype="PICKLE"),
    "unhashable dtype": entry(dtype=["F32"]),
    "wide dtype": entry(dtype="F64"),
    "missing field": b'"a":{"dtype":"F32","shape":[2]}}',
    "extra field": entry(extra=1),
    "entry that is a number": b'"a":3}',
    "no array": b'"a":null}',
    "unused data": b'"__other__":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
    "second metadata": b'"__metadata__":[]}',
    "spaces": entry().replace(b":", b" :"),
    "trailing text": entry() + b"x",
    "not closed": entry()[:-1],
    "not ASCII": entry().replace(b'"a"', '"ä"'.encode()),
    "deep": b'"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "long integer": entry(shape=[2]).replace(b"[2]", b"[" + b"9" * 5000 + b"]"),
    "constant": entry().replace(b"[2]", b"[NaN]"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_archives_with_hostile_headers_are_refused_in_little_memory(path: Path, what: str) -> None:
    """Every one has the right lengths and digest."""
    write(path, {"a": np.ones(2, np.float32)}, {})
    header, content = parts(path.read_bytes())
    begin = header.index(b'"a":')
    hostile = header[:begin] + HOSTILE[what]
    assert sealed(header, content) == path.read_bytes() != sealed(hostile, content)
    tracemalloc.start()
    try:
        refuses(
            path, sealed(hostile + b" " * (-len(hostile) % 8), content), "a header as gpunn writes it, got .*; save"
        )
        assert tracemalloc.get_traced_memory()[1] < 20_000_000 + 30 * len(hostile)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "meta",
    ['[]', '3', '{"a":1}', '{"a": 1, "a": 1}', '{"a": 1e999}', '{"a": 01}', '{"a": +1}', '{"a": 1.00}', '{"a": nan}',
     '{"a": -NaN}', '{"a": 1', '{"a": 1} ', "", '{"a": "ä"}', '{"a": 1E5}', '{"a": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_archives_with_hostile_meta_are_refused(path: Path, meta: str) -> None:
    write(path, {}, {"a": 1})
    header, content = parts(path.read_bytes())
    own = json.dumps(json.dumps({"a": 1})).encode()
    assert header.count(own) == 1
    changed = header.rstrip(b" ").replace(own, json.dumps(meta).encode())
    refuses(path, sealed(changed + b" " * (-len(changed) % 8), content), "a header as gpunn writes it, got .*; save it")


@pytest.mark.parametrize("levels", [archive.DEPTH_LIMIT + 1, 100_000])
def test_archives_with_meta_beyond_the_depth_limit_are_refused(path: Path, levels: int) -> None:
    write(path, {}, {"a": 1})
    header, content = parts(path.read_bytes())
    changed = header.rstrip(b" ").replace(b": 1", b": " + b"[" * levels + b"]" * levels)
    message = "at most 650 levels of nesting, got more; store it flatter"
    refuses(path, sealed(changed + b" " * (-len(changed) % 8), content), message)


def test_reading_an_archive_unpickles_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, never)
    assert same(read(path)[0], ARRAYS)


# Files that were changed at random


def mutations(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """Damage of every kind without end."""
    length = int.from_bytes(data[:8], "little")
    while True:
        changed, place = bytearray(data), rng.randrange(len(data))
        kind = rng.randrange(8)
        if kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[place:]
        elif kind == 2:
            changed[place:place] = rng.randbytes(rng.randint(1, 9))
        elif kind == 3:
            del changed[place : place + rng.randint(1, 9)]
        elif kind == 4:
            changed[place : place + 4] = rng.randbytes(4)
        elif kind == 5:
            changed[:8] = rng.choice([rng.randrange(2 * length), rng.getrandbits(64)]).to_bytes(8, "little")
        else:  # something of the header becomes something else of its kind, or moves
            pieces = re.findall(rb'"[^"]*"|\d+|[\[\]{},:]|[^"\d\[\]{},:]+', bytes(changed[8 : 8 + length]))
            a, b = rng.randrange(len(pieces)), rng.randrange(len(pieces))
            alike = [p for p in pieces if p[:1].isdigit() == pieces[a][:1].isdigit()]
            if kind == 6:
                pieces[a] = rng.choice([*alike, b"-1", b"1e3", b"null", b"18446744073709551616"])
            else:
                pieces[a], pieces[b] = pieces[b], pieces[a]
            header = b"".join(pieces)
            changed = bytearray(len(header).to_bytes(8, "little") + header + data[8 + length :])
        if changed != data:
            yield bytes(changed)


def test_archives_with_random_damage_are_refused(path: Path, data: bytes) -> None:
    for _, changed in zip(range(2000), mutations(data, random.Random(1))):
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=FORM):
            read(path)


def test_an_archive_with_any_bit_flipped_is_refused(path: Path) -> None:
    write(path, {"a": np.arange(3, dtype=np.int16)}, {"a": 1})
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=FORM):
            read(path)


def test_forged_archives_are_refused_or_could_have_been_written_by_gpunn(path: Path, data: bytes) -> None:
    """The digest is corrected; a file that is accepted has exactly the bytes that writing its content gives."""
    rng, loaded, refused = random.Random(2), 0, 0
    for _, changed in zip(range(2000), mutations(data, rng)):
        if len(changed) < 8:
            continue
        forged = seal(changed)
        path.write_bytes(forged)
        try:
            arrays, meta = read(path)
        except CheckpointError:
            refused += 1
            continue
        loaded += 1
        version = START.match(forged[8:])
        assert version is not None
        header, starts = archive._header(
            {name: archive._spec("", name, array) for name, array in arrays.items()},
            json.dumps(meta),
            version[2].decode(),
        )
        pieces = archive._pieces(header, [arrays[name] for name in starts])
        assert sealed(*parts(b"".join(pieces))) == forged
    assert loaded > 50 and refused > 500
