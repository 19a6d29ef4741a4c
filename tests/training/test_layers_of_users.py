"""Trainings with layers of users: recorded where a record repeats all that they do, and right in every case."""

import logging
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import recordable
from gpunn.backends.cpu.model_threads import ThreadedRecord
from gpunn.backends.program import Program
from gpunn.errors import ConfigurationError
from gpunn.training import threads
from gpunn.training.step import TrainingStep
from tests.conftest import backend_named
from tests.offenders import FACTOR, OFFENDERS, CountsInItsFrame, Gain, Tempered

X = np.random.default_rng(0).normal(size=(50, 6))
Y = np.random.default_rng(1).integers(0, 3, 50)
LINE = "steps run without a record"


@pytest.fixture(autouse=True)
def _told_anew() -> None:
    recordable._warn.cache_clear()


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    """All that steps were made into."""
    made: list[Program] = []
    plain = TrainingStep.program

    def program(self: TrainingStep, update: int, most: int = 1) -> Any:
        found = plain(self, update, most)
        made.append(found[0])
        return found

    monkeypatch.setattr(TrainingStep, "program", program)
    return made


def trained(layer: gn.Layer, device: Any = "cpu", models: int | None = None, **options: Any) -> gn.Network:
    layers = [gn.Dense(5, "relu"), layer, gn.BatchNorm(), gn.Dropout(0.2), gn.Dense(3)]
    net = gn.Network(layers, 6, device=device, dtype="float64", models=models)
    given = {"loss": gn.CrossEntropy(), "optimizer": gn.Adam(1e-2), "epochs": 4, "batch_size": 12, "validation": 0.2}
    net.fit(X, Y, **{**given, "progress": False, **options})
    return net


def call_by_call(layer: gn.Layer, monkeypatch: pytest.MonkeyPatch, **options: Any) -> gn.Network:
    with monkeypatch.context() as patch:
        patch.setenv("GPUNN_CAPTURE", "0")
        return trained(layer, **options)


def assert_same(one: gn.Network, other: gn.Network) -> None:
    assert one.ops.to_host(one.vector).tobytes() == other.ops.to_host(other.vector).tobytes()


@pytest.mark.parametrize("models", [None, 3])
def test_a_layer_that_works_through_ops_is_recorded(
    models: int | None, programs: list[Program], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    net = trained(Gain(), models=models)
    assert programs and all(hasattr(program, "record") for program in programs)
    assert LINE not in caplog.text
    assert_same(net, call_by_call(Gain(), monkeypatch, models=models))


def test_a_layer_that_works_through_ops_is_captured_on_cuda(programs: list[Program]) -> None:
    strict = backend_named("strict")
    net = trained(Gain(), strict, epochs=3)
    assert all(hasattr(program, "graph") for program in programs)
    np.testing.assert_allclose(strict.to_host(net.vector), trained(Gain(), epochs=3).vector, rtol=1e-9, atol=1e-12)


def test_threads_share_the_models_of_a_population_with_such_a_layer(
    programs: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = trained(Gain(), models=8)
    programs.clear()
    monkeypatch.setattr(threads, "SMALL", 0)
    monkeypatch.setattr(threads, "blas_threads", lambda: 2)
    shared = trained(Gain(), models=8)
    assert any(isinstance(program.record, ThreadedRecord) for program in programs)  # type: ignore[attr-defined]
    assert_same(alone, shared)


@pytest.mark.parametrize("kind", OFFENDERS, ids=lambda kind: kind.__name__)
def test_an_offender_trains_as_it_does_call_by_call(
    kind: Any, programs: list[Program], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import random

    from tests import offenders

    def start() -> None:
        random.seed(0)
        monkeypatch.setattr(offenders, "GENERATOR", np.random.default_rng(0))

    start()
    with caplog.at_level(logging.WARNING, "gpunn"):
        once = trained(kind())
    start()
    assert_same(once, call_by_call(kind(), monkeypatch))
    assert caplog.text.count(LINE) == 1
    assert kind.__name__ in caplog.text and OFFENDERS[kind] in caplog.text
    assert not any(hasattr(program, "record") for program in programs)


def test_an_offender_is_not_captured_on_cuda(programs: list[Program]) -> None:
    trained(CountsInItsFrame(), backend_named("strict"), epochs=3)
    assert programs and not any(hasattr(program, "graph") for program in programs)


def cools(epoch: int, record: Any) -> None:
    FACTOR["now"] *= 0.5


def test_a_callback_may_change_what_a_layer_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(FACTOR, "now", 2.0)
    net = trained(Tempered(), callbacks=cools)
    assert "Tempered does something else than before" in caplog.text
    monkeypatch.setitem(FACTOR, "now", 2.0)
    assert_same(net, call_by_call(Tempered(), monkeypatch, callbacks=cools))


def test_a_callback_may_change_what_a_layer_does_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cools(gn.Callback):
        def on_step(self, run: Any) -> None:
            FACTOR["now"] *= 0.9

    monkeypatch.setitem(FACTOR, "now", 2.0)
    net = trained(Tempered(), callbacks=Cools())
    monkeypatch.setitem(FACTOR, "now", 2.0)
    assert_same(net, call_by_call(Tempered(), monkeypatch, callbacks=Cools()))


@pytest.mark.parametrize("when", ["at the end of an epoch", "at the end"])
def test_a_layer_that_changes_unseen_ends_the_training(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps were replayed meanwhile: no result may come of them in silence."""
    monkeypatch.setattr(recordable, "SELDOM", 0 if "epoch" in when else 1e9)
    monkeypatch.setitem(FACTOR, "now", 2.0)
    plain, ran = TrainingStep.program, []

    def program(self: TrainingStep, update: int, most: int = 1) -> Any:
        ran.append(update)
        if len(ran) == 9:
            FACTOR["now"] = 3.0
        return plain(self, update, 1)

    monkeypatch.setattr(TrainingStep, "program", program)
    with pytest.raises(ConfigurationError, match="fit Tempered: expected the same operations in every step"):
        trained(Tempered())
    assert len(ran) == (12 if "epoch" in when else 16)


def test_a_layer_of_users_in_lbfgs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    options = {"optimizer": gn.LBFGS(), "regularization": gn.regularization.L2(1e-3), "validation": None}
    assert_same(trained(Gain(), **options), call_by_call(Gain(), monkeypatch, **options))
    assert LINE not in caplog.text


def test_evaluate_records_such_layers_too_and_sees_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FACTOR, "now", 2.0)
    net = gn.Network([Tempered(), gn.Dense(3)], 6, device="cpu", dtype="float64")
    first = net.evaluate(X, Y, loss=gn.CrossEntropy(), batch_size=5)
    assert first["loss"] == pytest.approx(net.loss_of(X, Y, gn.CrossEntropy()), rel=1e-12)
    monkeypatch.setitem(FACTOR, "now", 5.0)
    second = net.evaluate(X, Y, loss=gn.CrossEntropy(), batch_size=5)
    assert second["loss"] == pytest.approx(net.loss_of(X, Y, gn.CrossEntropy()), rel=1e-12)
    assert first != second
