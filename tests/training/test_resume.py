"""A training that was interrupted and resumed equals, to the last bit, one that never stopped."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import archive
from tests.training.drawn_trainings import (
    OPTIMIZERS,
    ROOT,
    SCHEDULES,
    TIMES,
    WAYS,
    Case,
    Copy,
    Fail,
    Interrupt,
    Stopped,
    bits,
)
from tests.training.one_training import fit, network

CASES = 200


@cache
def reference(number: int) -> dict[str, Any]:
    """The uninterrupted training, which writes no checkpoint."""
    return Case(number).run()


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Equal to the bit; a resumed training has seen only its own epochs."""
    assert found["epochs"].items() <= wanted["epochs"].items()
    for name in wanted.keys() - {"epochs"}:
        assert found[name] == wanted[name], name


def moment(case: Case, wanted: dict[str, Any], first: int = 1) -> int:
    """After which update to interrupt: at the edge of two epochs or between, and before the end."""
    updates = wanted["updates"]
    whole, between = [], []
    for done in range(first, wanted["done"]):
        (between if done % updates else whole).append(done)
    chosen = (whole or between) if case.at_edge else (between or whole)
    return case.rng.choice(chosen)


def interrupted(case: Case, done: int, path: Path, **more: Any) -> None:
    """Train up to this update, and check that the training stopped there."""
    found = case.run(Interrupt(done), checkpoint=path, **more)
    assert found["done"] == done
    assert "interrupted" in (found["stopped"] if case.models else [found["stopped"]])


def by_signal(case: Case, wanted: dict[str, Any], path: Path) -> list[Path]:
    interrupted(case, moment(case, wanted), path)
    return [path]


def by_error(case: Case, wanted: dict[str, Any], path: Path) -> list[Path]:
    often = case.rng.randrange(1, 4)
    first = 1 + min(often if often % wanted["updates"] else wanted["updates"], wanted["updates"])
    with pytest.raises(Stopped):
        case.run(Fail(moment(case, wanted, first)), checkpoint=path, every_steps=often)
    return [path]


def by_copy(case: Case, wanted: dict[str, Any], path: Path) -> list[Path]:
    """Checkpoints copied during a training, which the copying does not change."""
    every, often = case.rng.randrange(1, 3), case.rng.choice((None, 1, 2, 5))
    times = {moment(case, wanted, 1) for _ in range(6)} | {wanted["done"]}
    same(case.run(Copy(path, times), checkpoint=path, every=every, every_steps=often), wanted)
    copies = [Path(f"{path}.{done}") for done in sorted(times)]
    return [copy for copy in copies if copy.exists()][-2:]


