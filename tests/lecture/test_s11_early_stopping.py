"""S11, early stopping: notes 002 §6.8.1.1, Definition 30; 003; 004. The weights left are the best, however it ends."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.training import training
from gpunn.training.step import TrainingStep
from tests.lecture.descent import LOSS, POINTS, VALIDATION, Epochs, X, Y, added, distance, network, values

LIMIT, RATE = 40, 0.015  # the validation loss is lowest after epoch 12


def fit(net: gn.Network, stopping: Any = None, *, callbacks: Any = (), **options: Any) -> tuple[gn.History, Epochs]:
    """Batch gradient descent: an epoch is one step."""
    seen = Epochs()
    defaults = {"optimizer": gn.SGD(RATE), "epochs": LIMIT, "batch_size": POINTS, "validation": VALIDATION}
    history = net.fit(X, Y, loss=LOSS, stopping=stopping, callbacks=[seen, *callbacks], **(defaults | options))
    return history, seen


def check_best(net: gn.Network, seen: Epochs) -> int:
    """The network holds the weights of the lowest loss seen, which was neither the first nor the last one."""
    best = int(np.nanargmin(seen.losses))
    assert 0 < best < len(seen.losses) - 1
    assert distance(values(net), seen.weights[best]) == 0.0 < distance(seen.weights[-1], seen.weights[best])
    return best + 1


# Three criteria


def test_training_stops_when_the_validation_loss_stops_decreasing(backend: Any) -> None:
    """Definition 30, with patience: 3 epochs in a row without a loss lower than the best."""
    net = network(backend)
    history, seen = fit(net, gn.EarlyStopping(patience=3))
    best = check_best(net, seen)
    assert history.epochs == best + 3 == len(seen.losses) and history.best_epoch == best
    assert min(seen.losses[best:]) >= seen.losses[best - 1]
    assert history.stopped == "EarlyStopping(patience=3)"
    assert history["validation_loss"].tolist() == seen.losses
    np.testing.assert_allclose(net.loss_of(*VALIDATION, LOSS), min(seen.losses), rtol=1e-13)


def test_training_stops_when_the_gradient_is_small(backend: Any) -> None:
    """The norm of the gradient that the epoch's step was made with, here of all points."""
    norms, w = [], values(network(backend))
    for _ in range(25):
        g = added(w, range(POINTS))
        norms.append(np.sqrt(sum((part**2).sum() for part in g.values())))
        w = {name: w[name] - RATE * g[name] for name in w}
    assert norms[-1] < min(norms[:-1])
    net = network(backend)
    history, seen = fit(net, gn.GradientTolerance(norms[-1] * 1.0001), epochs=1000)
    assert history.epochs == 25 and history.stopped.startswith("GradientTolerance(tolerance=")
    np.testing.assert_allclose(history["gradient_norm"], norms, rtol=1e-12)
    check_best(net, seen)


@pytest.mark.parametrize("relative", [False, True])
def test_training_stops_when_the_loss_changes_little(backend: Any, relative: bool) -> None:
    tolerance = 0.01 if relative else 0.055
    net = network(backend)
    history, seen = fit(net, gn.LossTolerance(tolerance, relative=relative), epochs=1000)
    changes = np.abs(np.diff(history.loss)) / (history.loss[:-1] if relative else 1.0)
    assert changes[-1] <= tolerance < changes[:-1].min()
    assert 5 < history.epochs < 200 and history.stopped.startswith(f"LossTolerance(tolerance={tolerance}")
    check_best(net, seen)


def test_the_first_of_several_stopping_criteria_ends_the_training() -> None:
    late, early = gn.EarlyStopping(patience=10), gn.EarlyStopping(patience=3)
    for criteria in ([late, early], [early, late]):
        history, _ = fit(network("cpu"), criteria)
        assert history.stopped == "EarlyStopping(patience=3)"


# However training ends


class Trouble(gn.Callback):
    """Something happens after an epoch, or in the middle of the one that follows."""

    def __init__(self, what: Any, *, within: bool) -> None:
        self.what, self.within, self.epoch = what, within, 15

    def on_epoch(self, run: Any, record: Any) -> None:
        if run.epoch == self.epoch and not self.within:
            self.what(run)


