"""Callbacks and plain functions as the loop sees them."""

from typing import Any

import numpy as np
import pytest

from gpunn.errors import ConfigurationError
from gpunn.training.callbacks import Callback, Function, as_callbacks
from gpunn.training.flow import GradientFlow
from tests.training.stage import at


class Counting(Callback):
    def on_step(self, run: Any) -> None:
        run.steps += 1


def test_a_callback_does_nothing_unless_overridden() -> None:
    callback, run = Callback(), at(1)
    callback.on_start(run)
    callback.on_step(run)
    callback.on_epoch(run, {})
    callback.on_end(run)
    assert callback.probe(run) is None


def test_who_is_called_in_every_step() -> None:
    assert Counting().wants_steps
    for callback in (Callback(), GradientFlow(), Function(print)):
        assert not callback.wants_steps


def test_a_function_is_called_with_epoch_and_record() -> None:
    seen: list[Any] = []
    (callback,) = as_callbacks(lambda epoch, record: seen.append((epoch, record)))
    record = {"loss": np.ones(1)}
    callback.on_start(at(0))
    callback.on_epoch(at(1), record)
    callback.on_end(at(1))
    assert seen == [(1, record)] and seen[0][1] is record


def test_one_callback_or_several() -> None:
    one, other = Counting(), GradientFlow()
    assert as_callbacks(None) == ()
    assert as_callbacks(one) == (one,)
    assert as_callbacks([one, other]) == (one, other)
    mixed = as_callbacks([print, one])
    assert isinstance(mixed[0], Function) and mixed[0].function is print and mixed[1] is one


def test_a_callback_that_can_be_called_is_a_callback() -> None:
    class Callable(Callback):
        def __call__(self) -> None: ...

    one = Callable()
    assert as_callbacks([one]) == (one,)


@pytest.mark.parametrize(
    ("given", "got", "fix"),
    [
        (GradientFlow, "<class '.*GradientFlow'>", r"pass an instance, such as GradientFlow\(\)"),
        ([print, Counting], "<class '.*Counting'>", r"pass an instance, such as GradientFlow\(\)"),
        (5, "5", "pass a list of them"),
        ([None], "None", "pass a list of them"),
        ("best", "'b'", "pass a list of them"),
    ],
)
def test_what_is_no_callback(given: Any, got: str, fix: str) -> None:
    message = rf"^callbacks: expected callbacks, or functions f\(epoch, record\), got {got}; {fix}$"
    with pytest.raises(ConfigurationError, match=message):
        as_callbacks(given)
