"""Random numbers from Philox. Kernels read key and step on the device, so that each replay draws new numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.backends.cuda import launch
from gpunn.backends.cuda.kernels import BLOCK
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.cuda.backend import CupyBackend


def random_words(ops: CupyBackend, key: Array, step: Array, out: Array) -> Array:
    return _fill(ops, "random_words", key, step, out, 4, np.uint64)


def random_bits(ops: CupyBackend, key: Array, step: Array, out: Array) -> Array:
    return _fill(ops, "random_bits", key, step, out, 16, np.uint16)


def random_uniform(ops: CupyBackend, key: Array, step: Array, out: Array) -> Array:
    if out.dtype == np.float32:
        return _fill(ops, "random_uniform_float", key, step, out, 8, np.float32)
    return _fill(ops, "random_uniform_double", key, step, out, 4, np.float64)


def random_normal(ops: CupyBackend, key: Array, step: Array, out: Array) -> Array:
    return _fill(ops, "random_normal", key, step, out, 4, out.dtype)


def permutation(ops: CupyBackend, key: Array, step: Array, out: Array) -> Array:
    """The sort allocates and waits, so this must run between captured steps and not in one."""
    low = (1 << max(out.shape[-1] - 1, 1).bit_length()) - 1
    words = out.view(np.uint64)
    _fill(ops, "random_tagged", key, step, words, 4, np.uint64, np.uint64(low))
    words.sort(axis=-1)
    ops.xp.bitwise_and(words, np.uint64(low), out=words)
    return out


def _fill(ops: CupyBackend, name: str, key: Array, step: Array, out: Array, each: int, dtype: Any, *more: Any) -> Array:
    """Launch a kernel of `random.cu`; it makes `each` numbers from the four words of a Philox block."""
    models = math.prod(key.shape[:-1])
    shape = tuple(out.shape[key.ndim - 1 :])
    size = math.prod(shape)
    if key.ndim > 2 or key.dtype != np.uint64 or step.dtype.itemsize != 8 or out.dtype != dtype:
        raise launch.IrregularOperandError(f"no kernel for {out.dtype} from keys {key.shape} {key.dtype}")
    types = (("T", out.dtype.name if out.dtype.name in launch.SUMS else "float64"),)
    keys, target = launch.vectors(key, (2,), models), launch.vectors(out, shape, models)
    if size:
        grid = min(launch.blocks(size, each * BLOCK), launch.MOST_BLOCKS), models
        ops.launch("random", name, types, grid, keys, step.view(np.uint64), target, size, *more)
    return out
