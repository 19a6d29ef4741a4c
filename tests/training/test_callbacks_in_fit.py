"""When `Network.fit` calls its callbacks, and how they end it."""

from typing import Any

import pytest

import gpunn as gn
from tests.training.small_set import INPUTS, ROWS, SEEN, Steps, hosts, network, plain, train


def test_fit_calls_functions_and_callback_objects_at_each_event(backend: Any) -> None:
    events: list[Any] = []

    class Look(gn.Callback):
        def on_start(self, run: Any) -> None:
            events.append(("start", run.epoch, run.history.epochs))

        def on_epoch(self, run: Any, record: Any) -> None:
            events.append(("epoch", run.epoch, run.history.epochs))
            assert all(run.history[name][-1] == value[0] for name, value in record.items())

        def on_step(self, run: Any) -> None:
            events.append(("step", run.epoch, run.history.epochs))

        def on_end(self, run: Any) -> None:
            events.append(("end", run.epoch, run.history.stopped))

    losses: list[Any] = []
    net = plain(backend)
    history = train(
        net, INPUTS, batch_size=25, callbacks=[lambda epoch, record: losses.append((epoch, record["loss"])), Look()]
    )
    assert [epoch for epoch, _ in losses] == [1, 2]
    assert [float(loss[0]) for _, loss in losses] == history.loss.tolist()
    first, second = [("step", 0, 0)] * 2 + [("epoch", 1, 1)], [("step", 1, 1)] * 2 + [("epoch", 2, 2)]
    assert events == [("start", 0, 0), *first, *second, ("end", 2, "finished 2 epochs")]


class Stop(gn.Callback):
    """Ends the training from the start, or after the first epoch."""

    def __init__(self, event: str) -> None:
        self.event = event

    def on_start(self, run: Any) -> None:
        if self.event == "start":
            run.stop("no need")

    def on_epoch(self, run: Any, record: Any) -> None:
        if self.event == "epoch":
            run.stop("no need")


@hosts
@pytest.mark.parametrize(("event", "epochs"), [("start", 0), ("epoch", 1)])
def test_a_callback_may_end_a_training_at_the_start_or_after_an_epoch(backend: Any, event: str, epochs: int) -> None:
    net = network(backend)
    history = train(net, callbacks=Stop(event), batch_size=25)
    assert history.epochs == epochs and len(SEEN) == 2 * epochs and history.stopped == "no need"


@pytest.mark.parametrize("models", [None, 2])
def test_a_callback_may_end_a_training_within_an_epoch(backend: Any, models: int | None) -> None:
    counting = Steps(stop=5)
    history = train(plain(backend, models=models), INPUTS, batch_size=15, epochs=9, callbacks=[counting])
    assert counting.count == 5 and history.epochs == 2
    assert history.stopped == ("counted enough" if models is None else ["counted enough"] * 2)


def test_a_model_that_had_stopped_keeps_its_reason_when_a_callback_ends_the_training() -> None:
    """The first model does not learn and is stopped for that; the callback then ends the other one."""
    counting, net = Steps(stop=5), plain("cpu", models=2)
    options: dict[str, Any] = {"stopping": gn.LossTolerance(1e-12), "epochs": 9, "batch_size": ROWS}
    history = train(net, INPUTS, optimizer=gn.SGD((0.0, 0.1)), callbacks=[counting], **options)
    assert history.stopped == ["LossTolerance(tolerance=1e-12)", "counted enough"] and history.epochs == 5
