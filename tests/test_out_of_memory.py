"""When the process has no more memory, as under `ulimit -v`, whatever it does ends in one error of gpunn.

The tasks run in one process of their own, each with a few more megabytes of address space than the process has.
"""

import builtins
import errno
import json
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import gpunn as gn
from gpunn.cli import gpunn as command
from gpunn.errors import DataError, DeviceMemoryError
from gpunn.memory import memory_errors
from tests.faults import FORM

resource = pytest.importorskip("resource")

ROOT = Path(__file__).resolve().parents[1]
TASKS = """
import copy, gc, json, resource, sys, tempfile
import numpy as np
import gpunn as gn
from gpunn import data, hyper

folder = tempfile.mkdtemp()
X = np.random.default_rng(0).normal(size=(40_000, 32)).astype("float32")
y = (X[:, 0] > 0).astype(int)
WIDE = [gn.Dense(800, "relu"), gn.Dense(800, "relu"), gn.Dense(2)]


def network(**options):
    return gn.Network(WIDE, 32, device="cpu", **options)


net, fresh, text = network(), network(), network().to_json()
population = gn.Network([gn.Dense(400), gn.Dense(400)], 32, device="cpu", models=4)
net.save(f"{folder}/net.gpunn")
net.predict(X[:64])  # what BLAS takes for itself is taken now: it ends the process where it gets nothing
common = dict(loss=gn.CrossEntropy(), optimizer=gn.Adam(), epochs=1, progress=False)
net.fit(X[:64], y[:64], **common)
np.savez(f"{folder}/X.npz", X=X, y=y)
np.save(f"{folder}/X.npy", X)
table = data.read((X[:64], y[:64]))
answering = gn.Network(WIDE, 32, device="cpu")
answering.preprocessing = data.Preprocessing.fit(table)
answering.loss = gn.CrossEntropy()
data.predict(answering, table)
rows = [list(map(float, row)) for row in X[:, :8]]

tasks = {
    "build": network,
    "population": lambda: network(models=30),
    "seeds": lambda: network(models=2**20),
    "from_json": lambda: gn.Network.from_json(text, device="cpu"),
    "load": lambda: gn.load(f"{folder}/net.gpunn", device="cpu"),
    "save": lambda: net.save(f"{folder}/again.gpunn"),
    "copy": lambda: copy.deepcopy(net),
    "member": lambda: population.member(1),
    "fit": lambda: fresh.fit(X, y, validation=0.2, batch_size=8192, **common),
    "predict": lambda: fresh.predict(X, batch_size=40_000),
    "probability": lambda: fresh.predict_probability(X, loss=gn.CrossEntropy(), batch_size=40_000),
    "evaluate": lambda: fresh.evaluate(X, y, loss=gn.CrossEntropy(), batch_size=40_000),
    "gradients": lambda: fresh.gradients(X, y, gn.CrossEntropy()),
    "read npz": lambda: data.read(f"{folder}/X.npz"),
    "read npy": lambda: data.read(f"{folder}/X.npy"),
    "read lists": lambda: data.read({"a": rows[0] * 50_000, "y": rows[0] * 50_000}),
    "answers": lambda: data.predict(answering, (X, y)),
}
before = fresh.vector.copy()
for name, task in tasks.items():
    for more in (1, 8):
        gc.collect()
        taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + (more << 20), resource.RLIM_INFINITY))
        try:
            task()
            outcome = ["done", ""]
        except BaseException as error:
            outcome = [type(error).__name__, str(error)]
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(json.dumps([name, more, *outcome]), flush=True)
print(json.dumps(["unchanged", 0, "done" if np.array_equal(before, fresh.vector) else "changed", ""]))
"""
ALONE = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def outcomes() -> dict[str, list[tuple[str, str]]]:
    done = subprocess.run(
        [sys.executable, "-c", TASKS], cwd=ROOT, env=ALONE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[tuple[str, str]]] = {}
    for line in done.stdout.splitlines():
        name, _, kind, message = json.loads(line)
        found.setdefault(name, []).append((kind, message))
    return found


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's limit of the address space")
def test_every_task_that_runs_out_of_memory_ends_in_an_error_of_gpunn() -> None:
    found = outcomes()
    assert found.pop("unchanged") == [("done", "")]
    for name, results in found.items():
        for kind, message in results:
            assert kind in ("done", "DeviceMemoryError", "DataError"), (name, kind, message)
            assert kind == "done" or (re.match(FORM, message) and "\n" not in message), (name, message)
    short = [name for name, results in found.items() if results[0][0] != "done"]
    assert len(short) >= len(found) - 4, short


