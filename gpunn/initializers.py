"""Initial values. They are drawn on the host in float64, so that they are the same on every device.

`fan_in` and `fan_out` are the last two extents of a parameter's shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpunn import hyper
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.fields import number
from gpunn.types import Array, Shape
from gpunn.value import Value

_host = NumpyBackend()


class Initializer(Value, abstract=True):
    """Base: `values(key, shape)` returns the initial values of one parameter; `key` is that of its random stream."""

    family: ClassVar[str] = "initializer"

    def values(self, key: Array, shape: Shape) -> Array:
        raise NotImplementedError(f"{type(self).__name__} needs a values method")


def normal(key: Array, shape: Shape, deviation: float = 1.0) -> Array:
    """Normal numbers from a stream."""
    drawn = _host.random_normal(key, np.zeros(1, np.uint64), np.empty((1, math.prod(shape))))
    drawn *= deviation
    return drawn.reshape(shape)


def uniform(key: Array, shape: Shape) -> Array:
    """Uniform numbers in [0, 1) from a stream."""
    return _host.random_uniform(key, np.zeros(1, np.uint64), np.empty((1, math.prod(shape)))).reshape(shape)


@dataclass(frozen=True)
class Constant(Initializer):
    """All values are the same."""

    field_rules = {"value": number()}

    value: float

    def values(self, key: Array, shape: Shape) -> Array:
        return np.full(shape, float(self.value))


@dataclass(frozen=True)
class Zeros(Initializer):
    """All values are 0: the usual start of a bias."""

    def values(self, key: Array, shape: Shape) -> Array:
        return np.zeros(shape)


@dataclass(frozen=True)
class Gaussian(Initializer):
    """Normal with the given deviation: small weights keep activations small."""

    field_rules = {"deviation": number()}

    deviation: float = 0.01

    def values(self, key: Array, shape: Shape) -> Array:
        return normal(key, shape, self.deviation)


@dataclass(frozen=True)
class Uniform(Initializer):
    """Uniform in [-limit, limit)."""

    field_rules = {"limit": number()}

    limit: float = 0.05

    def values(self, key: Array, shape: Shape) -> Array:
        return self.limit * (2.0 * uniform(key, shape) - 1.0)


@dataclass(frozen=True)
class Glorot(Initializer):
    """Normal with deviation gain √(2 / (fan_in + fan_out)): activations and gradients keep their size."""

    field_rules = {"gain": number()}

    gain: float = 1.0

    def values(self, key: Array, shape: Shape) -> Array:
        return normal(key, shape, self.gain * math.sqrt(2.0 / (shape[-2] + shape[-1])))


@dataclass(frozen=True)
class He(Initializer):
    """Normal with deviation √(2 / fan_in), because ReLU sets half of its inputs to 0."""

    def values(self, key: Array, shape: Shape) -> Array:
        return normal(key, shape, math.sqrt(2.0 / shape[-2]))


@dataclass(frozen=True)
class LeCun(Initializer):
    """Normal with deviation √(1 / fan_in): what SELU's self-normalisation assumes."""

    def values(self, key: Array, shape: Shape) -> Array:
        return normal(key, shape, math.sqrt(1.0 / shape[-2]))


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """gain times a random matrix with orthonormal rows or columns: Q of a normal matrix's QR, with unique signs."""

    field_rules = {"gain": number()}

    gain: float = 1.0

    def values(self, key: Array, shape: Shape) -> Array:
        rows, columns = shape[-2:]
        Q, R = np.linalg.qr(normal(key, (max(rows, columns), min(rows, columns))))
        Q = Q * np.where(np.diag(R) < 0, -1.0, 1.0)
        return self.gain * (Q if rows >= columns else Q.T).reshape(shape)


def for_activation(name: str | None) -> Initializer:
    """The initializer that suits a layer with this activation."""
    if name in ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus"):
        return He()
    return LeCun() if name == "selu" else Glorot()


def known_initializer(where: str, value: Any) -> Initializer:
    """The rule of a field that holds an initializer."""
    expected = "an initializer such as gn.initializers.He()"
    return hyper.instance(where, value, Initializer, expected=expected, fix="make one, with its parentheses")