class TroubleWithin(Trouble):
    def on_step(self, run: Any) -> None:
        if run.epoch == self.epoch and self.within:
            self.what(run)


def fail(run: Any) -> None:
    raise RuntimeError("out of luck")


def interrupt(run: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_twice(run: Any) -> None:
    interrupt(run)
    interrupt(run)


def terminate(run: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


ENDINGS: dict[str, tuple[Any, Any, str]] = {
    "exception": (fail, RuntimeError, "failed"),
    "stop": (lambda run: run.stop("enough"), None, "enough"),
    "Ctrl-C": (interrupt, None, "interrupted"),
    "Ctrl-C twice": (interrupt_twice, KeyboardInterrupt, "interrupted"),
    "SIGTERM": (terminate, SystemExit, "terminated"),
}


@pytest.mark.parametrize("within", [False, True], ids=["after an epoch", "within an epoch"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_best_weights_are_left_however_a_training_ends(backend: Any, ending: str, within: bool) -> None:
    what, error, reason = ENDINGS[ending]
    histories: list[gn.History] = []

    class Keep(gn.Callback):
        def on_end(self, run: Any) -> None:
            histories.append(run.history)

    net, trouble = network(backend), (TroubleWithin if within else Trouble)(what, within=within)
    options: dict[str, Any] = {"callbacks": [trouble, Keep()], "batch_size": 6, "sampling": "sequential"}
    before, seen = signal.getsignal(signal.SIGINT), Epochs()
    options["callbacks"].insert(0, seen)
    if error is None:
        fit(net, **options)
    else:
        with pytest.raises(error):
            fit(net, **options)
    assert signal.getsignal(signal.SIGINT) is before
    assert histories[0].stopped == reason
    best = check_best(net, seen)
    assert histories[0].best_epoch == best
    assert len(seen.losses) == 15 + (within and ending == "stop")


def test_the_best_weights_are_left_after_the_last_epoch(backend: Any) -> None:
    net = network(backend)
    history, seen = fit(net)
    check_best(net, seen)
    assert history.stopped == f"finished {LIMIT} epochs" and len(seen.losses) == LIMIT


def test_the_best_weights_are_left_after_a_time_limit(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that goes a second further in every epoch."""
    now, plain = 0, TrainingStep.read

    def read(step: TrainingStep, done: int) -> Any:
        nonlocal now
        now += 1
        return plain(step, done)

    monkeypatch.setattr(TrainingStep, "read", read)
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: now))
    net = network(backend)
    history, seen = fit(net, gn.TimeLimit(20), epochs=1000)
    check_best(net, seen)
    assert history.stopped == "TimeLimit(seconds=20.0)" and history.seconds.tolist() == list(range(1, 21))


@pytest.mark.parametrize("held_out", [True, False])
def test_the_best_weights_are_left_after_a_loss_that_is_not_finite(backend: Any, held_out: bool) -> None:
    """A rate that throws the weights away in epoch 20; without a validation set the epoch's own loss is still fine."""
    net = network(backend)
    optimizer = gn.SGD(lambda t: 1e200 if t == 19 else RATE)
    history, seen = fit(net, optimizer=optimizer, validation=VALIDATION if held_out else None)
    assert history.stopped.startswith("non-finite loss at epoch ")
    with np.errstate(all="ignore"):
        left = net.loss_of(*(VALIDATION if held_out else (X, Y)), LOSS)
    assert np.isfinite(left) and left <= (np.nanmin(seen.losses) * 1.0001 if held_out else seen.losses[0])


def test_the_current_weights_are_left_if_the_first_epoch_fails(backend: Any) -> None:
    """Where the first epoch did not end the network keeps what its steps made of it."""
    net, trouble = network(backend), TroubleWithin(fail, within=True)
    trouble.epoch = 0
    before = values(net)
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(net, callbacks=[trouble])
    after = {name: W - RATE * added(before, range(POINTS))[name] for name, W in before.items()}
    assert distance(values(net), after) < 1e-13


def test_keep_last_leaves_the_last_weights(backend: Any) -> None:
    net = network(backend)
    _, seen = fit(net, gn.EarlyStopping(patience=3), keep="last")
    assert distance(values(net), seen.weights[-1]) == 0.0
