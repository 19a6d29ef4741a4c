"""Trainings that fail: a loss that is not finite, an error in a callback, a disk that is full."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import archive
from gpunn.errors import CheckpointError
from tests.training.drawn_trainings import ROWS, Copy, Interrupt, Stopped, X, Y, bits
from tests.training.one_training import fit, network


def diverging(net: gn.Network, at: int, **changes: Any) -> gn.History:
    """A linear model whose rate is 1e30 from update `at` on."""
    rate = gn.SGD(lambda step: 1e30 if step >= at else 0.01)
    return fit(net, **{"loss": gn.SquaredError(), "y": TARGET, "optimizer": rate, "stopping": None, **changes})


TARGET = X @ np.array([[1.0], [-2.0], [0.5], [0.0]]) + 0.1


def line(**options: Any) -> gn.Network:
    return network([gn.Dense(1)], **options)


def first_bad(net: gn.Network, at: int) -> tuple[int, int]:
    """Epoch and step, from 1, of the first loss beyond 1e300 or not finite, by plain NumPy; batches in order."""
    dtype = net.dtype
    W, b = (net.ops.to_host(net.parameters[name]).copy() for name in net.parameters)
    A, t, done = X.astype(dtype), TARGET.astype(dtype), 0
    with np.errstate(all="ignore"):
        for epoch in range(1, 100):
            for step, start in enumerate(range(0, ROWS, 8), 1):
                rows = slice(start, start + 8)
                error = A[rows] @ W + b - t[rows]
                if not float((error * error).mean(dtype=dtype)) <= 1e300:
                    return epoch, step
                rate = dtype.type(1e30 if done >= at else 0.01)
                G = error * dtype.type(2.0 / len(error))
                W, b, done = W - rate * (A[rows].T @ G), b - rate * G.sum(axis=0), done + 1
    raise AssertionError("it stays finite")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("at", [0, 15])
def test_a_loss_that_is_not_finite_ends_a_training_with_its_step(
    dtype: str, at: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the first epochs the initial weights are the best; later those of the last epoch before the loss was lost."""
    path, net = tmp_path / "training.gpunn", line(dtype=dtype)
    epoch, step = first_bad(net, at)
    history = diverging(net, at, epochs=60, sampling="sequential", checkpoint=path)
    assert history.stopped == f"non-finite loss at epoch {epoch}, step {step}"
    assert history.epochs == epoch < 60
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and r.name == "gpunn"] == [
        f"training stops: {history.stopped}"
    ]
    wanted = line(dtype=dtype)
    if history.best_epoch:
        fit(wanted, loss=gn.SquaredError(), y=TARGET, optimizer=gn.SGD(0.01), epochs=history.best_epoch,
            sampling="sequential", stopping=None)  # fmt: skip
    assert np.isfinite(net.vector).all()
    if at:
        assert history.best_epoch == at // 6
        assert values(net) == values(wanted)
    assert values(gn.load(path, "cpu")) == values(net)
    again = line(dtype=dtype)
    assert diverging(again, at, epochs=60, sampling="sequential", resume=path).stopped == history.stopped
    assert values(again) == values(net)


def values(net: gn.Network) -> bytes:
    return bytes(net.ops.to_host(net.vector).tobytes())


@pytest.mark.parametrize("at", [0, 8])
def test_a_checkpoint_after_a_loss_that_is_not_finite_keeps_the_best_weights(at: int, tmp_path: Path) -> None:
    """Every checkpoint written while the loss was NaN loads as the best network, at first as the initial one."""
    path, net = tmp_path / "training.gpunn", line(dtype="float32")
    start = values(net)
    copies = Copy(path, set(range(1, 100)))
    history = diverging(net, at, checkpoint=path, every_steps=1, callbacks=copies)
    assert history.stopped.startswith("non-finite loss at epoch ")
    files = sorted(tmp_path.glob("training.gpunn.*"))
    bad = [file for file in files if not np.isfinite(archive.read(file)[0]["run/values"]).all()]
    assert len(bad) >= 2
    assert (values(net) == start) == (at == 0)
    for file in [*bad, path]:
        assert values(gn.load(file, "cpu")) == values(net)
        again = line(dtype="float32")
        assert diverging(again, at, resume=file).stopped == history.stopped
        assert values(again) == values(net)


def test_a_training_interrupted_after_a_loss_that_is_not_finite_leaves_good_weights(tmp_path: Path) -> None:
    path, net = tmp_path / "training.gpunn", line(dtype="float32")
    start = values(net)
    history = diverging(net, 0, batch_size=5, checkpoint=path, callbacks=Interrupt(7))
    assert history.stopped == "interrupted" and history.epochs == 0
    assert not np.isfinite(archive.read(path)[0]["run/values"]).all()
    assert values(net) == values(gn.load(path, "cpu")) == start


def test_a_training_resumed_within_its_first_epoch_still_knows_its_initial_weights(tmp_path: Path) -> None:
    """A failure restores them, and not the weights at which the checkpoint was written."""
    path, net = tmp_path / "training.gpunn", network(models=2, dtype="float32")
    start = bits(net)[: 2 * len(net.vector.tobytes() + net.store.state.tobytes())]
    changes = {"loss": gn.CrossEntropy(), "y": Y, "X": np.where(np.arange(ROWS)[:, None] < 24, X, 3e38)}
    diverging(network(models=2, dtype="float32"), 99, **changes, sampling="sequential", checkpoint=path,
              callbacks=Interrupt(2))  # fmt: skip
    assert bits(gn.load(path, "cpu"))[: len(start)] != start
    history = diverging(net, 99, **changes, sampling="sequential", resume=path)
    assert history.stopped == ["non-finite loss at epoch 1, step 4"] * 2
    assert bits(net)[: len(start)] == start


