"""Which weights a training leaves: the best ones, also when it fails, or the last ones."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError
from gpunn.schedules import Sequence
from tests.training.small_set import CLASSES, INPUTS, LABELS, LOSS, X, hosts, network, plain, train, vector


@hosts
@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_callback_that_ends_a_training_leaves_what_was_learnt(backend: Any, keep: str) -> None:
    class Enough(gn.Callback):
        def on_epoch(self, run: Any, record: Any) -> None:
            if run.epoch == 2:
                run.stop("enough")

    net, short = network(backend), network(backend)
    history = train(net, epochs=5, keep=keep, callbacks=[Enough()], optimizer=gn.SGD(0.1))
    train(short, epochs=2, keep=keep, optimizer=gn.SGD(0.1))
    assert history.stopped == "enough"
    np.testing.assert_array_equal(net.ops.to_host(net.vector), net.ops.to_host(short.vector))


def test_keep_best_leaves_the_best_weights_and_keep_last_the_last() -> None:
    """The best weights are those after the best epoch."""
    wrong = (X, (LABELS + 1) % CLASSES)
    best, last, one = network(), network(), network()
    history = train(best, epochs=4, validation=wrong, keep="best", optimizer=gn.SGD(0.3))
    train(last, epochs=4, validation=wrong, optimizer=gn.SGD(0.3))
    train(one, epochs=1, optimizer=gn.SGD(0.3))
    assert history.best_epoch == 1
    np.testing.assert_array_equal(vector(best), vector(one))
    assert np.abs(vector(best) - vector(last)).max() > 1e-3


def test_what_early_stopping_monitors_decides_which_weights_are_best() -> None:
    net = network()
    options: dict[str, Any] = {"validation": (X, (LABELS + 1) % CLASSES), "metrics": ["accuracy"], "epochs": 30}
    rule = gn.EarlyStopping(100, monitor="accuracy")
    history = train(net, keep="best", stopping=rule, optimizer=gn.SGD(0.3), **options)
    assert history.best_epoch == int(history.accuracy.argmax()) + 1 > 1 == int(history["validation_loss"].argmin()) + 1


@pytest.mark.parametrize("event", ["on_start", "on_epoch", "on_step", "on_end"])
def test_an_exception_in_any_event_of_a_callback_leaves_the_best_weights(event: str) -> None:
    """Those of the epoch itself if it was the best one and complete; the exception of the user is raised."""
    wrong = (X, (LABELS + 1) % CLASSES)  # whose loss is lowest after the first epoch

    class Fails(gn.Callback):
        pass

    def fail(self: Any, run: Any, *record: Any) -> None:
        if run.epoch == 3 or event == "on_start":
            raise KeyError("the user's own")

    setattr(Fails, event, fail)
    net, one = network(), network()
    train(one, epochs=1, optimizer=gn.SGD(0.3))
    wanted = vector(network()) if event == "on_start" else vector(one)
    with pytest.raises(KeyError, match="the user's own"):
        train(net, epochs=3 + (event == "on_step"), validation=wrong, keep="best", optimizer=gn.SGD(0.3),
              callbacks=[Fails()])  # fmt: skip
    np.testing.assert_array_equal(vector(net), wanted)


@pytest.mark.parametrize("monitored", ["training", "validation"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_training_with_a_loss_that_is_not_finite_leaves_weights_that_work(
    backend: Any, dtype: str, monitored: str
) -> None:
    """The loss is lost in the first step already, so the initial weights are the best ones."""
    net = plain(backend, gn.Dense(5, "relu"), dtype=dtype)
    held_out = {"validation": (INPUTS, LABELS)} if monitored == "validation" else {}
    start = net.loss_of(INPUTS, LABELS, LOSS)
    history = train(
        net, INPUTS, keep="best", epochs=5, optimizer=gn.SGD(1e30 if dtype == "float32" else 1e200), **held_out
    )
    assert history.stopped.startswith("non-finite loss at epoch 2, step 1")
    with np.errstate(all="ignore"):
        assert net.loss_of(INPUTS, LABELS, LOSS) <= start


def test_a_training_names_the_step_of_a_loss_that_is_not_finite(backend: Any) -> None:
    """Step 2 of epoch 3 destroys the weights, so the loss of step 3 is not finite; the best weights are restored."""
    net, good = (plain(backend, gn.Dense(5, "relu")) for _ in range(2))
    rates = [0.1] * 9 + [1e200] + [0.1] * 6
    options: dict[str, Any] = {"batch_size": 13, "keep": "best", "validation": (INPUTS, LABELS)}
    history = train(net, INPUTS, epochs=4, optimizer=gn.SGD(Sequence(rates)), **options)
    train(good, INPUTS, epochs=2, **options)
    assert history.stopped == "non-finite loss at epoch 3, step 3" and history.epochs == 3
    np.testing.assert_array_equal(vector(net), vector(good))


def test_a_schedule_that_gives_a_bad_rate_leaves_the_best_weights() -> None:
    """The first and last rate of a schedule are checked before the first step, the others when their epoch begins."""
    net, one = network(), network()
    with pytest.raises(ConfigurationError, match=r"^rate at step 2: expected a number with 0 <= value, got nan"):
        train(net, keep="best", epochs=5, optimizer=gn.SGD(lambda t: np.nan if t == 2 else 0.1))
    train(one, epochs=2)
    np.testing.assert_array_equal(vector(net), vector(one))
