"""A device that stops answering during a training: one clear error, and the last checkpoint can be resumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import DeviceLostError
from tests.conftest import strict_backend

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 5)), RNG.integers(0, 3, 40)
MESSAGE = r'^device "cuda:0": expected a device that answers, got cudaError.*; start a new process and go on from .*'


def network(device: Any) -> gn.Network:
    return gn.Network([gn.Dense(8, "relu"), gn.Dropout(0.1), gn.Dense(3)], 5, device=device)


def options(**more: Any) -> dict[str, Any]:
    return {"loss": gn.CrossEntropy(), "optimizer": gn.Adam(1e-2), "epochs": 6, "batch_size": 10, **more}


@pytest.mark.parametrize("captured", "01")
@pytest.mark.parametrize("error", ["cudaErrorLaunchFailure", "cudaErrorNoDevice", "cudaErrorDevicesUnavailable"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_device_lost_in_training_is_one_clear_error_and_leaves_the_checkpoint(
    tmp_path: Path, error: str, epoch: int, captured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = strict_backend()
    monkeypatch.setenv("GPUNN_CAPTURE", captured)
    ended: list[str] = []

    class Loses(gn.Callback):
        def on_epoch(self, run: Any, record: Any) -> None:
            strict.xp.machine.lost = error if run.epoch == epoch else ""

        def on_end(self, run: Any) -> None:
            ended.append(run.history.stopped)

    path = tmp_path / "run.gpunn"
    net = network(strict)
    checkpoints = {"checkpoint": path, "every_steps": 1}
    with pytest.raises(DeviceLostError, match=MESSAGE) as caught:
        net.fit(X, Y, **options(callbacks=[Loses()], **checkpoints))
    assert caught.value.__cause__.status > 0  # CUDA's own error is there too
    assert ended == ["device lost"]
    with pytest.raises(DeviceLostError, match=MESSAGE):
        net.predict(X)

    again, whole = network(strict_backend()), network(strict_backend())  # as in a new process
    history = again.fit(X, Y, **options(resume=path))
    expected = whole.fit(X, Y, **options())
    np.testing.assert_array_equal(history["loss"], expected["loss"])
    assert again.ops.to_host(again.vector).tobytes() == whole.ops.to_host(whole.vector).tobytes()


def test_other_errors_of_cuda_are_not_taken_for_a_lost_device() -> None:
    strict = strict_backend()
    strict.xp.machine.lost = "cudaErrorInvalidValue"
    with pytest.raises(RuntimeError, match="cudaErrorInvalidValue") as caught:
        strict.zeros((3,), np.float32)
    assert not isinstance(caught.value, DeviceLostError)
