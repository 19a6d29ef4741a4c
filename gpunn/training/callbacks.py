"""Callbacks: methods or functions that a training calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from gpunn.errors import ConfigurationError
from gpunn.passes import Pass
from gpunn.training.history import History
from gpunn.training.probe import FlowProbe
from gpunn.types import Array


class Run(Protocol):
    """The training as callbacks see it. Epochs count from 1; before the first one `epoch` is 0."""

    network: Any
    history: History

    @property
    def epoch(self) -> int: ...

    def stop(self, reason: str) -> None:
        """End the training after this epoch, or, from `on_step`, after this step."""


class Callback:
    """Base: override the methods you need. All but `on_step` are called between epochs, after the device was read."""

    def on_start(self, run: Run) -> None:
        """Before the first step."""

    def on_epoch(self, run: Run, record: Mapping[str, Array]) -> None:
        """After each epoch; `record` has arrays of one number for each model. `history` has the epoch already."""

    def on_step(self, run: Run) -> None:
        """After each update. If it is overridden, every step waits for it: slow on CUDA."""

    def on_end(self, run: Run) -> None:
        """When training has ended, also by an error."""

    def probe(self, run_pass: Pass) -> FlowProbe | None:
        """Return a probe that measures the last step of every epoch, which uses this pass; None for none."""
        return None

    @property
    def wants_steps(self) -> bool:
        return type(self).on_step is not Callback.on_step


class Function(Callback):
    """A function f(epoch, record), called after each epoch."""

    def __init__(self, function: Callable[[int, Mapping[str, Array]], Any]) -> None:
        self.function = function

    def on_epoch(self, run: Run, record: Mapping[str, Array]) -> None:
        self.function(run.epoch, record)


# The methods of a callback and their arguments; and the names of such methods in other libraries.
EVENTS = {
    "on_start": ("run",), "on_epoch": ("run", "record"), "on_step": ("run",), "on_end": ("run",), "probe": ("run_pass",)
}  # fmt: skip
HABITS = {
    "on_train_begin": "on_start", "on_train_start": "on_start", "on_fit_start": "on_start",
    "on_epoch_end": "on_epoch", "on_train_epoch_end": "on_epoch", "on_validation_epoch_end": "on_epoch",
    "on_batch_end": "on_step", "on_train_batch_end": "on_step", "on_step_end": "on_step",
    "on_train_end": "on_end", "on_fit_end": "on_end",
}  # fmt: skip


def as_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """None, one callback or function, or several, as a tuple of callbacks."""
    given = () if callbacks is None else tuple(callbacks) if isinstance(callbacks, Iterable) else (callbacks,)
    for callback in given:
        if isinstance(callback, type) or not (isinstance(callback, Callback) or callable(callback)):
            raise ConfigurationError(
                "callbacks",
                expected="callbacks, or functions f(epoch, record)",
                got=repr(callback),
                fix=_hint(callback),
            )
        if isinstance(callback, Callback):
            _check_methods(callback)
        else:
            _check_arguments("callbacks", callback, ("epoch", "record"))
    return tuple(callback if isinstance(callback, Callback) else Function(callback) for callback in given)


def _hint(given: Any) -> str:
    if isinstance(given, type):
        return "pass an instance, such as GradientFlow()"
    if any(hasattr(given, name) for name in (*EVENTS, *HABITS)):
        return "derive its class from gn.Callback"
    return "pass a list of them"


def _check_methods(callback: Callback) -> None:
    """Raise an error unless each method takes its arguments and none has another library's name."""
    kind = type(callback).__name__
    for name, ours in HABITS.items():
        if hasattr(callback, name) and getattr(type(callback), ours) is getattr(Callback, ours):
            raise ConfigurationError(
                f"callbacks {kind}", expected=f"a method {ours}", got=f"one called {name}", fix=f"call it {ours}"
            )
    for name, arguments in EVENTS.items():
        _check_arguments(f"callbacks {kind}.{name}", getattr(callback, name), arguments)


def _check_arguments(where: str, function: Any, arguments: tuple[str, ...]) -> None:
    """Raise an error unless the function takes these arguments, as far as Python can tell."""
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:  # some functions in C do not tell their arguments
        return
    except TypeError as error:
        raise ConfigurationError(
            where,
            expected=f"a function of ({', '.join(arguments)})",
            got=str(error)[:200],
            fix="give it these arguments",
        ) from None


def probes_of(callbacks: Iterable[Callback], run_pass: Pass) -> list[FlowProbe]:
    """The probes of all callbacks for this pass."""
    probes = []
    for callback in callbacks:
        probe = callback.probe(run_pass)
        if not (probe is None or isinstance(probe, FlowProbe)):
            raise ConfigurationError(
                f"callbacks {type(callback).__name__}.probe",
                expected="a FlowProbe, or None",
                got=repr(probe)[:200],
                fix="leave the method out where nothing is to be measured",
            )
        probes += [] if probe is None else [probe]
    return probes
