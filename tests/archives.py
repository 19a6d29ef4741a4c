"""Arrays and JSON to store, exact comparisons, and forged digests, for the tests of files."""

import hashlib
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.archive import NO_DIGEST, write

ARRAYS = {
    "0.W": np.arange(6, dtype=np.float32).reshape(2, 3),
    "flags": np.array([True, False, True]),
    "größe/統計": np.array([[1.5]], np.float64),
    "step": np.array(2**64 - 1, np.uint64),
    "none": np.zeros((3, 0), np.float16),
}
META = {"name": "naïve \U0001f600", "history": {"loss": [0.1, math.inf, -0.0]}, "big": 2**64, "none": None, "no": False}


def write_sample(folder: Path) -> Path:
    """A new archive of these arrays and this JSON."""
    path = folder / "file.gpunn"
    write(path, ARRAYS, META)
    return path


def bits(value: Any) -> Any:
    """A JSON value in which equal means equal to the last bit; tuples are lists, NaN is NaN."""
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [bits(item) for item in value]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return type(value), value


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return list(a) == list(b) and all(
        (a[k].dtype, a[k].shape, a[k].tobytes()) == (b[k].dtype, b[k].shape, b[k].tobytes()) for k in a
    )


def seal(data: bytes) -> bytes:
    """The bytes with their lengths and digest corrected, as somebody with bad intentions would do."""
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    return sealed(header, data[8 + len(header) :])


def sealed(header: bytes, content: bytes) -> bytes:
    header = re.sub(rb'"data_bytes":"\d+"', b'"data_bytes":"%d"' % len(content), header, count=1)
    header = re.sub(rb'"sha256":"[0-9a-f]{64}"', b'"sha256":"%s"' % NO_DIGEST.encode(), header, count=1)
    data = len(header).to_bytes(8, "little") + header + content
    return data.replace(NO_DIGEST.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def parts(data: bytes) -> tuple[bytes, bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]
