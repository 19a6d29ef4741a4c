"""Data sets without a download: the UCI digits, and generated ones that size and seed determine to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np

from gpunn import hyper
from gpunn.backends.reference.backend import Backend
from gpunn.data.arrays import from_arrays
from gpunn.data.table import Host, Table
from gpunn.randomness import Purpose, check_seeds, stream_key


def digits() -> Table:
    """1,797 handwritten digits of 8 × 8 pixels from 0 to 16: UCI's optical digits, the test set, CC BY 4.0."""
    with resources.files("gpunn.data").joinpath("digits.npz").open("rb") as file, np.load(file) as content:
        return from_arrays("digits", {"pixel": content["X"], "digit": content["y"]}, "digit")


def spirals(n: int = 1000, *, seed: int = 0, noise: float = 0.05) -> Table:
    """Two spirals around each other, one and a half turns each: x = ±r(t) (cos t, sin t), r = t / (3 π)."""
    uniform, normal = _random("spirals", n, seed, 1, 2)
    t = 3.0 * math.pi * np.sqrt(uniform[:, 0])  # equal lengths of the curve get equally many points
    y = np.arange(n) % 2
    side = (1 - 2 * y) * t / (3.0 * math.pi)
    X = np.stack([side * np.cos(t), side * np.sin(t)], axis=1) + _noise("spirals", noise) * normal
    return from_arrays("spirals", {"x": X, "y": y}, "y")


def moons(n: int = 1000, *, seed: int = 0, noise: float = 0.15) -> Table:
    """Two half circles of radius 1 that reach into each other."""
    uniform, normal = _random("moons", n, seed, 1, 2)
    t = math.pi * uniform[:, 0]
    y = np.arange(n) % 2
    upper, lower = (np.cos(t), np.sin(t)), (1.0 - np.cos(t), 0.5 - np.sin(t))
    X = np.where(y == 0, upper, lower).T + _noise("moons", noise) * normal
    return from_arrays("moons", {"x": X, "y": y}, "y")


def friedman(n: int = 1000, *, seed: int = 0, noise: float = 1.0) -> Table:
    """Friedman's first regression: y = 10 sin(π x0 x1) + 20 (x2 - ½)² + 10 x3 + 5 x4 + noise, x0 … x9 uniform."""
    X, normal = _random("friedman", n, seed, 10, 1)
    x = X.T
    y = 10.0 * np.sin(math.pi * x[0] * x[1]) + 20.0 * (x[2] - 0.5) ** 2 + 10.0 * x[3] + 5.0 * x[4]
    return from_arrays("friedman", {"x": X, "y": y + _noise("friedman", noise) * normal[:, 0]}, "y")


BUILT_IN: dict[str, Callable[[], Table]] = {
    "digits": digits, "spirals": spirals, "moons": moons, "friedman": friedman,
}  # fmt: skip


def _random(name: str, n: Any, seed: Any, uniforms: int, normals: int) -> tuple[Host, Host]:
    """(n, uniforms) in [0, 1) and (n, normals), from the counter-based streams of this seed."""
    n, seed = hyper.whole(f"{name} n", n, low=2), check_seeds(seed, None)[0]
    ops, first = Backend(), np.zeros(1, np.uint64)
    uniform = ops.random_uniform(stream_key(seed, Purpose.DATA, 0), first, ops.empty((n, uniforms), np.float64))
    normal = ops.random_normal(stream_key(seed, Purpose.DATA, 1), first, ops.empty((n, normals), np.float64))
    return uniform, normal


def _noise(name: str, noise: Any) -> float:
    return hyper.number(f"{name} noise", noise, low=0.0)
