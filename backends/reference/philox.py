"""Philox4x64-10 on the host, computed by NumPy; `gpunn/randomness.py` defines the keys and counters of streams."""

from __future__ import annotations

import threading

import numpy as np

from gpunn.types import Array


class _Generator(threading.local):
    """A generator for each thread. To set its state takes an eighth of the time that a new one takes."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(0)
        self.state = self.philox.state  # before its first block


_generator = _Generator()


def philox_stream(key: Array, step: int) -> np.random.Philox:
    """The thread's generator, set to the start of a stream. NumPy counts up before a block: the first has counter 1."""
    place = _generator.state["state"]
    place["counter"][:] = 0, step, 0, 0
    place["key"][:] = key
    _generator.philox.state = _generator.state
    return _generator.philox


def random_words(key: Array, step: int, count: int) -> Array:
    """The first `count` words of a stream at a step."""
    return np.asarray(philox_stream(key, step).random_raw(count), np.uint64)
