"""A training that was interrupted and resumed is, to the last bit, the one that never stopped.

Run as `python -m tests.training.test_resume NUMBER FILE` it resumes a case from a file in a process of its own and
prints how it ended.
"""

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import archive
from gpunn.errors import CheckpointError
from gpunn.regularization import L1, L2, MaxNorm
from gpunn.schedules import Cosine, Exponential, InverseTime, OneCycle, ReduceOnPlateau, StepDecay, Warmup
from tests.archives import seal

ROOT = Path(__file__).resolve().parents[2]
CASES = 200
EPOCHS = 7
ROWS = 41
BETAS = (0.8, 0.95)
TIMES = ("seconds", "examples_per_second")  # the only columns that may differ
X = np.random.default_rng(0).normal(size=(ROWS, 4))
Y = np.random.default_rng(1).integers(0, 3, ROWS)

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda rate: gn.SGD(rate),
    "momentum": lambda rate: gn.SGD(rate, momentum=0.8, dampening=0.1, weight_decay=1e-2),
    "nesterov": lambda rate: gn.SGD(rate, momentum=0.7, nesterov=True),
    "lion": lambda rate: gn.Lion(rate, betas=BETAS, weight_decay=0.1),
    "adam": lambda rate: gn.Adam(rate, betas=BETAS, eps=1e-6),
    "amsgrad": lambda rate: gn.Adam(rate, betas=BETAS, amsgrad=True, epsilon="hat"),
    "adamw": lambda rate: gn.AdamW(rate, betas=BETAS, weight_decay=0.1),
    "adamax": lambda rate: gn.Adamax(rate, betas=BETAS),
    "nadam": lambda rate: gn.NAdam(rate, betas=BETAS, decoupled_weight_decay=True, weight_decay=0.1),
    "radam": lambda rate: gn.RAdam(rate, betas=BETAS),
    "adagrad": lambda rate: gn.Adagrad(rate, lr_decay=0.01, initial_accumulator_value=0.1),
    "adadelta": lambda rate: gn.Adadelta(rate, rho=0.8),
    "rmsprop": lambda rate: gn.RMSprop(rate, alpha=0.9, momentum=0.5, centered=True),
    "lbfgs": lambda rate: gn.LBFGS(rate, history_size=3, max_evaluations=8),
}
RATES = {"lion": 0.02, "adadelta": 3.0, "lbfgs": 1.0, "sgd": 0.8, "momentum": 0.3, "nesterov": 0.3, "rmsprop": 0.02}
SCHEDULES: dict[str, Callable[[float], Any]] = {
    "constant": lambda rate: rate,
    "warmup": lambda rate: Warmup(5, Cosine(rate, 20), start_factor=0.1),
    "one cycle": lambda rate: OneCycle(rate, 30),
    "exponential": lambda rate: Exponential(rate, 0.97),
    "per model": lambda rate: (rate, StepDecay(rate, 7, 0.5), InverseTime(rate, 0.05)),
}
EXTRAS = ({}, {"regularization": L2(1e-3)}, {"regularization": [L1(1e-3), MaxNorm(2.0)], "clip_norm": 1.0})
WAYS = ("signal", "error", "copy", "fewer", "twice")


class Stopped(Exception):
    """What a callback raises to end a training."""


