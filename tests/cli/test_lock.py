"""Only one training at a time uses the folder of a run, however the one that holds it ends.

GPUNN_PAIRS is the number of pairs of trainings that start at once with one --out; 10 unless it is set.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpunn import files
from gpunn.cli import train
from gpunn.cli.lock import NAME, InUse, Lock
from gpunn.cli.runs import RunFolder, new_folder
from gpunn.cli.training import FolderCallback
from gpunn.errors import CheckpointError, ConfigurationError
from tests.cli.stage import QUICK, ROOT, call, document

PAIRS = int(os.environ.get("GPUNN_PAIRS", "10"))
CPU = ("--device", "cpu")
pytestmark = pytest.mark.skipif(files.fcntl is None, reason="this system has no such locks")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[Lock]:
    """A held lock of the folder `run`."""
    Path("run").mkdir()
    held = Lock(Path("run"))
    yield held
    held.release()


def test_of_two_trainings_into_one_folder_exactly_one_runs(tmp_path: Path) -> None:
    """If that one is killed, the folder is free again."""
    command = [sys.executable, "-m", "tests.cli.pairs", str(tmp_path), str(PAIRS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print(result)
    assert result["one"] == PAIRS and result["killed"] == (PAIRS + 2) // 3
    assert result["told"]["a folder that no other training uses"] >= result["killed"]


def test_the_error_for_a_folder_in_use_names_the_process_and_what_to_do(lock: Lock) -> None:
    told = call("train", "moons", "--out", "run", *QUICK, code=2).stderr
    assert re.fullmatch(
        rf"gpunn: --out: expected a folder that no other training uses, got run, which process {os.getpid()} on \S+ "
        r"uses; wait until that one has ended, or end it; or choose another --out\n",
        told,
    )
    assert os.listdir("run") == [NAME]


def test_a_running_training_cannot_be_resumed_but_can_be_read(lock: Lock) -> None:
    call("train", "moons", "--out", "a", *QUICK)
    before = {path.name: path.read_bytes() for path in Path("a").iterdir()}
    held = Lock(Path("a"))
    try:
        told = call("train", "--resume", "--out", "a", *CPU, code=2).stderr
        assert "--resume: expected a folder that no other training uses" in told and f"process {os.getpid()} " in told
        assert document("evaluate", "a", "moons", *CPU)["rows"] == 1000
        assert document("inspect", "a")["record"]["status"] == "finished"
        assert call("predict", "a", "moons", *CPU).stdout.count("\n") == 1001
    finally:
        held.release()
    assert {path.name: path.read_bytes() for path in Path("a").iterdir()} == before
    call("train", "--resume", "--out", "a", "--quiet", *CPU)


def test_train_holds_the_lock_of_its_folder_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def second(self: FolderCallback, run: Any, record: Any) -> None:
        with pytest.raises(InUse, match=f"process {os.getpid()} on"):
            Lock(Path("a"))
        tried.append(run.epoch)

    monkeypatch.setattr(FolderCallback, "on_epoch", second)
    call("train", "moons", "--out", "a", *QUICK)
    call("train", "--resume", "--out", "a", "--quiet", *CPU)
    assert tried == [1, 2, 3, 4, 5, 6] and not Path("a", NAME).exists()
    monkeypatch.setattr(train.TableTraining, "prepare", _mistake)
    with pytest.raises(ZeroDivisionError):
        call("train", "--resume", "--out", "a", "--quiet", *CPU)
    assert not Path("a", NAME).exists()


def _mistake(*arguments: Any) -> None:
    raise ZeroDivisionError


def test_two_trainings_without_the_option_out_get_different_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if another training names the folder just after it was made."""
    others: list[Lock] = []
    make = files.make_folder

    def made(path: Path) -> bool:
        new = make(path)
        if path == Path("runs/moons"):
            others.append(Lock(path))
        return new

    monkeypatch.setattr(files, "make_folder", made)
    folder = new_folder(None, "moons")
    assert (str(others[0].folder), str(folder.path)) == ("runs/moons", "runs/moons-2")
    for one in (*others, folder):
        one.release()


# The lock itself


def test_a_released_lock_can_be_taken_again(lock: Lock) -> None:
    with pytest.raises(InUse, match=f"^process {os.getpid()} on "):
        Lock(Path("run"))
    lock.release()
    lock.release()
    assert not os.listdir("run")
    Lock(Path("run")).release()


@pytest.mark.parametrize("text", [b"", b"\x1b[31m", b"process 12 on a\nb", b"x" * 1000])
def test_a_lock_file_with_foreign_content_is_reported_as_another_process(text: bytes, lock: Lock) -> None:
    Path("run", NAME).write_bytes(text)
    with pytest.raises(InUse, match="^another process$"):
        Lock(Path("run"))


def test_the_lock_file_of_a_killed_process_does_not_lock() -> None:
    Path("run").mkdir()
    Path("run", NAME).write_text("process 123456789 on a-machine-that-is-gone")
    held = Lock(Path("run"))
    assert Path("run", NAME).read_text().startswith(f"process {os.getpid()} on ")
    held.release()


