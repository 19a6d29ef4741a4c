"""Random numbers as functions of (key, step), see `gpunn/randomness.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.operation import SHARED, Arguments, operation
from gpunn.backends.reference import philox
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.reference.backend import Backend


def _axes_of_numbers(arguments: Arguments) -> int:
    return int(arguments["out"].ndim - arguments["key"].ndim + 1)


@operation(writes=["out"], key=1, step=SHARED, out=_axes_of_numbers)
def random_words(ops: Backend, key: Array, step: Array, out: Array) -> Array:
    """Fill uint64 `out` (..., n) for keys (..., 2). A model gets the same words alone and in a population."""
    counter = int(step[0])
    for k in np.ndindex(key.shape[:-1]):
        out[k] = philox.random_words(key[k], counter, out.shape[-1])
    return out


@operation(writes=["out"], key=1, step=SHARED, out=_axes_of_numbers)
def random_bits(ops: Backend, key: Array, step: Array, out: Array) -> Array:
    """Fill uint16 `out` (..., n, d): element e of a model gets the 16 bits of word e // 4 from bit 16 (e % 4) on."""
    size = out[(0,) * (key.ndim - 1)].size
    words = ops.empty((*key.shape[:-1], -(-size // 4)), np.uint64)
    ops.random_words(key, step, out=words)
    out.reshape(*key.shape[:-1], -1)[...] = words.view(np.uint16)[..., :size]
    return out


@operation(writes=["out"], key=1, step=SHARED, out=_axes_of_numbers)
def random_uniform(ops: Backend, key: Array, step: Array, out: Array) -> Array:
    """Fill with uniform numbers in [0, 1): from the high 53 bits of a word for float64, from the high 24 bits of half a
    word, low half first, for float32."""
    size = out[(0,) * (key.ndim - 1)].size
    halves = 2 if out.dtype == np.float32 else 1
    words = ops.empty((*key.shape[:-1], -(-size // halves)), np.uint64)
    ops.random_words(key, step, out=words)
    flat = out.reshape(*key.shape[:-1], -1)
    if halves == 2:
        flat[...] = (words.view(np.uint32)[..., :size] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    else:
        flat[...] = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return out


@operation(writes=["out"], key=1, step=SHARED, out=_axes_of_numbers)
def random_normal(ops: Backend, key: Array, step: Array, out: Array) -> Array:
    """Fill with standard normal numbers; each pair is computed in float64 from a pair of uniform numbers."""
    size = out[(0,) * (key.ndim - 1)].size
    pairs = -(-size // 2)
    uniform = ops.empty((*key.shape[:-1], pairs, 2), np.float64)
    ops.random_uniform(key, step, out=uniform)
    normal = ops.empty(uniform.shape, np.float64)
    ops.elementwise(formulas.normal_pair, (uniform[..., 0], uniform[..., 1]), (normal[..., 0], normal[..., 1]))
    out.reshape(*key.shape[:-1], -1)[...] = normal.reshape(*key.shape[:-1], -1)[..., :size]
    return out


@operation(writes=["out"], key=1, step=SHARED, out=_axes_of_numbers)
def permutation(ops: Backend, key: Array, step: Array, out: Array) -> Array:
    """Fill int64 `out` (..., n) with a shuffle of 0 … n-1.

    It sorts random words that have their index in the low bits: no two are equal, so every sort gives the same order.
    """
    n = out.shape[-1]
    low = np.uint64((1 << max(n - 1, 1).bit_length()) - 1)
    words = out.view(np.uint64)
    ops.random_words(key, step, out=words)
    words &= ~low
    words |= ops.xp.arange(n, dtype=np.uint64)
    words.sort(axis=-1)
    words &= low
    return out
