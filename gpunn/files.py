"""Files that are replaced as a whole or stay as they were: a temporary file beside the target, fsync, rename, fsync.

A writer holds a lock on its temporary file until the rename. The kernel releases it when the writer ends, so a
temporary file without a lock is abandoned. Other machines may not see the lock, and some file systems have no locks:
if it is not known whether a file is abandoned, it is left alone for a day.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from errno import EACCES, EBADF, EFBIG, EINVAL, EISDIR, ENOTSUP
from io import BufferedReader
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DAY = 86_400.0
TEXT_LIMIT = 64 << 20  # bytes of a text that is read whole


def replace(target: str, fill: Callable[[BinaryIO], None]) -> None:
    """Make `target`, which is not a link, the file that `fill` writes; after any failure it is as before.

    A new file gets the mode of the umask, an existing one keeps its own. Removes what killed writers of this target
    left behind. The rename is on the disk only after `sync_folder`.
    """
    mode = _mode(target)
    _sweep(target)
    file = _temporary(target, mode)
    try:
        with file:
            if mode is not None and stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:
                os.chmod(file.name, mode)
            fill(file)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames closed files only
            os.replace(file.name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(file.name)
        raise


def make_folder(path: str | os.PathLike[str]) -> bool:
    """Make the folder and its missing parents, and bring them to the disk; returns whether the folder was missing."""
    folder = os.path.realpath(path)
    if os.path.isdir(folder):
        return False
    if os.path.dirname(folder) != folder:
        make_folder(os.path.dirname(folder))
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
        return False  # another process was faster
    sync_folder(folder)
    return True


def sync_folder(target: str) -> None:
    """Bring the name of `target` to the disk, on systems where folders can be opened and synchronised."""
    try:
        number = os.open(os.path.dirname(target), os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in (EACCES, EBADF, EINVAL, ENOTSUP):
            raise


def require_file(mode: int) -> None:
    """Refuse a mode other than that of a plain file: a pipe would block, and a device would be replaced."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(EISDIR, "a folder of that name")
    if not stat.S_ISREG(mode):
        raise OSError(EINVAL, "a device, pipe or socket")


def open_file(name: str | os.PathLike[str]) -> BufferedReader:
    """A plain file to read from; refuses anything else, without waiting for it."""
    require_file(os.stat(name).st_mode)  # before it is opened, which may change the state of a device
    file = open(name, "rb", opener=_open_at_once)  # noqa: SIM115  # the caller closes it
    try:
        require_file(os.fstat(file.fileno()).st_mode)  # it may have been replaced since
    except OSError:
        file.close()
        raise
    return file


def read_text(name: str | os.PathLike[str]) -> str:
    """The text of a plain file in UTF-8; checks its size first; raises OSError or UnicodeDecodeError."""
    with open_file(name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > TEXT_LIMIT:
            raise OSError(EFBIG, f"{size} bytes, more than the {TEXT_LIMIT} that a text may have")
        return file.read(size).decode()


def _open_at_once(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows does not have


def _mode(target: str) -> int | None:
    """The permissions of the file that is to be replaced; None if there is none."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    require_file(mode)
    return stat.S_IMODE(mode) & 0o777


def _prefix(target: str) -> str:
    """The start of the names of this target's temporary files; a digest, as the target's name may be very long."""
    return f".gpunn-{hashlib.sha256(os.fsencode(os.path.basename(target))).hexdigest()[:16]}-"


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _temporary(target: str, mode: int | None) -> BinaryIO:
    """A new locked file beside the target."""
    start = os.path.join(os.path.dirname(target), f"{_prefix(target)}{_machine()}-{os.getpid()}-")
    permissions = 0o666 if mode is None else mode
    while True:
        file: BinaryIO = open(  # noqa: SIM115  # the caller closes it
            f"{start}{secrets.token_hex(4)}.tmp", "xb", opener=lambda name, flags: os.open(name, flags, permissions)
        )
        lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another writer removed it between its creation and the lock


def lock(file: BinaryIO, *, wait: bool) -> bool | None:
    """Lock a file; returns whether it is locked now, or None if the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sweep(target: str) -> None:
    """Remove what killed writers of this target left behind; no error here may keep the new one from writing."""
    prefix = _prefix(target)
    with suppress(OSError), os.scandir(os.path.dirname(target)) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(".tmp"):
                with suppress(OSError):
                    _remove_abandoned(entry, entry.name.startswith(f"{prefix}{_machine()}-"))


def _remove_abandoned(entry: os.DirEntry[str], ours: bool) -> None:
    """Remove a temporary file without a writer; it is locked meanwhile, so that no writer can take it."""
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return
    with open(entry.path, "rb") as file:
        locked = lock(file, wait=False)
        if fcntl is None:
            file.close()
        if locked is not False and ((locked and ours) or time.time() - status.st_mtime > DAY):
            os.unlink(entry.path)
