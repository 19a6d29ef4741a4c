"""Checkpoints that a training refuses to go on from, and why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import archive
from gpunn.errors import CheckpointError
from gpunn.regularization import L2
from gpunn.schedules import OneCycle, ReduceOnPlateau
from tests.archives import seal
from tests.training.drawn_trainings import BETAS, Interrupt, X, Y, bits
from tests.training.one_training import fit, network


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "training.gpunn"
    fit(network(), checkpoint=path, callbacks=Interrupt(8))
    return path


def refused(net: gn.Network, match: str, path: Any, **changes: Any) -> None:
    """Resuming is refused for this reason, and neither network nor file have changed."""
    before, there = bits(net), path.read_bytes() if path.is_file() else None
    seen: list[Any] = []
    with pytest.raises(CheckpointError, match=match) as error:
        fit(net, resume=path, callbacks=lambda epoch, record: seen.append(epoch), **changes)
    assert str(path) in str(error.value)
    assert bits(net) == before and net.loss is None and not seen
    assert there is None or path.read_bytes() == there


OTHERS: dict[str, tuple[Callable[[], gn.Network], str]] = {
    "wider": (
        lambda: network([gn.Dense(7), gn.BatchNorm(), gn.Tanh(), gn.Dropout(0.2), gn.Dense(3)]),
        r"architecture layers\[0\] units: expected 7, got 6; resume with the network",
    ),
    "longer": (
        lambda: network([gn.Dense(6), gn.BatchNorm(), gn.Tanh(), gn.Dense(3)]),
        r"architecture layers: expected \[",
    ),
    "dropout": (
        lambda: network([gn.Dense(6), gn.BatchNorm(), gn.Tanh(), gn.Dropout(0.3), gn.Dense(3)]),
        r"architecture layers\[3\] \w+: expected 0.3, got 0.2",
    ),
    "seed": (lambda: network(seed=5), r"architecture seeds\[0\]: expected 5, got 0"),
    "population": (lambda: network(models=2), "architecture models: expected 2, got null"),
    "dtype": (lambda: network(dtype="float32"), 'architecture dtype: expected "float32", got "float64"'),
    "scale": (lambda: network(scale=0.5), r"architecture scale: expected 0.5, got 1.0"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_resuming_refuses_another_network(name: str, file: Path) -> None:
    make, match = OTHERS[name]
    refused(make(), match, file)


def test_resuming_refuses_a_network_that_differs_in_its_deepest_layer(tmp_path: Path) -> None:
    def nested(activation: str | None) -> gn.Network:
        layer: gn.Layer = gn.Dense(4, activation)
        for _ in range(212):
            layer = gn.Residual([layer])
        return gn.Network([layer, gn.Dense(3)], 4, device="cpu")

    path = tmp_path / "deep.gpunn"
    fit(nested(None), epochs=1, checkpoint=path)
    refused(nested("relu"), r'layers\[0\] activation: expected "relu", got null; resume with', path, epochs=1)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "optimizer": ({"optimizer": gn.AdamW(0.05)}, 'optimizer optimizer: expected "AdamW", got "Adam"'),
    "betas": ({"optimizer": gn.Adam(0.05)}, r"optimizer betas\[0\]: expected 0.9, got 0.8"),
    "rate": ({"optimizer": gn.Adam(0.04, betas=BETAS)}, "optimizer rate: expected 0.04, got 0.05"),
    "schedule": ({"optimizer": gn.Adam(OneCycle(0.05, 30), betas=BETAS)}, r"optimizer rate: expected {.*}, got 0.05"),
    "batch size": ({"batch_size": 9}, "recipe batch_size: expected 9, got 8"),
    "sampling": ({"sampling": "replacement"}, 'recipe sampling: expected "replacement", got "shuffle"'),
    "accumulate": ({"accumulate": 2}, "recipe accumulate: expected 2, got 1"),
    "drop last": ({"drop_last": True}, "recipe drop_last: expected true, got false"),
    "size": ({"X": X[:40], "y": Y[:40]}, "examples: expected 40, got 41"),
    "loss": ({"loss": gn.CrossEntropy(smoothing=0.1)}, "loss smoothing: expected 0.1, got 0.0"),
    "metrics": ({"metrics": ("accuracy",)}, r'metrics: expected \["accuracy"\], got \[\]'),
    "patience": ({"stopping": gn.EarlyStopping(4)}, r"stopping\[0\] patience: expected 4, got 3"),
    "no stopping": ({"stopping": None}, r"stopping: expected \[\], got \["),
    "penalty": ({"regularization": L2(0.1)}, r"regularization: expected \[\{.*L2.*\}\], got \[\]"),
    "clipping": ({"clip_norm": 1.0}, r"regularization: expected \[\{.*ClipNorm.*\}\], got \[\]"),
    "plateau": ({"plateau": ReduceOnPlateau()}, r"plateau: expected \{.*\}, got null"),
    "validation": ({"validation": (X, Y)}, 'monitor name: expected "validation_loss", got "loss"'),
    "keep": ({"keep": "last"}, 'keep: expected "last", got "best"'),
}


@pytest.mark.parametrize("name", CHANGES)
def test_resuming_refuses_other_settings(name: str, file: Path) -> None:
    changes, match = CHANGES[name]
    refused(network(), match, file, **changes)


def test_resuming_refuses_a_saved_network(file: Path) -> None:
    network().save(file)
    refused(network(), "expected a checkpoint of a training, got a saved network; load it with gn.load", file)


def test_resuming_refuses_a_checkpoint_of_a_newer_format(file: Path) -> None:
    file.write_bytes(seal(file.read_bytes().replace(b'"gpunn_format":"1"', b'"gpunn_format":"2"', 1)))
    refused(network(), "expected format 1 or older, got format 2", file)


def test_resuming_refuses_a_missing_file(tmp_path: Path) -> None:
    refused(network(), "expected a file to read, got No such file", tmp_path / "none.gpunn")


def test_resuming_refuses_a_damaged_checkpoint(file: Path) -> None:
    whole = file.read_bytes()
    for place in (40, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(network(), "expected .*(SHA-256|header|gpunn checkpoint)", file)
    for size in (0, 7, 100, len(whole) - 1):
        file.write_bytes(whole[:size])
        refused(network(), r"expected .*, got \d+ bytes", file)


def arrays_of(path: Path) -> list[str]:
    fit(network(), checkpoint=path, callbacks=Interrupt(2))
    return list(archive.read(path)[0])


def test_resuming_refuses_missing_and_misshapen_arrays(tmp_path: Path) -> None:
    """Each array of the file in turn, also those that exist only in the first epoch."""
    path = tmp_path / "training.gpunn"
    names = arrays_of(path)
    arrays, meta = archive.read(path)
    assert {name.split("/")[0] for name in names} == {"network", "run"}
    assert {"run/best values", "run/best state", "run/values", "run/meters", "run/optimizer/m"} <= set(names)
    for name in names:
        archive.write(path, {n: a for n, a in arrays.items() if n != name}, meta)
        refused(network(), f"{name}: expected float64 .*, got none; give a file as gpunn wrote it", path)
        archive.write(path, {**arrays, name: arrays[name][..., :-1]}, meta)
        refused(network(), f"{name}: expected .* of shape .*, got .* of shape", path)
        archive.write(path, {**arrays, name: arrays[name].astype(np.float16)}, meta)
        refused(network(), f"{name}: expected float64 .*, got float16", path)
        archive.write(path, {**arrays, f"{name}x": arrays[name]}, meta)
        refused(network(), f"{name}x: expected no such array, got one", path)


@pytest.mark.parametrize(
    ("part", "value", "match"),
    [
        ("history", "[]", "history: expected an object of population, epochs, .*, got \\[\\]"),
        ("history", "{", "history: expected JSON, got JSONDecodeError"),
        ("progress", {"epochs": 3}, "progress: expected an object of epoch, update, .*, got {"),
        ("progress", None, "meta.run.progress: expected an object, got null"),
        ("recipe", None, "recipe: expected .*batch_size.*, got null"),
    ],
)
def test_resuming_refuses_a_checkpoint_with_a_bad_state(part: str, value: Any, match: str, file: Path) -> None:
    arrays, meta = archive.read(file)
    meta["run"][part] = value
    archive.write(file, arrays, meta)
    refused(network(), match, file)


def test_resuming_refuses_a_checkpoint_with_a_bad_step(file: Path) -> None:
    arrays, meta = archive.read(file)
    for step in (-1, "none", None, 2**64):
        meta["network"]["step"] = step
        archive.write(file, arrays, meta)
        refused(network(), "meta.network.step: expected a whole number from 0 to 18446744073709551615, got", file)
    archive.write(file, arrays, {"run": meta["run"]})
    refused(network(), "meta: expected an object of network, run, got", file)