def by_fewer(case: Case, wanted: dict[str, Any], path: Path) -> list[Path]:
    epochs = case.rng.randrange(1, wanted["done"] // wanted["updates"])
    found = case.run(checkpoint=path, epochs=epochs, every=case.rng.randrange(1, 9))
    assert found["done"] == epochs * wanted["updates"]
    return [path]


def twice(case: Case, wanted: dict[str, Any], path: Path) -> list[Path]:
    """The second time, resume from a file and write to the same one."""
    first = moment(case, wanted)
    interrupted(case, first, path)
    if first + 1 < wanted["done"]:
        interrupted(case, moment(case, wanted, first + 1), path, resume=path)
    return [path]


INTERRUPT = dict(zip(WAYS, (by_signal, by_error, by_copy, by_fewer, twice)))


def drawn(number: int) -> int:
    """The number of a case that lasts at least three epochs: stopping criteria may end a training earlier."""
    while reference(number)["done"] < 3 * reference(number)["updates"]:
        number += 1000
    return number


@pytest.mark.parametrize("number", range(CASES))
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(number: int, tmp_path: Path) -> None:
    number = drawn(number)
    case, wanted, path = Case(number), reference(number), tmp_path / "training.gpunn"
    files = INTERRUPT[case.way](case, wanted, path)
    assert files
    for file in files:
        same(case.run(resume=file), wanted)


def test_the_resumed_trainings_cover_every_optimizer_and_option() -> None:
    """Every optimizer and option is interrupted in every way, and some best epochs are not the last."""
    numbers = [drawn(number) for number in range(CASES)]
    cases = [Case(number) for number in numbers]
    assert {case.optimizer for case in cases} == OPTIMIZERS.keys()
    for name, values in {
        "models": {None, 3}, "sampling": {"shuffle", "replacement", "sequential"}, "accumulate": {1, 3},
        "dtype": {"float32", "float64"}, "patience": {None, 1, 2, 3}, "keep": {"best", "last"},
        "schedule": SCHEDULES.keys(), "at_edge": {True, False},
    }.items():  # fmt: skip
        for way in WAYS:
            assert {getattr(case, name) for case in cases if case.way == way} >= values, (name, way)
    for way in WAYS:
        assert {(case.dropout, case.normal) for case in cases if case.way == way} == {
            (a, b) for a in (True, False) for b in (True, False)
        }
        assert {case.plateau is None for case in cases if case.way == way} == {True, False}
    ends = [reference(number) for number in numbers]
    reasons = [why for end in ends for why in np.atleast_1d(end["stopped"])]
    assert sum(why.startswith("EarlyStopping") for why in reasons) > 40
    assert sum(why.startswith("finished") for why in reasons) > 40
    assert sum(end["best_epoch"] != len(end["epochs"]) for end in ends) > 100
    assert sum(max(end["progress"]["factors"]) < 1.0 for end in ends) > 20


@pytest.mark.parametrize("number", [3, 8, 13])
def test_a_training_resumed_in_another_process_has_the_same_bits(number: int, tmp_path: Path) -> None:
    number = drawn(number)
    case, wanted, path = Case(number), reference(number), tmp_path / "training.gpunn"
    interrupted(case, moment(case, wanted), path)
    command = [sys.executable, "-W", "error", "-m", "tests.training.drawn_trainings", str(number), str(path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    expected = json.loads(json.dumps(wanted))
    same(found, expected)


def test_the_comparison_of_resumed_trainings_notices_a_difference() -> None:
    """Two trainings with different sampling differ in everything that is compared."""
    one, other = Case(7).run(), Case(7).run(sampling="sequential" if Case(7).sampling == "shuffle" else "shuffle")
    assert one == Case(7).run()
    assert one["best"] != other["best"] and one["optimizer"] != other["optimizer"] and one["epochs"] != other["epochs"]


def test_a_resumed_training_has_the_same_bits_on_every_backend(backend: Any, tmp_path: Path) -> None:
    path = tmp_path / "training.gpunn"
    whole, resumed = network(device=backend), network(device=backend)
    one = fit(whole, epochs=3)
    fit(network(device=backend), epochs=3, checkpoint=path, callbacks=Interrupt(8))
    two = fit(resumed, epochs=3, resume=path)
    assert bits(resumed) == bits(whole)
    one, two = ({n: h[n].tobytes() for n in h.names if n not in TIMES} for h in (one, two))
    assert one == two


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("done", [2, 28])
def test_a_checkpoint_is_the_network_that_fit_would_leave(
    keep: str, models: int | None, done: int, tmp_path: Path
) -> None:
    """Also in the first epoch, when there is no best one yet."""
    path = tmp_path / "training.gpunn"
    net = network(models=models, dtype="float32")
    start = bits(net)
    rate = gn.SGD(2.0)
    history = fit(net, optimizer=rate, epochs=20, stopping=None, checkpoint=path, keep=keep, callbacks=Interrupt(done))
    loaded = gn.load(path, "cpu")
    assert history.epochs == done // 5
    assert bits(loaded) == bits(net) != start
    assert loaded.dtype == "float32" and repr(loaded.loss) == "CrossEntropy()"
    last = np.frombuffer(archive.read(path)[0]["run/values"].tobytes(), np.uint8)
    now = np.frombuffer(loaded.ops.to_host(loaded.vector).tobytes(), np.uint8)
    assert (keep == "last" or done == 2) == bool((last == now).all())


def test_resuming_to_fewer_epochs_than_done_trains_no_further(tmp_path: Path) -> None:
    """The best weights are restored."""
    path, net, other = tmp_path / "training.gpunn", network(), network(seed=0)
    fit(net, checkpoint=path, stopping=None)
    history = fit(other, epochs=3, resume=path, stopping=None)
    assert bits(other) == bits(net) and history.epochs == 5
    assert history.stopped == "finished 5 epochs"
