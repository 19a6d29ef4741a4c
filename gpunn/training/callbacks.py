"""What looks on while a network trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from gpunn.errors import ConfigurationError
from gpunn.passes import Pass
from gpunn.training.history import History
from gpunn.training.probe import FlowProbe
from gpunn.types import Array


class Run(Protocol):
    """What a callback is shown of a training. Epochs count from 1; before the first one `epoch` is 0."""

    network: Any
    epoch: int
    history: History

    def stop(self, reason: str) -> None:
        """End the training after this epoch, or, from `on_step`, after this step."""


class Callback:
    """Base: override what is needed. All but `on_step` are called between epochs, when the device has been read."""

    def on_start(self, run: Run) -> None:
        """Before the first step."""

    def on_epoch(self, run: Run, record: Mapping[str, Array]) -> None:
        """After each epoch; `record` has arrays of one number for each model, as `history` has by then."""

    def on_step(self, run: Run) -> None:
        """After each update. Overriding it costs a round trip to the device in every step: slow on CUDA."""

    def on_end(self, run: Run) -> None:
        """When training has ended, however it did."""

    def probe(self, run_pass: Pass) -> FlowProbe | None:
        """What is to be measured in the last step of every epoch, which is made by this pass."""
        return None

    @property
    def wants_steps(self) -> bool:
        return type(self).on_step is not Callback.on_step


class Function(Callback):
    """A plain function f(epoch, record), called after each epoch."""

    def __init__(self, function: Callable[[int, Mapping[str, Array]], Any]) -> None:
        self.function = function

    def on_epoch(self, run: Run, record: Mapping[str, Array]) -> None:
        self.function(run.epoch, record)


def as_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """None, one callback or function, or several, as a tuple of callbacks."""
    given = () if callbacks is None else tuple(callbacks) if isinstance(callbacks, Iterable) else (callbacks,)
    for callback in given:
        if isinstance(callback, type) or not (isinstance(callback, Callback) or callable(callback)):
            raise ConfigurationError(
                "callbacks",
                expected="callbacks, or functions f(epoch, record)",
                got=repr(callback),
                fix="pass an instance, such as GradientFlow()" if isinstance(callback, type) else "pass a list of them",
            )
    return tuple(callback if isinstance(callback, Callback) else Function(callback) for callback in given)
