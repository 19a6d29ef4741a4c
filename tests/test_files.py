"""Replacing files: whole or not at all, in the right order, with the right mode, and nothing left behind."""

import errno
import fcntl
import json
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from gpunn import files
from tests.crash import temporaries

OLD, NEW = b"old" * 1000, b"new" * 3000


def fill(file: BinaryIO) -> None:
    file.write(NEW)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.write_bytes(OLD)
    return path


def left_behind(target: Path, *, age: float = 0.0, machine: str | None = None) -> Path:
    """A temporary file as a killed writer leaves it."""
    prefix = f"{files._prefix(str(target))}{machine or files._machine()}"
    path = target.parent / f"{prefix}-{os.getpid()}-{os.urandom(4).hex()}.tmp"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def crash(task: str, folder: Path, count: int) -> dict[str, int]:
    command = [sys.executable, "-W", "error", "-m", "tests.crash", task, str(folder), str(count)]
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    result: dict[str, int] = json.loads(run.stdout)
    return result


def test_replacing_a_file_synchronises_its_data_before_its_name(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data are on the disk before the name points to them, and the name is before the function returns."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(number: int) -> None:
        status = os.fstat(number)
        steps.append("fsync folder" if stat.S_ISDIR(status.st_mode) else f"fsync {status.st_size}")
        fsync(number)

    def watched_replace(source: str, destination: str) -> None:
        assert os.path.dirname(source) == os.path.dirname(destination)
        steps.append("replace")
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    files.replace(str(target), fill)
    files.sync_folder(str(target))
    assert steps == [f"fsync {len(NEW)}", "replace", "fsync folder"]
    assert target.read_bytes() == NEW and os.listdir(target.parent) == ["target"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_newly_written_file_has_the_mode_of_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        files.replace(str(tmp_path / "new"), fill)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o444])
def test_a_replaced_file_keeps_its_mode(target: Path, mode: int) -> None:
    target.chmod(mode)
    files.replace(str(target), fill)
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert target.read_bytes() == NEW


