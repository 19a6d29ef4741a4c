"""What a network computes in: one dtype throughout, or half precision around values kept in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError
from gpunn.hyper import choice

ON_CUDA = {"tf32": "float32", "float16": "float16", "bfloat16": "bfloat16"}  # what activations are kept in


@dataclass(frozen=True)
class Precision:
    """Values, gradients, moments, statistics, losses and sums are of `dtype`; activations, and the copies of weights
    that products read, of `compute`."""

    name: str  # as networks are told, and files say it
    dtype: np.dtype[Any]
    compute: np.dtype[Any]

    @property
    def half(self) -> bool:
        return self.compute != self.dtype

    @property
    def scales_loss(self) -> bool:
        """Whether gradients may fall below the smallest number of the compute type; bfloat16 has float32's range."""
        return self.compute == np.float16

    @property
    def range(self) -> np.dtype[Any]:
        """The dtype whose range inputs must lie in."""
        return self.compute if self.scales_loss else self.dtype

    @property
    def whole(self) -> int:
        """Up to this number every whole one is exact in the compute type."""
        bits = {"bfloat16": 8, "float16": 11, "float32": 24}.get(self.compute.name, 53)
        return 1 << bits


def precision(name: Any, ops: Backend) -> Precision:
    """The precision of this name on a device that has it."""
    text = name if isinstance(name, str) else getattr(name, "__name__", str(name))
    if text in ON_CUDA and text not in ops.precisions:
        raise ConfigurationError(
            "Network dtype",
            expected=f"{' or '.join(map(repr, ops.precisions))} on {ops.device}",
            got=repr(text),
            fix='use device="cuda", or dtype="float32": NumPy has no fast products of that kind',
        )
    choice("Network dtype", text, ops.precisions)
    ops.of_precision(text)  # before NumPy is asked for a type that it may have to be told of
    return Precision(text, np.dtype(stored_dtype(text)), np.dtype(ON_CUDA.get(text, text)))


def stored_dtype(name: str) -> str:
    """What the values of a network of this precision are stored in."""
    return "float32" if name in ON_CUDA else name