class Case:
    """A training drawn by its number: a new network of it and the arguments of fit are always the same ones."""

    def __init__(self, number: int) -> None:
        rng = random.Random(number)
        self.number, self.way = number, WAYS[number % len(WAYS)]
        self.optimizer = rng.choice(list(OPTIMIZERS))
        full = self.optimizer == "lbfgs"
        self.models = None if full else rng.choice((None, 3))
        self.dropout, self.normal = rng.choice(((True, False), (False, True), (True, True), (False, False)))
        self.at_edge = full or rng.random() < 0.4  # interrupted between two epochs
        self.sampling = rng.choice(("shuffle", "replacement", "sequential"))
        self.accumulate = rng.choice((1, 3))
        names = [name for name in SCHEDULES if name != "per model" or self.models]
        self.schedule = rng.choice(names)
        self.plateau = rng.choice((None, ReduceOnPlateau(0.5, rng.randrange(2), cooldown=1)))
        self.patience = rng.choice((None, 1, 2, 3))
        self.dtype = rng.choice(("float32", "float64"))
        self.batch = rng.choice((4, 7, 8))
        self.validation = rng.choice((None, 0.3, (X[:9] + 0.5, Y[:9])))
        self.extra = rng.choice(EXTRAS[:2] if full else EXTRAS)  # which takes penalties only
        self.weighted, self.dropped, self.measured = (rng.random() < 0.3 for _ in range(3))
        self.keep = "last" if rng.random() < 0.15 else "best"
        self.rng = rng

    def __repr__(self) -> str:
        return f"Case({', '.join(f'{k}={v!r}' for k, v in vars(self).items() if k not in ('rng', 'validation'))})"

    def network(self, **options: Any) -> gn.Network:
        layers = [gn.Dense(6), *[gn.BatchNorm()] * self.normal, gn.Tanh(), *[gn.Dropout(0.3)] * self.dropout]
        given = {"device": "cpu", "dtype": self.dtype, "models": self.models, "seed": self.number, **options}
        return gn.Network([*layers, gn.Dense(3)], 4, **given)

    def options(self) -> dict[str, Any]:
        stopping = [] if self.patience is None else [gn.EarlyStopping(self.patience)]
        stopping += [gn.GradientTolerance(1e-9)] * self.measured
        return {
            "loss": gn.CrossEntropy(),
            "optimizer": OPTIMIZERS[self.optimizer](SCHEDULES[self.schedule](RATES.get(self.optimizer, 0.05))),
            "epochs": EPOCHS, "batch_size": self.batch, "validation": self.validation, "metrics": ("accuracy",),
            "stopping": stopping, "sampling": self.sampling, "accumulate": self.accumulate, "plateau": self.plateau,
            "keep": self.keep, "drop_last": self.dropped, "progress": False,
            "sample_weight": np.linspace(0.1, 1.0, ROWS) if self.weighted else None, **self.extra,
        }  # fmt: skip

    def run(self, *callbacks: Any, **more: Any) -> dict[str, Any]:
        """Train a new network, and everything about how that ended."""
        watch = Watch()
        network = self.network()
        history = network.fit(X, Y, **{**self.options(), "callbacks": [watch, *callbacks], **more})
        return watch.ended(network, history)


class Watch(gn.Callback):
    """What there is to compare, read while training goes on and not from any file."""

    def __init__(self) -> None:
        self.epochs: dict[int, str] = {}
        self.steps = 0

    def on_start(self, run: Any) -> None:
        self.run = run
        self.updates = len(run.trainer.updates)

    def on_epoch(self, run: Any, record: Any) -> None:
        self.epochs[run.epoch] = self.digest()

    def digest(self) -> str:
        """Values, state and everything the optimizer keeps, as they are now."""
        run = self.run
        arrays = [run.network.vector, run.network.store.state, run.network.step]
        arrays += [run.trainer.frame.state()[name] for name in sorted(run.trainer.frame.state())]
        return hashlib.sha256(b"".join(run.network.ops.to_host(a).tobytes() for a in arrays)).hexdigest()

    def ended(self, network: gn.Network, history: gn.History) -> dict[str, Any]:
        kept = {name: network.ops.to_host(a) for name, a in self.run.trainer.frame.state().items()}
        columns = {name: history[name].tobytes().hex() for name in history.names if name not in TIMES}
        return {
            "epochs": self.epochs, "best": bits(network), "columns": columns, "stopped": history.stopped,
            "best_epoch": history.best_epoch, "optimizer": {name: a.tobytes().hex() for name, a in kept.items()},
            "done": self.run.at.done, "updates": self.updates, "loss": repr(network.loss),
            "progress": {k: v for k, v in vars(self.run.at).items() if k != "seconds"},
        }  # fmt: skip


def bits(network: gn.Network) -> str:
    """All that a network holds, in hexadecimal."""
    host = network.ops.to_host
    return (host(network.vector).tobytes() + host(network.store.state).tobytes() + host(network.step).tobytes()).hex()


class Interrupt(gn.Callback):
    """Ctrl-C after a number of updates."""

    def __init__(self, done: int) -> None:
        self.done = done

    def on_step(self, run: Any) -> None:
        if run.at.done == self.done:
            run.signals.interrupted = True


class Fail(Interrupt):
    """An error after a number of updates: in the step, or in the epoch that it ends."""

    def on_step(self, run: Any) -> None:
        if run.at.done == self.done and run.at.update < len(run.trainer.updates):
            raise Stopped

    def on_epoch(self, run: Any, record: Any) -> None:
        if run.at.done == self.done:
            raise Stopped


class Copy(gn.Callback):
    """Copies the checkpoint, as it is after so many updates, to a name of its own."""

    def __init__(self, path: Path, at: set[int]) -> None:
        self.path, self.at = path, at

    def on_step(self, run: Any) -> None:
        if run.at.done in self.at and self.path.exists():
            shutil.copy(self.path, f"{self.path}.{run.at.done}")


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
    """Run up to an update, and look that it was there that it stopped."""
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
    """Checkpoints that were read while training went on, which that leaves as it is."""
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
    """The second time it goes on in the file from which it came."""
    first = moment(case, wanted)
    interrupted(case, first, path)
    if first + 1 < wanted["done"]:
        interrupted(case, moment(case, wanted, first + 1), path, resume=path)
    return [path]