def test_an_error_for_missing_memory_says_where_and_keeps_no_array() -> None:
    class Held:
        pass

    held = Held()
    kept = weakref.ref(held)

    def runs_out(held: Held) -> None:
        raise MemoryError("Unable to allocate 3 TiB")

    message = "^here: expected room for every array, got Unable to allocate 3 TiB; use a smaller batch or network$"
    with pytest.raises(DeviceMemoryError, match=message) as caught, memory_errors("here"):
        runs_out(held)
    del held
    assert kept() is None and caught.value is not None
    own = DeviceMemoryError("a", expected="b", got="c", fix="d")
    with pytest.raises(DeviceMemoryError) as again, memory_errors("here"):
        raise own
    assert again.value is own


def runs_out(*_: Any, **__: Any) -> None:
    raise MemoryError


@pytest.mark.parametrize("place", ["checked_pair", "checked_inputs"])
def test_an_estimator_that_runs_out_of_memory_raises_an_error_of_gpunn(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    from gpunn.estimators import MLPRegressor

    X = np.arange(12.0).reshape(6, 2)
    estimator = MLPRegressor(hidden_layer_sizes=(2,), max_iter=50, tol=1e9, n_iter_no_change=1, batch_size=6).fit(
        X, X[:, 0]
    )
    monkeypatch.setattr(f"gpunn.estimators.inputs.{place}", runs_out)
    with pytest.raises(DeviceMemoryError, match="^memory: expected room for every array, got MemoryError; use a small"):
        estimator.fit(X, X[:, 0]).predict(X)


def test_a_command_that_runs_out_of_memory_ends_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunn.cli.inspect.load_network", runs_out)
    told = CliRunner().invoke(command, ["inspect", "a.gpunn", "--json"])
    assert told.exit_code == 5 and json.loads(told.stdout)["error"]["kind"] == "DeviceMemoryError"
    line = "gpunn: memory: expected room for the data and the network, got MemoryError; give part of the data, use"
    assert told.stderr.startswith(line) and told.stderr.count("\n") == 1


def test_the_error_for_a_network_too_large_to_load_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error does not call the file damaged."""
    gn.Network([gn.Dense(2)], 3, device="cpu").save(tmp_path / "net.gpunn")
    for place, where in (
        ("gpunn.checkpoint.from_json", "checkpoint '.*net.gpunn'"),
        ("gpunn.engine.tables", "Network"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, runs_out)
            with pytest.raises(
                DeviceMemoryError, match=f"^{where}: expected room for every array, got MemoryError; use"
            ):
                gn.load(tmp_path / "net.gpunn", device="cpu")


def test_running_out_of_memory_in_pyarrow_is_not_taken_for_a_missing_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the file called damaged."""
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")
    original = builtins.__import__

    def load(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "pyarrow.compute":
            raise ImportError("libarrow.so: failed to map segment from shared object")
        return original(name, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", load)
        with pytest.raises(
            DataError, match=r"a.csv: expected a table that fits in memory, got none to load pyarrow: lib"
        ):
            gn.data.read(path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("gpunn.data.arrow._csv", full)
    with pytest.raises(
        DataError, match=r"a.csv: expected a table that fits in memory, got .*Cannot allocate memory; give"
    ):
        gn.data.read(path)
    monkeypatch.setattr("gpunn.data.reading.from_memory", runs_out)
    with pytest.raises(
        DataError, match=r"^data: expected a table that fits in memory, got a larger one; give part of it"
    ):
        gn.data.read({"a": [1]})