def test_the_temporary_file_is_never_more_open_than_the_target(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even before its mode is set: somebody could open it then and wait for the content."""
    target.chmod(0o600)
    seen: list[int] = []

    def look(file: BinaryIO, _: int = 0) -> None:
        seen.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode))

    monkeypatch.setattr(fcntl, "flock", look)
    files.replace(str(target), look)
    assert seen == [0o600, 0o600]


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError("bad"), Stop("stopped")])
@pytest.mark.parametrize("place", ["fill", "fsync", "replace", "chmod"])
def test_a_failed_replacement_keeps_the_old_file(
    target: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException
) -> None:
    def fail(*_: Any) -> None:
        raise error

    target.chmod(0o666)  # wider than the umask lets a new file be
    if place != "fill":
        monkeypatch.setattr(os, place, fail)
    with pytest.raises(type(error), match="full|bad|stopped"):
        files.replace(str(target), fail if place == "fill" else fill)
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == ["target"]


def test_a_write_beyond_the_file_size_limit_keeps_the_old_file(target: Path) -> None:
    """The limit on file sizes stops a write halfway, as a full disk does, and needs no privileges."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.replace(str(target), fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == ["target"]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this process may not mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    with small_disk(tmp_path, "64k"):
        target = tmp_path / "target"
        target.write_bytes(OLD)
        with pytest.raises(OSError, match="No space left"):
            files.replace(str(target), lambda file: file.write(bytes(1 << 20)) and None)
        assert target.read_bytes() == OLD
        assert os.listdir(tmp_path) == ["target"]
        left_behind(target).write_bytes(bytes(48 << 10))  # fits only once this is swept
        files.replace(str(target), lambda file: file.write(bytes(32 << 10)) and None)
        assert target.stat().st_size == 32 << 10


@pytest.mark.parametrize(("make", "got"), [(os.mkdir, "a folder"), (os.mkfifo, "a device, pipe or socket")])
def test_replacing_a_folder_or_pipe_is_refused(tmp_path: Path, make: Any, got: str) -> None:
    target = tmp_path / "target"
    make(target)
    with pytest.raises(OSError, match=got):
        files.replace(str(target), fill)
    assert os.listdir(tmp_path) == ["target"]


def test_replacing_a_file_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No such file"):
        files.replace(str(tmp_path / "missing" / "target"), fill)


def test_a_file_with_the_longest_possible_name_is_replaced(tmp_path: Path) -> None:
    files.replace(str(tmp_path / ("ä" * 127)), fill)
    assert os.listdir(tmp_path) == ["ä" * 127]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_file_system_that_cannot_synchronise_folders_is_no_error(
    target: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, "cannot")

    monkeypatch.setattr(os, "fsync", fail)
    files.sync_folder(str(target))


def test_an_error_while_synchronising_a_folder_is_raised(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken disk"):
        files.sync_folder(str(target))


# Sweeping


def test_replacing_a_file_deletes_temporary_files_of_killed_writers(target: Path) -> None:
    """Also if a living process has the number of the writer, as in a container that was started again."""
    left_behind(target)
    left_behind(target, age=1000.0)
    files.replace(str(target), fill)
    assert os.listdir(target.parent) == ["target"]


def test_replacing_a_file_leaves_temporary_files_in_use_and_other_files(target: Path) -> None:
    other = left_behind(target.parent / "another target")
    similar = target.parent / f"{files._prefix(str(target))}notes.txt"
    similar.write_text("mine")
    folder, link = left_behind(target).with_suffix(".d.tmp"), left_behind(target).with_suffix(".l.tmp")
    folder.mkdir()
    link.symlink_to(other)
    alive = left_behind(target, age=10 * files.DAY)
    with alive.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        files.replace(str(target), fill)
    kept = {"target", *(path.name for path in (other, similar, folder, link, alive))}
    assert set(os.listdir(target.parent)) == kept
    files.replace(str(target), fill)
    assert set(os.listdir(target.parent)) == kept - {alive.name}


def test_replacing_a_file_leaves_recent_temporary_files_of_another_machine(target: Path) -> None:
    young = left_behind(target, machine="0" * 8, age=0.5 * files.DAY)
    left_behind(target, machine="0" * 8, age=1.5 * files.DAY)
    files.replace(str(target), fill)
    assert temporaries(target.parent) == [young]


@pytest.mark.parametrize("locks", ["no fcntl", "no locks"])
def test_without_file_locks_only_old_temporary_files_are_deleted(
    target: Path, monkeypatch: pytest.MonkeyPatch, locks: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    if locks == "no fcntl":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", fail)
    young = left_behind(target, age=0.5 * files.DAY)
    left_behind(target, age=1.5 * files.DAY)
    files.replace(str(target), fill)
    assert target.read_bytes() == NEW
    assert temporaries(target.parent) == [young]


def test_a_temporary_file_deleted_before_it_was_locked_is_made_again(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer may delete the file between its creation and its lock; then a second one is made."""
    flock, swept = fcntl.flock, []

    def late(file: BinaryIO, operation: int) -> None:
        if not swept:
            swept.append(file.name)
            os.unlink(file.name)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    files.replace(str(target), fill)
    assert swept and target.read_bytes() == NEW and os.listdir(target.parent) == ["target"]


def test_an_error_while_deleting_temporary_files_is_ignored(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "may not")

    stale = left_behind(target)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        files.replace(str(target), fill)
    assert target.read_bytes() == NEW and temporaries(target.parent) == [stale]
    monkeypatch.setattr(os, "scandir", fail)
    files.replace(str(target), fill)


# Real processes


def test_a_process_killed_while_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    """After each of 200 kills the file holds the last reported version or the next, and temporary files are deleted."""
    result = crash("kill", tmp_path, 200)
    assert result["lost"] == 0
    assert result["caught"] > 20 and result["saved"] > 20, "the kills came at the wrong moments"
    assert len(list(tmp_path.iterdir())) == 200
    assert not temporaries(tmp_path)


def test_two_processes_that_write_one_file_leave_it_whole(tmp_path: Path) -> None:
    result = crash("race", tmp_path, 100)
    assert result["failed"] == 0 and result["reads"] > 10 and result["seen"] > 2
    assert os.listdir(tmp_path) == ["one.gpunn"]


# Reading


def test_a_file_that_becomes_a_pipe_is_refused_without_waiting(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody replaces the file by a pipe between the check and the opening."""
    kind = os.stat(target)
    target.unlink()
    os.mkfifo(target)
    monkeypatch.setattr(os, "stat", lambda name: kind)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="a device, pipe or socket"):
        files.open_file(target)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_text_file_beyond_the_size_limit_is_refused(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TEXT_LIMIT", len(OLD))
    assert files.read_text(target) == OLD.decode()
    monkeypatch.setattr(files, "TEXT_LIMIT", len(OLD) - 1)
    with pytest.raises(OSError, match=r"3000 bytes, more than the 2999 that a text may have"):
        files.read_text(target)
