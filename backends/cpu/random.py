"""Random numbers from NumPy's Philox generator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.reference import random as reference
from gpunn.backends.reference.philox import philox_stream
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.cpu.backend import NumpyBackend

CHUNK = 4096  # random words taken from the generator at once


def permutation(ops: NumpyBackend, key: Array, step: Array, out: Array) -> Array:
    threads, permute = ops.recorder.model_threads, partial(reference.permutation, ops)
    if threads is None or key.shape[:-1] != (threads.models,):
        return permute(key, step, out)
    threads.run([partial(permute, key[models], step, out[models]) for models in threads.ranges])
    return out


def random_words(ops: NumpyBackend, key: Array, step: Array, out: Array) -> Array:
    for part, stream in _chunks(key, step, out):
        part[...] = stream.random_raw(part.size)
    return out


def random_bits(ops: NumpyBackend, key: Array, step: Array, out: Array) -> Array:
    words = ops.scratch.array("words", (*key.shape[:-1], -(-_size(key, out) // 4)), np.uint64)
    ops.random_words(key, step, out=words)
    np.copyto(out.reshape(*key.shape[:-1], -1), words.view(np.uint16)[..., : _size(key, out)])
    return out


def random_uniform(ops: NumpyBackend, key: Array, step: Array, out: Array) -> Array:
    each, bits = (2, 24) if out.dtype == np.float32 else (1, 53)  # numbers from a word; bits of a number
    for part, stream in _chunks(key, step, out):
        words = stream.random_raw(-(-part.size // each))
        integers = words.view(f"u{8 // each}")[: part.size]
        np.right_shift(integers, integers.dtype.type(64 // each - bits), out=integers)
        np.copyto(part, integers, casting="unsafe")
        np.multiply(part, out.dtype.type(2.0**-bits), out=part)
    return out


def random_normal(ops: NumpyBackend, key: Array, step: Array, out: Array) -> Array:
    for part, stream in _chunks(key, step, out):
        words = stream.random_raw(part.size + part.size % 2).reshape(-1, 2)
        np.right_shift(words, np.uint64(11), out=words)
        uniform, normal = (ops.scratch.array(name, words.shape, np.float64) for name in ("uniform", "normal"))
        np.multiply(words, 2.0**-53, out=uniform)
        ops.elementwise(formulas.normal_pair, tuple(uniform.T), (normal[:, 0], normal[:, 1]))
        np.copyto(part, normal.reshape(-1)[: part.size], casting="same_kind")
    return out


def _chunks(key: Array, step: Array, out: Array) -> Iterator[tuple[Array, np.random.Philox]]:
    """Parts of each model's numbers with the generator for them. In parts, because NumPy's generator returns new
    arrays, and the words take several times the memory of the numbers."""
    flat = out.reshape(*key.shape[:-1], -1)
    for k in np.ndindex(key.shape[:-1]):
        stream, row = philox_stream(key[k], int(step[0])), flat[k]
        for start in range(0, row.size, CHUNK):
            yield row[start : start + CHUNK], stream


def _size(key: Array, out: Array) -> int:
    """Numbers for each model."""
    return int(out.size // math.prod(key.shape[:-1]))
