"""Updates run many in one call, ever more while they are fast, but never beyond a step that a user wants to see."""

from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.training import training
from gpunn.training.step import TrainingStep
from tests.training.networks import X, Y, everything, network

OPTIONS: dict[str, Any] = {
    "loss": gn.CrossEntropy(), "optimizer": gn.Adam(1e-2), "epochs": 3, "batch_size": 4, "progress": False,
}  # fmt: skip
DATA = X[:42], Y[:42]
UPDATES = 11  # of an epoch: ten batches of 4 rows and one of 2


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of updates that each call ran; they count as fast however long they take."""
    seen: list[int] = []
    plain = TrainingStep.program

    def program(self: TrainingStep, update: int, most: int) -> Any:
        found, times = plain(self, update, most)
        seen.append(times)
        return found, times

    monkeypatch.setattr(TrainingStep, "program", program)
    monkeypatch.setattr(training, "STRETCH", float("inf"))
    return seen


def test_ever_more_updates_run_in_one_call(runs: list[int]) -> None:
    network("cpu", None).fit(*DATA, **OPTIONS)
    assert runs == [1, 2, 4, 3, 1, 8, 2, 1, 10, 1]


def test_updates_that_take_long_run_one_in_each_call(runs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "STRETCH", 0.0)
    network("cpu", None).fit(*DATA, **OPTIONS)
    assert runs == [1] * 3 * UPDATES


def test_no_more_updates_run_than_were_asked_for(runs: list[int]) -> None:
    history = network("cpu", None).fit(*DATA, **{**OPTIONS, "epochs": None, "steps": UPDATES + 9})
    assert sum(runs) == UPDATES + 9
    assert history.epochs == 2


def test_a_checkpoint_is_written_after_every_so_many_updates(runs: list[int], tmp_path: Path) -> None:
    network("cpu", None).fit(*DATA, **OPTIONS, checkpoint=tmp_path / "run.gpunn", every_steps=5)
    assert set(accumulate(runs)) >= set(range(5, 3 * UPDATES, 5))
    assert max(runs) > 1


def test_updates_run_one_in_each_call_for_a_callback_with_on_step(runs: list[int]) -> None:
    class Watch(gn.Callback):
        def on_step(self, run: Any) -> None:
            seen.append(run.standing.done)

    seen: list[int] = []
    network("cpu", None).fit(*DATA, **OPTIONS, callbacks=[Watch()])
    assert seen == list(range(1, 3 * UPDATES + 1))
    assert set(runs) == {1}


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("backend", ["cpu", "strict"])
def test_many_updates_in_one_call_give_the_weights_of_single_ones(
    backend: str, streamed: bool, models: int | None, runs: list[int], request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if streamed and models:
        pytest.skip("populations hold their set in memory")
    options = {**everything(gn.Adam(1e-2)), "accumulate": 1, "batch_size": 2}
    if streamed:  # chunks of 10 rows
        options |= {"memory": 2 * 10 * X[:1].nbytes, "validation": None}
    vectors, histories = [], []
    for stretch in (float("inf"), 0.0):
        monkeypatch.setattr(training, "STRETCH", stretch)
        net = network("cpu" if backend == "cpu" else request.getfixturevalue("strict"), models)
        histories.append(net.fit(X, Y, **options))
        vectors.append(net.ops.to_host(net.vector).tobytes())
        assert max(runs) > 1
    assert vectors[0] == vectors[1]
    for name in ("loss", "accuracy", "gradient_norm"):
        np.testing.assert_array_equal(histories[0][name], histories[1][name])
