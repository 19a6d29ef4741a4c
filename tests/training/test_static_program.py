"""Between two epoch ends a training neither transfers nor waits nor allocates, and any update can be captured."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.training.step import Trainer

OPTIMIZERS = (
    gn.SGD(0.1), gn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01), gn.Adagrad(0.1), gn.Adadelta(1.0),
    gn.RMSprop(1e-2, centered=True, momentum=0.5), gn.Adam(1e-2), gn.Adam(1e-2, epsilon="hat", amsgrad=True),
    gn.AdamW(1e-2), gn.Adamax(1e-2), gn.NAdam(1e-2), gn.RAdam(1e-2), gn.Lion(1e-3),
)  # fmt: skip
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(45, 6)), RNG.integers(0, 3, 45)


def network(backend: Any, models: int | None) -> gn.Network:
    layers = [gn.Dense(8, "relu"), gn.BatchNorm(), gn.Dropout(0.2), gn.Residual([gn.Dense(8, "gelu")]), gn.Dense(3)]
    return gn.Network(layers, 6, device=backend, models=models)


def everything(optimizer: Any) -> dict[str, Any]:
    return {
        "loss": gn.CrossEntropy(), "optimizer": optimizer, "epochs": 3, "batch_size": 10, "metrics": ["accuracy"],
        "validation": 0.2, "clip_norm": 1.0, "accumulate": 2, "sample_weight": np.linspace(1, 2, 45),
        "regularization": [gn.regularization.L2(1e-3), gn.regularization.MaxNorm(3.0)],
        "callbacks": [gn.GradientFlow()], "stopping": gn.GradientTolerance(1e-9),
    }  # fmt: skip


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_no_transfer_no_wait_no_allocation(
    strict: Any, optimizer: Any, models: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[dict[str, int]] = []
    plain = Trainer.update

    def counted(self: Trainer, i: int) -> None:
        strict.xp.counters.reset()
        plain(self, i)
        updates.append(strict.xp.counters.snapshot())

    monkeypatch.setattr(Trainer, "update", counted)
    network(strict, models).fit(X, Y, **everything(optimizer))
    warm = updates[len(updates) // 3 :]
    assert len(warm) >= 4
    for update in warm:
        assert update["launches"] > 20
        assert (update["transfers"], update["synchronisations"], update["allocations"]) == (0, 0, 0)


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_updates_replayed_from_a_graph_give_the_same_weights(
    strict: Any, optimizer: Any, models: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = network(strict, models)
    history = expected.fit(X, Y, **everything(optimizer))
    graphs: dict[Any, Any] = {}
    stream = strict.xp.cuda.Stream(non_blocking=True)
    plain = Trainer.update

    def replayed(self: Trainer, i: int) -> None:
        kind = self.updates[i], i == len(self.updates) - 1
        if kind not in graphs:  # the first time it runs as it is: products must be known before a capture
            plain(self, i)
            graphs[kind] = None
            return
        with stream:
            if graphs[kind] is None:
                stream.begin_capture()
                plain(self, i)
                graphs[kind] = stream.end_capture()
            graphs[kind].launch(stream)

    monkeypatch.setattr(Trainer, "update", replayed)
    captured = network(strict, models)
    again = captured.fit(X, Y, **everything(optimizer))
    assert any(graph is not None for graph in graphs.values())
    assert strict.to_host(captured.vector).tobytes() == strict.to_host(expected.vector).tobytes()
    np.testing.assert_array_equal(again["loss"], history["loss"])


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


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("validation", [None, 0.2])
def test_the_host_looks_once_an_epoch(strict: Any, models: int | None, validation: Any) -> None:
    counted: list[dict[str, int]] = []

    def count(epoch: int, record: Any) -> None:
        counted.append(strict.xp.counters.snapshot())
        strict.xp.counters.reset()

    network(strict, models).fit(
        X, Y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-2), epochs=4, batch_size=10, keep="last",
        validation=validation, metrics=["accuracy"], callbacks=[count],
    )  # fmt: skip
    for epoch in counted[1:]:
        assert epoch["synchronisations"] == 1
        assert epoch["transfers"] == 2  # the rates of the epoch go there, what it came to comes back
