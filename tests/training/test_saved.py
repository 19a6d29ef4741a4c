"""Each rule of what a checkpoint holds, by one checkpoint that breaks it and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import archive
from gpunn.errors import CheckpointError
from tests.faults import contents, unchanged
from tests.training.checkpoints import BASES, fit, network, original

Edit = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], Any]  # of arrays, progress and history


def put(*path: Any, value: Any, part: int = 1) -> Edit:
    """This value at a place in the arrays (part 0), the progress or the history (2)."""

    def edit(*parts: Any) -> None:
        container = parts[part]
        for key in path[:-1]:
            container = container[key]
        container[path[-1]] = value

    return edit


def array(name: str, value: float, place: Any = 0) -> Edit:
    """This number in an array, seen as flat."""

    def edit(arrays: Any, *others: Any) -> None:
        arrays[name].reshape(-1)[place] = value

    return edit


def padding(arrays: Any, *others: Any) -> None:
    flat = arrays["run/values"]
    flat[np.flatnonzero(flat == 0.0)[-1]] = 1.0


NAN = float("nan")
FILE = "give a file as gpunn wrote it"
BROKEN: tuple[tuple[str, Edit, str], ...] = (
    # progress
    ("within an epoch", put("epoch", value=10**400), r"progress\.epoch: expected a whole number from 2 to 2, got 1000"),
    ("within an epoch", put("update", value=3), r"progress\.update: expected a whole number from 0 to 2, got 3"),
    ("within an epoch", put("update", value=True), r"progress\.update: expected a whole number from 0 to 2, got true"),
    ("within an epoch", put("done", value=7), "progress.done: expected 8, as epoch and update say, got 7"),
    ("within an epoch", put("seconds", value=-1.0), r"progress\.seconds: expected a finite number >= 0, got -1\.0"),
    ("within an epoch", put("seconds", value=0.0), r"progress\.seconds: expected at least .*, got 0;"),
    ("within an epoch", put("best", value=[]), r"progress\.best: expected a list of 1, got \[\]"),
    ("within an epoch", put("best", 0, value=-7.0), r"progress\.best\[0\]: expected .*, as in the history, got -7\.0"),
    ("within an epoch", put("best", 0, value=None), r"progress\.best\[0\]: expected .*, as in the history, got null"),
    ("population", put("best", 1, value=NAN), r"progress\.best\[1\]: expected a finite number, or null, got NaN"),
    ("population", put("stopped", 0, value=5), r"progress\.stopped\[0\]: expected text, got 5"),
    ("population", put("criteria", value=[]), r"progress\.criteria: expected a list of 2, got \[\]"),
    ("population", put("criteria", 0, "x", value=0), r"progress\.criteria\[0\]: expected an object of best, waited"),
    ("population", put("criteria", 0, "waited", 1, value=3), r"waited\[1\]: expected a whole number from 0 to 2"),
    ("population", put("criteria", 1, "previous", 0, value="1"), r"previous\[0\]: expected a finite number, or null"),
    ("within an epoch", put("criteria", 0, "best", 0, value=2**70), r"best\[0\]: expected a finite number, or null"),
    ("population", put("criteria", 0, "best", 1, value=10**308), r"best\[1\]: expected a finite number, or null"),
    ("between epochs", put("plateau", "best", 0, value=-(2**70)), r"best\[0\]: expected a finite number, or null"),
    ("within an epoch", put("criteria", 3, "x", value=1), r"criteria\[3\]: expected an object of no names, got"),
    ("within an epoch", put("plateau", value={}), r"progress\.plateau: expected null, got \{\}"),
    ("between epochs", put("plateau", "bad", 0, value=2), r"plateau\.bad\[0\]: expected a whole number from 0 to 1"),
    ("between epochs", put("plateau", "wait", 0, value=2), r"plateau\.wait\[0\]: expected a whole number from 0 to 1"),
    ("between epochs", put("plateau", "factor", 0, value=2), r"factor\[0\]: expected a finite number >= 0 <= 1, got 2"),
    ("between epochs", put("factors", 0, value=0.25), r"progress\.factors: expected \[.*\], got \[0\.25\]"),
    ("within an epoch", put("factors", 0, value=0.25), r"progress\.factors: expected \[1\.0\], got \[0\.25\]"),
    # history
    ("within an epoch", put("population", value=True, part=2), "history.values: expected a number for each model"),
    ("last weights", put("stopped", value=["", "x"], part=2), r"history\.stopped: expected a training that goes on"),
    ("population", put("best", value=[], part=2), "history.best: expected 2 epochs, got 0"),
    ("population", put("best", 0, value=3, part=2), r"best\[0\]: expected a whole number from 1 to 2, or null"),
    ("within an epoch", put("values", "x", value=[1.0, 2.0], part=2), r"history\.values: expected accuracy, .*, got"),
    ("within an epoch", put("values", "rate", 0, value="inf", part=2), r"values\.rate: expected finite numbers >= 0"),
    ("within an epoch", put("values", "loss", value=[1.0], part=2), r"values\.loss: expected 2 numbers, got \[1\.0\]"),
    # arrays
    ("between epochs", array("run/values", NAN), "run/values: expected finite numbers, got nan"),
    ("between epochs", padding, "run/values: expected 0 between two parameters, got another number"),
    ("between epochs", array("network/0.W", np.inf), "network/0.W: expected finite numbers, got inf"),
    ("between epochs", array("run/optimizer/m", NAN), "run/optimizer/m: expected no NaN, got nan"),
    ("between epochs", array("run/optimizer/v", -1.0), r"optimizer/v: expected numbers >= 0, got -1"),
    ("between epochs", array("run/optimizer/count", 6.0), "count: expected 7, one more than there were, got"),
    ("first epoch", array("run/best values", np.inf), "run/best values: expected finite numbers, got inf"),
    ("first epoch", array("run/before 0", NAN), "run/before 0: expected finite numbers, got nan"),
    ("first epoch", array("run/meters", 2.0, 1), r"run/meters: expected whole numbers from -1 to 1, got \[2\.0\]"),
    ("first epoch", array("run/meters", NAN, 0), r"run/meters: expected numbers for loss, got \[NaN\]"),
    ("within an epoch", array("run/meters", NAN, 3), r"run/meters: expected numbers for accuracy, got \[NaN\]"),
    ("last weights", array("run/optimizer/product", 1.0), "product: expected numbers >= 0 and below 1, got .* to 1;"),
    ("L-BFGS", array("run/optimizer/pairs", 9.0), "optimizer/pairs: expected a whole number from 0 to 3, got 9"),
    ("L-BFGS", array("run/optimizer/pairs", np.inf), "optimizer/pairs: expected a whole number from 0 to 3, got inf"),
    ("L-BFGS", array("run/optimizer/begun", 0.0), "optimizer/begun: expected 1, got 0"),
    ("L-BFGS", array("run/optimizer/loss", np.inf), "optimizer/loss: expected a finite number, got inf"),
    ("L-BFGS", array("run/optimizer/rho1", 0.0), "optimizer/rho1: expected a curvature above 0, got 0 and 0"),
    ("L-BFGS", array("run/optimizer/y0", 0.0, slice(None)), "optimizer/rho0: expected a curvature above 0"),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved")


def refused(name: str, path: Path, match: str) -> None:
    """Resuming is refused for this reason, and neither network nor file have changed."""
    net, before = network(name), path.read_bytes()
    with unchanged(net), pytest.raises(CheckpointError, match=match) as error:
        fit(net, name, resume=path)
    assert str(error.value).startswith(f"{path}: ") and str(error.value).endswith(FILE)
    assert net.loss is None and path.read_bytes() == before


@pytest.mark.parametrize(("name", "edit", "match"), BROKEN, ids=[f"{n}-{m[:40]}" for n, _, m in BROKEN])
def test_a_checkpoint_that_no_training_writes_is_refused(name: str, edit: Edit, match: str, folder: Path) -> None:
    arrays, meta = original(name, folder)
    arrays, meta = {n: a.copy() for n, a in arrays.items()}, json.loads(json.dumps(meta))
    history = json.loads(meta["run"]["history"])
    edit(arrays, meta["run"]["progress"], history)
    meta["run"]["history"] = json.dumps(history)
    path = folder / "broken.gpunn"
    archive.write(path, arrays, meta)
    refused(name, path, match)


@pytest.mark.parametrize("name", BASES)
def test_a_checkpoint_of_every_kind_of_training_is_resumed(name: str, folder: Path) -> None:
    path = folder / "whole.gpunn"
    archive.write(path, *original(name, folder))
    assert fit(network(name), name, resume=path).epochs == 4


def test_a_checkpoint_of_one_network_with_a_history_of_a_population_is_refused(folder: Path) -> None:
    """The history is valid in itself and has as many models."""
    arrays, meta = original("within an epoch", folder)
    history = json.loads(meta["run"]["history"])
    values = {name: [[value] for value in column] for name, column in history["values"].items()}
    run = {**meta["run"], "history": json.dumps({**history, "population": True, "values": values})}
    archive.write(folder / "other.gpunn", arrays, {**meta, "run": run})
    refused("within an epoch", folder / "other.gpunn", "history.population: expected false, got true")


def test_a_checkpoint_with_a_history_of_too_many_models_is_refused(folder: Path) -> None:
    arrays, meta = original("population", folder)
    history = json.loads(meta["run"]["history"])
    values = {name: [[*row, 1.0] for row in column] for name, column in history["values"].items()}
    run = {**meta["run"], "history": json.dumps({**history, "best": [1, 1, 1], "values": values})}
    archive.write(folder / "more.gpunn", arrays, {**meta, "run": run})
    refused("population", folder / "more.gpunn", "history.best: expected 2 epochs, got 3")


def test_a_training_with_an_infinite_running_variance_resumes(tmp_path: Path) -> None:
    """The square of 1e20 is infinite in float32, its running mean is NaN in the end, and the loss is finite."""
    X, y, path = np.array([[1e20], [-1e20], [2e20], [-2e20]]), np.array([0, 1, 0, 1]), tmp_path / "a.gpunn"
    settings: dict[str, Any] = {"loss": gn.CrossEntropy(), "optimizer": gn.Adam(0.1), "progress": False}

    def train(epochs: int, **files: Any) -> gn.Network:
        net = gn.Network([gn.BatchNorm(), gn.Dense(2)], 1, device="cpu")
        with np.errstate(all="ignore"):
            net.fit(X, y, epochs=epochs, **settings, **files)
        return net

    assert np.isinf(train(3, checkpoint=path).state["0.var"]).all()
    assert np.isnan(archive.read(path)[0]["run/state"]).any()
    assert contents(train(6, resume=path)) == contents(train(6))