INTERRUPT = dict(zip(WAYS, (by_signal, by_error, by_copy, by_fewer, twice)))


def drawn(number: int) -> int:
    """The number of a case that lasts three epochs: criteria may end it before."""
    while reference(number)["done"] < 3 * reference(number)["updates"]:
        number += 1000
    return number


@pytest.mark.parametrize("number", range(CASES))
def test_resumed_as_if_never_stopped(number: int, tmp_path: Path) -> None:
    number = drawn(number)
    case, wanted, path = Case(number), reference(number), tmp_path / "training.gpunn"
    files = INTERRUPT[case.way](case, wanted, path)
    assert files
    for file in files:
        same(case.run(resume=file), wanted)


def test_cases_cover_everything() -> None:
    """What is drawn holds every optimizer with every way, and trainings whose best epoch is not the last."""
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
def test_resumed_in_another_process(number: int, tmp_path: Path) -> None:
    number = drawn(number)
    case, wanted, path = Case(number), reference(number), tmp_path / "training.gpunn"
    interrupted(case, moment(case, wanted), path)
    command = [sys.executable, "-W", "error", "-m", "tests.training.test_resume", str(number), str(path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    expected = json.loads(json.dumps(wanted))
    same(found, expected)


def test_cases_are_told_apart() -> None:
    """A comparison that would not see a difference proves nothing: two seeds differ in all that is compared."""
    one, other = Case(7).run(), Case(7).run(sampling="sequential" if Case(7).sampling == "shuffle" else "shuffle")
    assert one == Case(7).run()
    assert one["best"] != other["best"] and one["optimizer"] != other["optimizer"] and one["epochs"] != other["epochs"]


# One training, for what needs no drawing


def network(layers: Any = None, **options: Any) -> gn.Network:
    layers = layers or [gn.Dense(6), gn.BatchNorm(), gn.Tanh(), gn.Dropout(0.2), gn.Dense(3)]
    return gn.Network(layers, 4, **{"device": "cpu", "dtype": "float64", **options})


def fit(net: gn.Network, **changes: Any) -> gn.History:
    settings = {
        "X": X, "y": Y, "loss": gn.CrossEntropy(), "optimizer": gn.Adam(0.05, betas=BETAS), "epochs": 5,
        "batch_size": 8, "stopping": gn.EarlyStopping(3), "progress": False,
    }  # fmt: skip
    return net.fit(**{**settings, **changes})


def test_every_backend(backend: Any, tmp_path: Path) -> None:
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
def test_checkpoint_is_the_network_that_fit_would_leave(
    keep: str, models: int | None, done: int, tmp_path: Path
) -> None:
    """In the first epoch, too, when nothing is the best yet."""
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


def test_resumes_to_fewer_epochs_than_done(tmp_path: Path) -> None:
    """There is nothing left to do, and the best weights come back."""
    path, net, other = tmp_path / "training.gpunn", network(), network(seed=0)
    fit(net, checkpoint=path, stopping=None)
    history = fit(other, epochs=3, resume=path, stopping=None)
    assert bits(other) == bits(net) and history.epochs == 5
    assert history.stopped == "finished 5 epochs"


# Refusals


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "training.gpunn"
    fit(network(), checkpoint=path, callbacks=Interrupt(8))
    return path


def refused(net: gn.Network, match: str, path: Any, **changes: Any) -> None:
    """It says why, and neither network nor file have changed."""
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
def test_refuses_another_network(name: str, file: Path) -> None:
    make, match = OTHERS[name]
    refused(make(), match, file)


def test_refuses_a_network_that_differs_at_its_deepest_place(tmp_path: Path) -> None:
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
def test_refuses_other_settings(name: str, file: Path) -> None:
    changes, match = CHANGES[name]
    refused(network(), match, file, **changes)


def test_refuses_a_saved_network(file: Path) -> None:
    network().save(file)
    refused(network(), "expected a checkpoint of a training, got a saved network; load it with gn.load", file)


def test_refuses_a_newer_format(file: Path) -> None:
    file.write_bytes(seal(file.read_bytes().replace(b'"gpunn_format":"1"', b'"gpunn_format":"2"', 1)))
    refused(network(), "expected format 1 or older, got format 2", file)


def test_refuses_what_is_not_there(tmp_path: Path) -> None:
    refused(network(), "expected a file to read, got No such file", tmp_path / "none.gpunn")


def test_refuses_damage(file: Path) -> None:
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


def test_refuses_missing_and_misshapen_arrays(tmp_path: Path) -> None:
    """Each array of the file in turn, also those that are there only in the first epoch."""
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
def test_refuses_another_state(part: str, value: Any, match: str, file: Path) -> None:
    arrays, meta = archive.read(file)
    meta["run"][part] = value
    archive.write(file, arrays, meta)
    refused(network(), match, file)


def test_refuses_another_counter(file: Path) -> None:
    arrays, meta = archive.read(file)
    for step in (-1, "none", None, 2**64):
        meta["network"]["step"] = step
        archive.write(file, arrays, meta)
        refused(network(), "meta.network.step: expected a whole number from 0 to 18446744073709551615, got", file)
    archive.write(file, arrays, {"run": meta["run"]})
    refused(network(), "meta: expected an object of network, run, got", file)


# What goes wrong in a training


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
def test_a_loss_that_is_not_finite_ends_it(
    dtype: str, at: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the first epochs nothing was better than the start; later the best epoch is the last one before."""
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
def test_a_checkpoint_after_a_bad_loss_keeps_the_best_weights(at: int, tmp_path: Path) -> None:
    """Each file that was on the disk while the loss was NaN loads as the best network, at first as the initial one."""
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


def test_interrupted_after_a_bad_loss(tmp_path: Path) -> None:
    path, net = tmp_path / "training.gpunn", line(dtype="float32")
    start = values(net)
    history = diverging(net, 0, batch_size=5, checkpoint=path, callbacks=Interrupt(7))
    assert history.stopped == "interrupted" and history.epochs == 0
    assert not np.isfinite(archive.read(path)[0]["run/values"]).all()
    assert values(net) == values(gn.load(path, "cpu")) == start


def test_resumed_before_the_first_epoch_ended_the_initial_weights_are_still_known(tmp_path: Path) -> None:
    """They are what a failure leaves, and not those that the file went on from."""
    path, net = tmp_path / "training.gpunn", network(models=2, dtype="float32")
    start = bits(net)[: 2 * len(net.vector.tobytes() + net.store.state.tobytes())]
    changes = {"loss": gn.CrossEntropy(), "y": Y, "X": np.where(np.arange(ROWS)[:, None] < 24, X, 3e38)}
    diverging(network(models=2, dtype="float32"), 99, **changes, sampling="sequential", checkpoint=path,
              callbacks=Interrupt(2))  # fmt: skip
    assert bits(gn.load(path, "cpu"))[: len(start)] != start
    history = diverging(net, 99, **changes, sampling="sequential", resume=path)
    assert history.stopped == ["non-finite loss at epoch 1, step 4"] * 2
    assert bits(net)[: len(start)] == start


def test_one_bad_model_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
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


def test_an_error_in_a_callback_leaves_the_best_weights(tmp_path: Path) -> None:
    """It comes through as it is; history says that it failed; the checkpoint is that of the epoch before."""
    path, look = tmp_path / "training.gpunn", At(9, Stopped("in epoch 9"))
    net = network()
    with pytest.raises(Stopped, match="in epoch 9"):
        fit(net, optimizer=gn.SGD(5.0), epochs=20, stopping=None, callbacks=look, checkpoint=path)
    best = look.run.history.best_epoch
    assert best < 9 and look.ends == 1
    assert values(net) == look.kept[best] != look.kept[9]
    assert look.run.history.stopped == "failed"
    assert archive.read(path)[1]["run"]["progress"]["epoch"] == 8


def test_an_error_before_the_first_step_changes_nothing(tmp_path: Path) -> None:
    path, net, look = tmp_path / "training.gpunn", network(), At(0, Stopped("at the start"))
    before = bits(net)
    with pytest.raises(Stopped, match="at the start"):
        fit(net, callbacks=look, checkpoint=path)
    assert bits(net) == before and not path.exists()
    assert look.ends == 1 and look.run.history.stopped == "failed"


@pytest.mark.parametrize("often", [{}, {"every_steps": 1}])
def test_a_full_disk(often: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says so, the checkpoint before stays, and the best weights come back."""
    path, look, net = tmp_path / "training.gpunn", At(None), network()
    fill, there = archive._fill, []

    def full(header: bytes, arrays: Any, file: Any) -> None:
        if look.run.at.done >= 40:
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


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    net = network()
    with pytest.raises(CheckpointError, match="expected to write a file, got No such file or directory"):
        fit(net, checkpoint=tmp_path / "none" / "training.gpunn")


if __name__ == "__main__":
    print(json.dumps(Case(int(sys.argv[1])).run(resume=sys.argv[2])))


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize("epochs", [1, 3, 5, 6])
def test_a_loss_lost_right_after_a_resume(tmp_path: Path, models: int | None, epochs: int) -> None:
    """The update before it spoilt what counted as best, so the best weights before those are part of the file too."""
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
