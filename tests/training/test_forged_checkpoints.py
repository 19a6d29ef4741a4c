"""Checkpoints with a right digest but a content that no training wrote: each is refused with an error of gpunn and
leaves network and file unchanged, or is accepted and the training goes on to a normal end.

Of each kind of edit there are a few; GPUNN_TEST_FORGERIES=3000 draws 3,000 checkpoints in all, and a third as many runs
in tests/cli/test_forged_runs.py. With `-s` both say how many were refused and where.
"""

import json
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import archive
from gpunn.errors import CheckpointError
from tests.faults import FORM, contents
from tests.forgeries import COUNT, KINDS, forge
from tests.training.checkpoints import BASES, EPOCHS, fit, network, original

UNTIMED = ("seconds", "examples_per_second")  # columns that nothing depends on


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@cache
def ending(name: str, folder: Path) -> tuple[list[bytes], dict[str, Any]]:
    """How the training ends that is resumed from this checkpoint."""
    path = folder / "whole.gpunn"
    archive.write(path, *original(name, folder))
    net = network(name)
    return ended(net, fit(net, name, resume=path))


def ended(net: gn.Network, history: gn.History) -> tuple[list[bytes], dict[str, Any]]:
    columns = {name: history[name].tobytes() for name in history.names if name not in UNTIMED}
    return contents(net), {**columns, "stopped": history.stopped, "best": history.best_epoch}


def matters(arrays: dict[str, Any], meta: dict[str, Any]) -> Any:
    """The content without the parts that a resumed training does not read."""
    run = {**meta["run"], "history": json.loads(meta["run"]["history"])}
    for name in UNTIMED:
        run["history"]["values"].pop(name, None)
    run["progress"] = {name: value for name, value in run["progress"].items() if name != "seconds"}
    network = {name: value for name, value in meta["network"].items() if name != "preprocessing"}
    return json.dumps([network, run], sort_keys=True), {name: array.tobytes() for name, array in arrays.items()}


def attempt(name: str, path: Path, content: tuple[dict[str, Any], dict[str, Any]], folder: Path) -> str:
    """Resume from this file; the place of the refusal, or "taken"."""
    net, before = network(name), path.read_bytes()
    held, steps, error = contents(net), [], None
    try:
        history = fit(net, name, resume=path, callbacks=lambda epoch, record: steps.append(epoch))
    except CheckpointError as refusal:
        error = refusal
    assert path.read_bytes() == before
    if error is not None:
        assert re.match(FORM, str(error)) and str(path) in error.where
        assert contents(net) == held and net.loss is None and not steps
        return error.where.removeprefix(f"{path}: ")
    failed = [why.startswith("non-finite loss") for why in np.atleast_1d(history.stopped)]
    sound = np.isfinite(net.vector).reshape(len(failed), -1).all(axis=1)
    assert (sound | np.array(failed)).all() and history.epochs <= EPOCHS
    if matters(*content) == matters(*original(name, folder)):
        assert ended(net, history) == ending(name, folder)
    return "taken"


def loaded(path: Path, arrays: dict[str, Any]) -> bool:
    """Whether the network in the file can be loaded; it must then hold the arrays of the file."""
    try:
        net = gn.load(path, "cpu")
    except CheckpointError:
        return False
    for name, view in {**net.parameters, **net.state}.items():
        assert view.tobytes() == arrays[f"network/{name}"].tobytes()
    assert net.predict(np.zeros((2, *net.inputs))).shape[-2] == 2
    return True


def test_forged_checkpoints_are_refused_or_resumed_in_little_memory(folder: Path) -> None:
    path, seen, read = folder / "forged.gpunn", Counter[str](), Counter[bool]()
    names, faults = list(BASES), []
    for number in range(max(COUNT, len(KINDS))):
        draw, kind = random.Random(number), KINDS[number % len(KINDS)]
        name = names[(number + number // len(KINDS)) % len(names)]
        arrays, meta = forge(draw, *original(name, folder), kind)
        archive.write(path, arrays, meta)
        content = archive.read(path)  # the digest is right
        with np.errstate(all="ignore"):
            try:
                where = attempt(name, path, content, folder)
                read[loaded(path, content[0])] += 1
            except Exception as error:
                faults.append(f"{number} {name}, {kind}: {type(error).__name__}: {error}"[:300])
                continue
        seen[where.split("[")[0].split("/")[0].split(".values")[0]] += 1
    print(f"\n{sum(seen.values())} forged checkpoints: {seen['taken']} taken, loaded {read[True]}; refused at")
    print("\n".join(f"  {count:5} {where}" for where, count in seen.most_common() if where != "taken"))
    assert not faults, "\n".join(faults)
    assert sum(seen.values()) > 4 * seen["taken"] > 4