def test_child_processes_do_not_hold_the_lock_of_their_parent() -> None:
    Path("run").mkdir()
    program = (
        "import os, signal, subprocess, sys\nfrom pathlib import Path\nfrom gpunn.cli.lock import Lock\n"
        "lock = Lock(Path('run'))\n"
        "child = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=-3, stderr=-3)\n"
        "print(child.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    try:
        Lock(Path("run")).release()
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


STRANGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "text": (lambda path: path.write_text("kept"), "another file"),
    "a name of another lock": (lambda path: path.hardlink_to("other"), "another file"),
    "link": (lambda path: path.symlink_to("../other"), "a link"),
    "pipe": (lambda path: os.mkfifo(path), "a device, pipe or socket"),
    "folder": (lambda path: path.mkdir(), "a folder of that name"),
}


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("kind", STRANGE)
def test_a_folder_or_link_in_the_place_of_a_lock_file_is_refused_and_left(
    kind: str, locks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not locks:
        monkeypatch.setattr(files, "lock", lambda file, wait: None)
    make, got = STRANGE[kind]
    Path("run").mkdir()
    Path("other").write_text("process 1 on a")
    path = Path("run", NAME)
    make(path)
    before = os.lstat(path)
    told = call("train", "moons", "--out", "run", *QUICK, code=4).stderr
    fix = "rename it, or choose another --out"
    assert told == f"gpunn: {path}: expected no file of that name, or one that a training left, got {got}; {fix}\n"
    assert os.lstat(path)[:7] == before[:7] and Path("other").read_text() == "process 1 on a"


def test_releasing_a_lock_leaves_foreign_content_of_its_file(lock: Lock) -> None:
    Path("run", NAME).write_text("kept")
    lock.release()
    assert Path("run", NAME).read_text() == "kept"


def test_a_lock_file_removed_by_its_holder_is_made_again_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("run").mkdir()
    take, given = files.lock, []

    def late(file: Any, *, wait: bool) -> bool | None:
        given.append(file.name)
        if len(given) == 1:
            os.unlink(file.name)
        return take(file, wait=wait)

    monkeypatch.setattr(files, "lock", late)
    held = Lock(Path("run"))
    assert len(given) == 2 and os.listdir("run") == [NAME]
    with pytest.raises(InUse):
        Lock(Path("run"))
    held.release()


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [(files, "lock", lambda file, wait: None), (Lock, "_in_place", lambda self, file: False)],
    ids=["no locks", "a number of its own at each look"],
)
def test_train_warns_on_a_file_system_without_locks(
    place: Any, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, value)
    told = call("train", "moons", "--out", "a", *QUICK).stderr
    assert told.splitlines()[0] == ("gpunn: a is on a file system without locks: let no other training use it")
    assert Path("a", NAME).exists() == (place is Lock)  # where it might be another's


# A folder that does not stay as it was


def moved() -> None:
    os.rename("run", "elsewhere")


def replaced() -> None:
    moved()
    os.mkdir("run")


def removed() -> None:
    os.unlink(f"run/{NAME}")
    os.rmdir("run")


def taken() -> None:
    os.unlink(f"run/{NAME}")
    others.append(Lock(Path("run")))


others: list[Lock] = []


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (moved, "No such file or directory"),
        (removed, "No such file or directory"),
        (replaced, "another folder of that name"),
        (taken, r"one that process \d+ on \S+ uses too"),
    ],
)
def test_a_training_notices_that_its_folder_was_moved_or_replaced(
    change: Callable[[], None], got: str, lock: Lock
) -> None:
    lock.require()
    change()
    message = rf"^run: expected the folder that this training began with, got {got}; leave it in its place and its lock"
    try:
        with pytest.raises(CheckpointError, match=message):
            lock.require()
        with pytest.raises(CheckpointError, match=message):
            RunFolder(Path("run"), lock).write({})
    finally:
        while others:
            others.pop().release()


def test_a_lock_file_that_was_deleted_is_made_again(lock: Lock) -> None:
    os.unlink(f"run/{NAME}")
    lock.require()
    with pytest.raises(InUse):
        Lock(Path("run"))


@pytest.mark.parametrize("epoch", [1, 6])
@pytest.mark.parametrize("change", [moved, replaced])
def test_the_error_of_a_training_whose_folder_vanishes_names_the_folder(
    epoch: int, change: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes nothing into another folder of that name."""
    look = FolderCallback.on_epoch

    def vanish(self: FolderCallback, run: Any, record: Any) -> None:
        if run.epoch == epoch:
            change()
        look(self, run, record)

    monkeypatch.setattr(FolderCallback, "on_epoch", vanish)
    told = call("train", "moons", "--out", "run", *QUICK, code=4).stderr
    assert told.startswith("gpunn: run: expected the folder that this training began with, got ")
    assert told.count("\n") == 1
    assert not Path("run").exists() or not os.listdir("run")


def test_the_error_for_a_history_that_cannot_be_written_names_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpunn.training.history.History.to_csv", full)
    told = call("train", "moons", "--out", "run", *QUICK, code=4).stderr
    assert told.startswith("gpunn: run/history.csv: expected a file that can be written, got No space left on device;")


# New folders last


def test_the_parent_folders_of_new_folders_are_synchronised_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synchronised.append(os.fstat(number).st_ino), fsync(number)))
    for out, parents in (("a/b/c", (".", "a", "a/b")), (None, (".", "runs"))):
        synchronised.clear()
        new_folder(out, "moons").release()
        assert synchronised == [os.stat(parent).st_ino for parent in parents]
    synchronised.clear()
    new_folder("a/b/c", "moons").release()
    assert not synchronised


def test_make_folder_says_if_another_process_made_the_folder_first(monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = os.mkdir

    def slow(path: str) -> None:
        mkdir(path)
        mkdir(path)

    monkeypatch.setattr(os, "mkdir", slow)
    assert files.make_folder("a") is False and os.path.isdir("a")
    Path("b").write_text("")
    with pytest.raises(FileExistsError):
        files.make_folder("b")


def test_the_error_for_a_taken_folder_names_the_command_to_resume_it() -> None:
    call("train", "moons", "--out", "a b", *QUICK)
    with pytest.raises(ConfigurationError, match=r"gpunn train --resume --out 'a b'$"):
        new_folder("a b", "moons")
    assert not Path("a b", NAME).exists()
