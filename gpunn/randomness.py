"""Random numbers as a function: Philox4x64-10 with key (seed, purpose, layer) and counter (block, step).

Word i of a stream is lane i % 4 of block i // 4 + 1, so a stream can be read from any place on any device, and
model k of a population draws the same numbers as it would alone. The number of a layer or parameter in the key is the
CRC-32 of its path, so it does not depend on other layers. NumPy has the generator in C; CUDA has `kernels/random.cu`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from gpunn.errors import ConfigurationError
from gpunn.hyper import shown

LIMIT = 2**63


class Purpose(IntEnum):
    """The use of a stream: streams for different uses of one seed share no numbers."""

    INITIAL = 0
    SHUFFLE = 1
    SAMPLE = 2
    LAYER = 3
    SPLIT = 4
    DATA = 5


def stream_key(seed: int, purpose: Purpose, number: int = 0) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The 128-bit key of a stream; `number` distinguishes layers or parameters with the same purpose."""
    return np.array([seed, (int(purpose) << 32) | number], np.uint64)


def check_seeds(seed: Any, models: int | None) -> tuple[int, ...]:
    """One seed for each model: as given, or counted up from a single one."""
    several = isinstance(seed, (list, tuple, range)) or (isinstance(seed, np.ndarray) and seed.ndim > 0)
    if several and len(seed) != models:
        raise ConfigurationError(
            "Network seed",
            expected="one seed" if models is None else f"one seed or {models} of them",
            got=f"{len(seed)} seeds",
            fix="set models= to the number of seeds",
        )
    seeds = tuple(seed) if several else None
    given = seeds if seeds is not None else (seed,)
    for value in given:
        number = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        last = 0 if several or not models else models - 1  # a single seed is counted up
        if not number or not 0 <= value < LIMIT - last:
            raise ConfigurationError(
                "Network seed",
                expected="integers from 0 to 2**63 - 1",
                got=shown(value),
                fix="pass seed=0 or a list of one seed for each model",
            )
    if seeds is None:
        return tuple(int(seed) + k for k in range(models or 1))
    return tuple(int(value) for value in seeds)
