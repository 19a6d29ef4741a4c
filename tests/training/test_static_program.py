"""Between two epoch ends a training neither transfers nor waits nor allocates, and any update can be captured."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.training.evaluation import Evaluator
from gpunn.training.step import TrainingStep
from tests.training.networks import OPTIMIZERS, X, Y, everything, network


def counted_updates(strict: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """The list to which every later update adds its cost."""
    updates: list[dict[str, int]] = []
    plain = TrainingStep.program

    def counted(self: TrainingStep, update: int, most: int) -> Any:
        program, _ = plain(self, update)

        def run(times: int) -> None:
            strict.xp.counters.reset()
            program(times)
            updates.append(strict.xp.counters.snapshot())

        return run, 1

    monkeypatch.setattr(TrainingStep, "program", counted)
    return updates


@pytest.mark.parametrize("captured", [True, False])
@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_an_update_is_one_launch_without_transfer_wait_or_allocation(
    strict: Any, optimizer: Any, models: int | None, captured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUNN_CAPTURE", str(int(captured)))
    updates = counted_updates(strict, monkeypatch)
    network(strict, models).fit(X, Y, **everything(optimizer))
    warm = updates[2 * len(updates) // 3 :]
    assert len(warm) >= 2
    for update in warm:
        assert update["launches"] == 1 if captured else update["launches"] > 20
        assert (update["transfers"], update["synchronisations"], update["allocations"]) == (0, 0, 0)


@pytest.mark.parametrize("folds", [False, True])
def test_a_captured_validation_is_one_launch_for_each_chunk(
    strict: Any, folds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: list[dict[str, int]] = []
    plain = Evaluator.run

    def counted(self: Evaluator) -> None:
        self.meters.begin()
        strict.xp.counters.reset()
        plain(self)
        costs.append(strict.xp.counters.snapshot())

    monkeypatch.setattr(Evaluator, "run", counted)
    monkeypatch.setattr(gn.Network, "chunk", lambda self, batch_size: 4)  # 10 rows: two chunks and a short one
    options = {**everything(gn.SGD(0.1)), "validation": (X[:10], Y[:10]), "epochs": 4}
    if folds:  # the longest of which has 10 rows
        options |= {"validation": None, "folds": [(np.arange(10, 45), np.arange(n)) for n in (10, 7, 3)]}
    network(strict, 3 if folds else None).fit(X, Y, **options)
    begins = 1 + 1  # meters and cursor to their starts
    assert [cost["launches"] for cost in costs[2:]] == [begins + 3] * 2
    assert all(cost["synchronisations"] == cost["transfers"] == cost["allocations"] == 0 for cost in costs[2:])


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_captured_updates_give_the_weights_of_uncaptured_ones(
    strict: Any, optimizer: Any, models: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets, losses = [], []
    for captured in "01":
        monkeypatch.setenv("GPUNN_CAPTURE", captured)
        nets.append(network(strict, models))
        losses.append(nets[-1].fit(X, Y, **everything(optimizer)))
    assert strict.to_host(nets[0].vector).tobytes() == strict.to_host(nets[1].vector).tobytes()
    for name in ("loss", "accuracy", "validation_loss", "validation_accuracy", "gradient_norm"):
        np.testing.assert_array_equal(losses[0][name], losses[1][name])


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_the_stand_in_for_cuda_trains_as_the_cpu_does(strict: Any, optimizer: Any, models: int | None) -> None:
    options = everything(optimizer)
    histories = []
    for device in ("cpu", strict):
        layers = [gn.Dense(8, "tanh"), gn.BatchNorm(), gn.Dropout(0.2), gn.Dense(3)]
        net = gn.Network(layers, 6, device=device, models=models, dtype="float64")
        histories.append(net.fit(X, Y, **options))
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-10)
    np.testing.assert_allclose(histories[0]["validation_loss"], histories[1]["validation_loss"], rtol=1e-10)


FOLDS = [(np.arange(5 * k, 45), np.arange(5 * k + 3)) for k in (1, 2, 3)]  # of three lengths


@pytest.mark.parametrize(
    ("models", "held_out"),
    [(None, {}), (3, {}), (None, {"validation": 0.2}), (3, {"validation": 0.2}), (3, {"folds": FOLDS})],
)
def test_the_host_waits_for_the_device_once_in_an_epoch(strict: Any, models: int | None, held_out: Any) -> None:
    counted: list[dict[str, int]] = []

    def count(epoch: int, record: Any) -> None:
        counted.append(strict.xp.counters.snapshot())
        strict.xp.counters.reset()

    network(strict, models).fit(
        X, Y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-2), epochs=4, batch_size=10, keep="last",
        metrics=["accuracy"], callbacks=[count], **held_out,
    )  # fmt: skip
    for epoch in counted[1:]:
        assert epoch["synchronisations"] == 1
        assert epoch["transfers"] == 2  # the rates of the epoch go there, what it came to comes back
