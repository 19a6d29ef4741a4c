"""The precision of a network: one dtype for everything, or half precision with values stored in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError
from gpunn.hyper import choice

ON_CUDA = {"tf32": "float32", "float16": "float16", "bfloat16": "bfloat16"}  # the dtype of activations


@dataclass(frozen=True)
class Precision:
    """`dtype` is used for values, gradients, moments, statistics, losses and sums; `compute` for activations and for
    the copies of weights that products read."""

    name: str  # as in Network(dtype=) and in files
    dtype: np.dtype[Any]
    compute: np.dtype[Any]

    @property
    def half(self) -> bool:
        return self.compute != self.dtype

    @property
    def scales_loss(self) -> bool:
        """Whether gradients may be too small for the compute dtype; bfloat16 has the range of float32."""
        return self.compute == np.float16

    @property
    def range(self) -> np.dtype[Any]:
        """The dtype in whose range inputs must be."""
        return self.compute if self.scales_loss else self.dtype

    @property
    def whole(self) -> int:
        """Whole numbers up to this one are exact in the compute dtype."""
        bits = {"bfloat16": 8, "float16": 11, "float32": 24}.get(self.compute.name, 53)
        return 1 << bits


def precision(name: Any, ops: Backend) -> Precision:
    """The precision with this name; raise an error unless the device has it."""
    text = name if isinstance(name, str) else getattr(name, "__name__", str(name))
    if text in ON_CUDA and text not in ops.precisions:
        raise ConfigurationError(
            "Network dtype",
            expected=f"{' or '.join(map(repr, ops.precisions))} on {ops.device}",
            got=repr(text),
            fix='use device="cuda", or dtype="float32": NumPy has no fast products of that kind',
        )
    choice("Network dtype", text, ops.precisions)
    ops.of_precision(text)  # first: it may have to teach NumPy the type
    return Precision(text, np.dtype(stored_dtype(text)), np.dtype(ON_CUDA.get(text, text)))


def stored_dtype(name: str) -> str:
    """The name of the dtype in which a network of this precision stores its values."""
    return "float32" if name in ON_CUDA else name