def test_a_model_whose_loss_is_not_finite_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    net, alone = line(models=3), line(seed=2)
    start = net.vector[1].copy()
    optimizer = gn.SGD((0.01, 1e30, 0.02))
    history = fit(net, loss=gn.SquaredError(), y=TARGET, optimizer=optimizer, stopping=None, epochs=30)
    fit(alone, loss=gn.SquaredError(), y=TARGET, optimizer=gn.SGD(0.02), stopping=None, epochs=30)
    assert [why.split(" at ")[0] for why in history.stopped] == [
        "finished 30 epochs",
        "non-finite loss",
        *history.stopped[:1],
    ]
    assert "training of model 1 stops: non-finite loss at epoch " in caplog.text
    assert np.isfinite(net.vector).all()
    np.testing.assert_allclose(net.vector[2], alone.vector, rtol=1e-12)
    if history.best_epoch[1] is None:
        assert (net.vector[1] == start).all()


class At(gn.Callback):
    """Keeps what the network holds after every epoch, and fails in one."""

    def __init__(self, epoch: int | None, error: BaseException | None = None) -> None:
        self.epoch, self.error, self.kept, self.ends = epoch, error, {}, 0

    def on_start(self, run: Any) -> None:
        self.run = run
        if self.epoch == 0 and self.error:
            raise self.error

    def on_epoch(self, run: Any, record: Any) -> None:
        self.kept[run.epoch] = values(run.network)
        if run.epoch == self.epoch and self.error:
            raise self.error

    def on_end(self, run: Any) -> None:
        self.ends += 1


def test_an_error_in_a_callback_leaves_the_best_weights_and_the_last_checkpoint(tmp_path: Path) -> None:
    """The error is raised unchanged, the history says that the training failed, the checkpoint is that of the epoch
    before."""
    path, look = tmp_path / "training.gpunn", At(9, Stopped("in epoch 9"))
    net = network()
    with pytest.raises(Stopped, match="in epoch 9"):
        fit(net, optimizer=gn.SGD(5.0), epochs=20, stopping=None, callbacks=look, checkpoint=path)
    best = look.run.history.best_epoch
    assert best < 9 and look.ends == 1
    assert values(net) == look.kept[best] != look.kept[9]
    assert look.run.history.stopped == "failed"
    assert archive.read(path)[1]["run"]["progress"]["epoch"] == 8


def test_an_error_before_the_first_step_changes_no_weights(tmp_path: Path) -> None:
    path, net, look = tmp_path / "training.gpunn", network(), At(0, Stopped("at the start"))
    before = bits(net)
    with pytest.raises(Stopped, match="at the start"):
        fit(net, callbacks=look, checkpoint=path)
    assert bits(net) == before and not path.exists()
    assert look.ends == 1 and look.run.history.stopped == "failed"


@pytest.mark.parametrize("often", [{}, {"every_steps": 1}])
def test_a_full_disk_leaves_the_last_checkpoint_and_the_best_weights(
    often: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the full disk."""
    path, look, net = tmp_path / "training.gpunn", At(None), network()
    fill, there = archive._fill, []

    def full(header: bytes, arrays: Any, file: Any) -> None:
        if look.run.standing.done >= 40:
            there.append(path.read_bytes())
            file.write(header)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fill(header, arrays, file)

    monkeypatch.setattr(archive, "_fill", full)
    with pytest.raises(CheckpointError, match=r"No space left on device; free space, .* is unchanged"):
        fit(net, optimizer=gn.SGD(5.0), epochs=20, stopping=None, callbacks=look, checkpoint=path, **often)
    monkeypatch.undo()
    best = look.run.history.best_epoch
    assert len(there) == 1 and path.read_bytes() == there[0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["training.gpunn"]
    assert values(net) == look.kept[best] and look.ends == 1
    assert look.run.history.stopped == "failed"
    resumed, whole = network(), network()
    fit(resumed, optimizer=gn.SGD(5.0), epochs=20, stopping=None, resume=path)
    fit(whole, optimizer=gn.SGD(5.0), epochs=20, stopping=None)
    assert bits(resumed) == bits(whole)


def test_a_checkpoint_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    net = network()
    with pytest.raises(CheckpointError, match="expected to write a file, got No such file or directory"):
        fit(net, checkpoint=tmp_path / "none" / "training.gpunn")


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize("epochs", [1, 3, 5, 6])
def test_a_loss_that_is_not_finite_right_after_a_resume_leaves_the_best_weights(
    tmp_path: Path, models: int | None, epochs: int
) -> None:
    """The last update spoilt the weights that counted as best, so the file must also hold the best ones before."""
    rng = np.random.default_rng(0)
    inputs, classes = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)

    def train(length: int, **files: Any) -> gn.Network:
        net = gn.Network([gn.Dense(5, "relu"), gn.Dense(3)], 3, device="cpu", dtype="float64", models=models)
        rate = gn.schedules.Sequence([0.1] * 5 + [1e200] + [0.1] * 4)
        net.fit(
            inputs, classes, loss=gn.CrossEntropy(), optimizer=gn.SGD(rate), epochs=length, batch_size=40, **files
        )  # fmt: skip
        return net

    file = tmp_path / "training.gpunn"
    train(epochs, checkpoint=file)
    assert train(10, resume=file).vector.tobytes() == train(10).vector.tobytes()
