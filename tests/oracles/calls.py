"""A call of one of PyTorch's functions, and gpunn's answer to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpunn.backends.reference.backend import Backend

Key = str | int  # of a tensor in a call: "input", the position among `args`, or a keyword


@dataclass(frozen=True)
class Call:
    """One call of a PyTorch function, tensors as NumPy arrays."""

    name: str
    input: np.ndarray
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    training: bool = True  # the mode of a module

    def get(self, position: int, keyword: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(keyword, default)

    def __str__(self) -> str:
        given = [shown(a) for a in (self.input, *self.args)] + [f"{k}={shown(v)}" for k, v in self.kwargs.items()]
        return f"{self.name}({', '.join(given)})"


def shown(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)


@dataclass(frozen=True)
class Answer:
    """What gpunn says: the output, gradients, and the values of the tensors that the call changes."""

    output: np.ndarray
    gradients: dict[Key, np.ndarray]
    changed: dict[Key, np.ndarray] = field(default_factory=dict)
    sizes: dict[Key, float] = field(default_factory=dict)  # of the terms of a sum, where they cancel each other


Expression = Callable[[Backend, Call, np.ndarray], Answer]  # the last is the gradient at the output
EXPRESSIONS: dict[str, Expression] = {}
LOSSES: set[str] = set()  # their first argument is the target, for which gpunn has no gradient


def with_rows(X: np.ndarray) -> np.ndarray:
    """A scalar or a vector as one row; all else as it is."""
    return X if X.ndim > 1 else X.reshape(1, -1)


def expresses(*names: str, loss: bool = False) -> Callable[[Expression], Expression]:
    def register(function: Expression) -> Expression:
        EXPRESSIONS.update(dict.fromkeys(names, function))
        LOSSES.update(names if loss else ())
        return function

    return register
