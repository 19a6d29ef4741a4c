"""Wraps operations and methods of the CUDA backend: checks arrays, gives threads turns, and reports a lost device."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from gpunn.backends.cuda.detection import raise_if_lost
from gpunn.backends.operation import Operation

Method = TypeVar("Method", bound=Callable[..., Any])


def guarded(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an operation: it raises an error for NumPy's arrays, of which a kernel would read one element as a number or
    an address; else as `in_turn`."""

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
    """Wrap a method: it waits for its turn among threads, and raises a DeviceLostError if the device is lost."""

    @wraps(method)
    def call(ops: Any, *arguments: Any, **options: Any) -> Any:
        with ops.turns:
            return method(ops, *arguments, **options)

    return reports_lost_device(call)  # type: ignore[return-value]


def reports_lost_device(method: Method) -> Method:
    """Wrap a method: it raises a DeviceLostError if the device is lost. It takes no turn: methods that wait for the
    device must not stop other threads."""

    @wraps(method)
    def call(ops: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return method(ops, *arguments, **options)
        except RuntimeError as error:
            raise_if_lost(error, ops.device)
            raise

    return call  # type: ignore[return-value]
