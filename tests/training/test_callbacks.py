"""Callbacks and plain functions as the loop sees them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError
from gpunn.training.callbacks import Callback, Function, as_callbacks
from gpunn.training.flow import GradientFlow
from gpunn.training.stopping import Stopping
from tests.training.stage import at


class Counting(Callback):
    def on_step(self, run: Any) -> None:
        run.steps += 1


def test_a_callback_without_methods_does_nothing() -> None:
    callback, run = Callback(), at(1)
    callback.on_start(run)
    callback.on_step(run)
    callback.on_epoch(run, {})
    callback.on_end(run)
    assert callback.probe(run) is None


def test_only_a_callback_with_on_step_is_called_in_every_step() -> None:
    assert Counting().wants_steps
    for callback in (Callback(), GradientFlow(), Function(print)):
        assert not callback.wants_steps


def test_a_function_as_callback_is_called_with_epoch_and_record() -> None:
    seen: list[Any] = []
    (callback,) = as_callbacks(lambda epoch, record: seen.append((epoch, record)))
    record = {"loss": np.ones(1)}
    callback.on_start(at(0))
    callback.on_epoch(at(1), record)
    callback.on_end(at(1))
    assert seen == [(1, record)] and seen[0][1] is record


def test_callbacks_may_be_one_or_several() -> None:
    one, other = Counting(), GradientFlow()
    assert as_callbacks(None) == ()
    assert as_callbacks(one) == (one,)
    assert as_callbacks([one, other]) == (one, other)
    mixed = as_callbacks([print, one])
    assert isinstance(mixed[0], Function) and mixed[0].function is print and mixed[1] is one


def test_a_callback_object_that_is_callable_is_used_as_a_callback() -> None:
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
def test_values_that_are_not_callbacks_are_refused(given: Any, got: str, fix: str) -> None:
    message = rf"^callbacks: expected callbacks, or functions f\(epoch, record\), got {got}; {fix}$"
    with pytest.raises(ConfigurationError, match=message):
        as_callbacks(given)


class Duck:
    """A callback of another library."""

    def on_epoch(self, run: Any, record: Any) -> None: ...


class Keras(Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None: ...


class Both(Keras):
    """A callback of gpunn and of another library at once, which is allowed."""

    def on_epoch(self, run: Any, record: Any) -> None: ...


class NoMethod(Callback):
    on_end = None  # type: ignore[assignment]


class NoRecord(Callback):
    def on_epoch(self, run: Any) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([object()], r"^callbacks: .*, got <object object .*>; pass a list of them$"),
        ([object], r"^callbacks: .*, got <class 'object'>; pass an instance"),
        (Duck(), r"^callbacks: .*Duck object .*>; derive its class from gn.Callback$"),
        (Keras(), r"^callbacks Keras: expected a method on_epoch, got one called on_epoch_end; call it on_epoch$"),
        (
            NoMethod(),
            r"^callbacks NoMethod.on_end: expected a function of \(run\), got None is not a callable object; g",
        ),
        (NoRecord(), r"^callbacks NoRecord.on_epoch: expected a function of \(run, record\), got too many positional"),
        (
            lambda record: None,
            r"^callbacks: expected a function of \(epoch, record\), got too many positional argument",
        ),
        (
            lambda: None,
            r"^callbacks: expected a function of \(epoch, record\), got too many positional arguments; give",
        ),
        (
            lambda a, b, c: None,
            r"^callbacks: expected a function of \(epoch, record\), got missing a required argument",
        ),
    ],
)
def test_functions_that_could_never_be_called_as_callbacks_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        as_callbacks(given)


def test_functions_with_any_fitting_signature_are_taken_as_callbacks() -> None:
    for given in (Both(), print, max, lambda *both: None, lambda epoch, record, more=1: None):
        assert len(as_callbacks([given])) == 1


# In a training

X = np.random.default_rng(0).normal(size=(40, 4))
Y = np.random.default_rng(1).integers(0, 3, 40)


def fit(net: gn.Network, **options: Any) -> gn.History:
    settings = {"loss": gn.CrossEntropy(), "optimizer": gn.SGD(0.1), "epochs": 3, "batch_size": 8}
    return net.fit(X, Y, **{**settings, **options})


def network(models: int | None = None) -> gn.Network:
    return gn.Network([gn.Dense(6, "tanh"), gn.Dense(3)], 4, device="cpu", dtype="float64", models=models)


class Calls(Callback):
    """Calls a function at one event, and keeps the run."""

    def __init__(self, event: str, function: Any) -> None:
        setattr(self, event, lambda run, *record: function(run))


@pytest.mark.parametrize("reason", [5, None, "", "  ", b"late", ["late"], 0.5, True])
@pytest.mark.parametrize("event", ["on_start", "on_epoch"])
def test_stopping_a_training_needs_a_reason_in_words(tmp_path: Path, event: str, reason: Any) -> None:
    runs: list[Any] = []

    def stop(run: Any) -> None:
        runs.append(run)
        run.stop(reason)

    with pytest.raises(ConfigurationError, match=r"^run.stop: expected a reason in words, got .*; say why it ends$"):
        fit(network(), callbacks=Calls(event, stop), checkpoint=tmp_path / "run.gpunn")
    assert runs[0].standing.stopped == [""] and runs[0].history.stopped == "failed"


def test_the_reason_for_stopping_goes_into_history_and_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.gpunn"
    history = fit(network(), callbacks=Calls("on_epoch", lambda run: run.stop("seen enough")), checkpoint=path)
    assert history.stopped == "seen enough" and history.epochs == 1
    again = fit(network(), resume=path)
    assert again.stopped == "seen enough" and gn.History.from_json(again.to_json()) == again


def test_a_callback_cannot_change_the_count_of_epochs() -> None:
    seen: list[int] = []

    def put(run: Any) -> None:
        seen.append(run.epoch)
        with pytest.raises(AttributeError, match="epoch"):
            run.epoch = 100

    fit(network(), callbacks=[Calls("on_epoch", put), lambda epoch, record: seen.append(epoch)])
    assert seen == [1, 1, 2, 2, 3, 3]


def refused(match: str, **options: Any) -> None:
    """Fitting with these options is refused, and the network has not changed."""
    net = network()
    before = net.vector.tobytes()
    with pytest.raises(ConfigurationError, match=match):
        fit(net, **options)
    assert net.vector.tobytes() == before


def test_a_callback_with_a_bad_probe_is_refused() -> None:
    class Wrong(Callback):
        def probe(self, run_pass: Any) -> Any:
            return 5

    refused(r"^callbacks Wrong.probe: expected a FlowProbe, or None, got 5; leave", callbacks=Wrong())


class Ended(Exception):
    pass


def fail(run: Any) -> None:
    raise Ended(f"after {run.epoch}")


@pytest.mark.parametrize("event", ["on_start", "on_epoch", "on_end"])
def test_every_callback_is_called_at_the_end_even_if_another_fails(event: str) -> None:
    """Whether the failing callback comes before or after it."""
    told: list[str] = []
    first = Calls("on_end", lambda run: told.append(f"first: {run.history.stopped}"))
    last = Calls("on_end", lambda run: told.append(f"last: {run.history.stopped}"))
    with pytest.raises(Ended):
        fit(network(), callbacks=[first, Calls(event, fail), last])
    stopped = "finished 3 epochs" if event == "on_end" else "failed"
    assert told == [f"first: {stopped}", f"last: {stopped}"]


def test_the_errors_of_two_callbacks_at_the_end_are_both_reported() -> None:
    with pytest.raises(Ended) as error:
        fit(network(), callbacks=[Calls("on_end", lambda run: 1 / 0), Calls("on_end", fail)])
    assert isinstance(error.value.__context__, ZeroDivisionError)


# Criteria of users


def criterion(name: str, told: Any, *, kept: Any = None, why: Any = None) -> Any:
    """A stopping criterion with this judgement, reason and state, right or wrong."""

    class Own(Stopping, abstract=True):
        def monitored(self, names: Any) -> str:
            return "loss"

        def start(self, models: int) -> Any:
            return {} if kept is None else kept

        def judge(self, state: Any, record: Any) -> Any:
            return told

        @property
        def reason(self) -> str:
            return super().reason if why is None else why

    Own.__name__ = name
    return dataclass(frozen=True)(Own)()


@pytest.mark.parametrize(
    ("models", "told", "got"),
    [
        (2, True, r"2 truth values, got bool of shape \(\)"),
        (2, [1, 0], r"2 truth values, got int64 of shape \(2,\)"),
        (2, [True], r"2 truth values, got bool of shape \(1,\)"),
        (2, None, r"2 truth values, got object of shape \(\)"),
        (None, [True, False], r"1 truth value, got bool of shape \(2,\)"),
        (None, 1.0, r"1 truth value, got float64 of shape \(\)"),
    ],
)
def test_a_stopping_criterion_with_a_bad_judgement_is_refused(models: int | None, told: Any, got: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Odd judge: expected an array of {got}; return one for each model"):
        fit(network(models), stopping=criterion("Odd", told))


@pytest.mark.parametrize("told", [True, np.True_, [True], np.array([True])])
def test_a_stopping_criterion_may_judge_a_single_network_by_one_bool(told: Any) -> None:
    history = fit(network(), stopping=criterion("Own", told))
    assert history.stopped == "Own()" and history.epochs == 1


@pytest.mark.parametrize("why", ["", 5])
def test_a_stopping_criterion_without_a_reason_is_refused(why: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^Mute reason: expected a reason in words, got"):
        fit(network(), stopping=criterion("Mute", [True], why=why))


def test_a_stopping_criterion_with_a_bad_state_is_refused() -> None:
    net = network()
    with pytest.raises(
        ConfigurationError, match=r"^Odd start: expected a dict of numbers, .* got a int; return \{\} w"
    ):
        fit(net, stopping=criterion("Odd", [True], kept=3))


@pytest.mark.parametrize("missing", ["monitored", "judge"])
def test_a_stopping_criterion_without_a_method_is_refused_before_the_first_step(missing: str) -> None:
    class Half(Stopping, abstract=True):
        pass

    given = {"monitored": lambda self, names: "loss", "judge": lambda self, state, record: np.array([True])}
    for name in set(given) - {missing}:
        setattr(Half, name, given[name])
    refused(rf"^stopping Half: expected a {missing} method, got none of its own; ", stopping=Half())
