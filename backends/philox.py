"""Philox4x64-10 on the host; NumPy has it in C. `gpunn/randomness.py` says how streams are keyed and counted."""

from __future__ import annotations

import numpy as np

from gpunn.types import Array


def philox_stream(key: Array, step: int) -> np.random.Philox:
    """A generator that stands before the first word of a stream; NumPy counts up before it makes a block."""
    return np.random.Philox(counter=np.array([0, step, 0, 0], np.uint64), key=key)


def random_words(key: Array, step: int, count: int) -> Array:
    """The first `count` words of a stream at a step."""
    return np.asarray(philox_stream(key, step).random_raw(count), np.uint64)
