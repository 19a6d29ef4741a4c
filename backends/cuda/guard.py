"""What surrounds the work of a CUDA device: whose arrays it takes, whose turn it is, and whether the device is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from gpunn.backends.cuda.detection import raise_if_lost
from gpunn.backends.operation import Operation

Method = TypeVar("Method", bound=Callable[..., Any])


def guarded(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that refuses NumPy's arrays before anything is computed, since a kernel would take one element for a
    number or an address; for the rest as `in_turn`."""

    @wraps(function)
    def call(ops: Any, *arguments: Any, **options: Any) -> Any:
        for _, array in operation.arrays(operation.named(arguments, options)):
            if isinstance(array, np.ndarray):
                ops.require(operation.name, array)
        try:
            with ops.turns:
                return function(ops, *arguments, **options)
        except RuntimeError as error:
            raise_if_lost(error, ops.device)
            raise

    return call


def in_turn(method: Method) -> Method:
    """A method that waits for its turn among threads, and says so where CUDA's error means that the device is lost."""

    @wraps(method)
    def call(ops: Any, *arguments: Any, **options: Any) -> Any:
        with ops.turns:
            return method(ops, *arguments, **options)

    return waiting(call)  # type: ignore[return-value]


def waiting(method: Method) -> Method:
    """As `in_turn`, of a method that waits for the device: other threads give it work meanwhile."""

    @wraps(method)
    def call(ops: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return method(ops, *arguments, **options)
        except RuntimeError as error:
            raise_if_lost(error, ops.device)
            raise

    return call  # type: ignore[return-value]
