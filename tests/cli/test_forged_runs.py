"""Runs whose run.json or history.json somebody edited, or put something else in the place of: the command ends with its
exit code and one line and leaves the folder as it is to the byte, or does what it does with a sound run.

GPUNN_TEST_FORGERIES=3000 edits 1,000 runs; see tests/training/test_forged_checkpoints.py.
"""

import json
import os
import random
import re
import shutil
import signal
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import gpunn as gn
from gpunn import archive
from gpunn.cli import gpunn
from gpunn.cli.training import FolderCallback
from tests.faults import FORM
from tests.forgeries import COUNT, JSON_EDITS, edit_json, edit_text
from tests.unprivileged import unprivileged

COMMANDS = {  # which read a file, mostly
    "run.json": ("inspect", "inspect --json", "train --resume", "train --resume", "evaluate"),
    "history.json": ("inspect", "inspect --json", "predict", "train --resume"),
    "model.gpunn": ("inspect", "evaluate", "predict"),
    "checkpoint.gpunn": ("train --resume",),
}
KINDS = [
    *((name, how) for name in ("run.json", "history.json") for how in (*JSON_EDITS, "text")),
    *((name, how) for name in ("model.gpunn", "checkpoint.gpunn") for how in JSON_EDITS),
]
CPU = ("--device", "cpu")
TIMES = ("seconds", "examples_per_second")
MEMORY = 40 << 20


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that Ctrl-C interrupted in its third epoch, and its table."""
    folder = tmp_path_factory.mktemp("forged")
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'yes' if a + b > 0 else 'no'}" for a, b in rng.normal(size=(40, 2))]
    (folder / "data.csv").write_text("\n".join(["a,b,y", *rows]) + "\n")

    def interrupt(self: Any, run: Any) -> None:
        run.signals.interrupted = run.standing.done == 9

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderCallback, "on_step", interrupt)
        options = ("--hidden", "4", "--epochs", "5", "--batch-size", "10", "--quiet", *CPU)
        assert invoke("train", folder / "data.csv", "--out", folder / "run", *options)[0] == 130
    return folder


def invoke(*arguments: Any) -> tuple[int, str, str]:
    result = CliRunner().invoke(gpunn, [str(a) for a in arguments], catch_exceptions=False, prog_name="gpunn")
    return result.exit_code, result.stdout, result.stderr


def commands(base: Path, run: Path) -> dict[str, tuple[Any, ...]]:
    return {
        "inspect": ("inspect", run),
        "inspect --json": ("inspect", run, "--json"),
        "evaluate": ("evaluate", run, base / "data.csv", *CPU),
        "predict": ("predict", run, base / "data.csv", "--probabilities", *CPU),
        "train --resume": ("train", "--resume", "--out", run, "--quiet", *CPU),
    }


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.iterdir()) if path.is_file() and not path.is_symlink()}


def refused(code: int, stdout: str, stderr: str) -> None:
    """Check that the error is one line and nothing else was printed."""
    assert code in (2, 3, 4) and stderr.count("\n") == 1, stderr
    assert stderr.startswith("gpunn: ") and re.match(FORM, stderr), stderr
    assert not stdout or "error" in json.loads(stdout)


@pytest.fixture(scope="module")
def sound(base: Path) -> dict[str, tuple[str, dict[str, bytes]]]:
    """What every command prints for the unedited run, and the files that it leaves."""
    told = {}
    for name in commands(base, base):
        run = base / "forged"  # of the same name as those that follow
        shutil.copytree(base / "run", run)
        code, stdout, _ = invoke(*commands(base, run)[name])
        assert code == 0
        told[name] = stdout, files(run)
        shutil.rmtree(run)
    return told


def edit(draw: random.Random, path: Path, how: str) -> None:
    if path.suffix == ".gpunn":  # with a right digest
        arrays, value = archive.read(path)
        edit_json(draw, value, how)
        archive.write(path, arrays, value)
    elif how == "text":
        path.write_bytes(edit_text(draw, path.read_bytes()))
    else:
        value = json.loads(path.read_bytes())
        edit_json(draw, value, how)
        path.write_text(json.dumps(value))


def attempt(base: Path, run: Path, command: str, name: str, sound: dict[str, tuple[str, dict[str, bytes]]]) -> bool:
    """Whether the command accepted the run; with edited JSON it must then end as with a sound run."""
    before = files(run)
    code, stdout, stderr = invoke(*commands(base, run)[command])
    if code:
        refused(code, stdout, stderr)
        assert files(run) == before
        return False
    wanted, left = sound[command]
    if name.endswith(".gpunn"):
        assert files(run) == before or command == "train --resume"
    elif command == "train --resume":
        assert files(run)["model.gpunn"] == left["model.gpunn"]
        history, other = (gn.History.from_json(f["history.json"].decode()) for f in (files(run), left))
        assert all(history[n].tobytes() == other[n].tobytes() for n in other if n not in TIMES)
        assert json.loads(files(run)["run.json"])["status"] == "finished"
    else:
        assert files(run) == before
        if command in ("evaluate", "predict"):
            assert stdout == wanted
        elif command == "inspect --json":
            told, document = json.loads(stdout), json.loads(wanted)
            part = {"run.json": "record", "history.json": "history"}[name]
            assert {**told, part: None} == {**document, part: None}
    return True


def test_a_run_with_edited_files_is_refused_or_treated_as_a_sound_one(base: Path, sound: Any) -> None:
    seen, faults, run = Counter[str](), [], base / "forged"
    for number in range(max(COUNT // 3, len(KINDS))):
        draw, (name, how) = random.Random(number), KINDS[number % len(KINDS)]
        command = COMMANDS[name][(number // len(KINDS)) % len(COMMANDS[name])]
        shutil.copytree(base / "run", run)
        edit(draw, run / name, how)
        try:
            taken = "taken" if attempt(base, run, command, name, sound) else "refused"
        except Exception as error:
            faults.append(f"{number} {command}, {name} {how}: {type(error).__name__}: {error}"[:300])
        else:
            seen[f"{name}, {command}: {taken}"] += 1
        finally:
            shutil.rmtree(run)
    print(f"\n{sum(seen.values())} edited runs")
    print("\n".join(f"  {count:5} {what}" for what, count in sorted(seen.items())))
    assert not faults, "\n".join(faults)
    assert all(any(what.startswith(name) and what.endswith("refused") for what in seen) for name in COMMANDS)


# Other things in the place of a file


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(5 << 30)


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00{}")


THINGS: tuple[Callable[[Path], None], ...] = (fifo, folder, loop, endless, sparse, no_text)
READERS = {
    "run.json": ("inspect", "inspect --json", "train --resume"),
    "history.json": ("inspect", "inspect --json"),
    "model.gpunn": ("inspect", "evaluate", "predict"),
    "checkpoint.gpunn": ("train --resume",),
}


@contextmanager
def at_once() -> Iterator[None]:
    """Fails if something waits for a pipe or takes much memory."""

    def late(number: int, frame: Any) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__name__)
@pytest.mark.parametrize("name", READERS)
def test_a_run_with_a_folder_or_pipe_in_the_place_of_a_file_is_refused(
    name: str, thing: Callable[[Path], None], base: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(base / "run", run)
    (run / name).unlink()
    thing(run / name)
    names = sorted(os.listdir(run))
    for command in READERS[name]:
        with at_once():
            code, stdout, stderr = invoke(*commands(base, run)[command])
        refused(code, stdout, stderr)
        assert name in stderr and sorted(os.listdir(run)) == names


@pytest.mark.parametrize("name", READERS)
def test_a_run_with_a_file_that_may_not_be_read_is_refused(name: str, base: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp" if Path("/tmp").is_dir() else None) as place:  # which all may enter
        os.chmod(place, 0o755)
        shutil.copytree(base / "run", Path(place, "run"))
        shutil.copy(base / "data.csv", place)
        record = Path(place, "run", "run.json")
        record.write_text(record.read_text().replace(str(base), place))
        Path(place, "run", name).chmod(0)
        Path(place, "run").chmod(0o777)  # a training makes its lock there before it reads
        for command in READERS[name]:
            with unprivileged():
                code, stdout, stderr = invoke(*commands(Path(place), Path(place, "run"))[command])
            refused(code, stdout, stderr)
            assert name in stderr and "Permission denied" in stderr
