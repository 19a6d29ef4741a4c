"""One training at a time in a folder: a lock on a file in it, which the system releases when its holder ends.

The file says who holds the lock, and is removed at `release`. A killed process leaves the file behind; without a lock
on it, it means nothing. Anything else with that name is refused and left as it is. A process that the holder starts
does not get the lock, but one that it forks would keep it. Over NFS the lock holds between machines too. If a file
system has no locks, `works` is false, and other trainings are not kept out.
"""

from __future__ import annotations

import os
import platform
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from gpunn import files
from gpunn.errors import CheckpointError

NAME = ".gpunn.lock"
START = b"process "  # of the text in every lock
HOLDER = re.compile(rb"process \d{1,10} on [\w.-]{1,64}")
TRIES = 100  # to lock the file before somebody removes it
NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # not on Windows


class InUse(Exception):
    """Another process holds the lock; the text says which."""


class Lock:
    """The lock on an existing folder, held until `release`; raises InUse, OSError and CheckpointError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place = os.stat(folder)
        self._file = self._taken()

    @property
    def works(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        if self._file is not None:
            with suppress(OSError), self._file:
                if self._in_place(self._file) and _is_lock(self._file):
                    os.unlink(self.folder / NAME)  # while it is locked: later it may be another holder's
            self._file = None

    def require(self) -> None:
        """Refuse a folder that is not the locked one any more; a lock file that was removed is made again."""
        try:
            there = os.path.samestat(self._place, os.stat(self.folder)) or self._file is None
            if there and self._file is not None and not self._in_place(self._file):
                again = self._taken()
                self._file.close()
                self._file = again
            got = "another folder of that name"
        except OSError as error:
            there, got = False, error.strerror or str(error)
        except InUse as error:
            there, got = False, f"one that {error} uses too"
        if not there:
            raise CheckpointError(
                str(self.folder),
                expected="the folder that this training began with",
                got=got,
                fix="leave it in its place and its lock alone until the training has ended",
            )

    def _taken(self) -> BinaryIO | None:
        """The locked file; None if the file system has no locks, or if the file changes at every try."""
        for _ in range(TRIES):
            self._require_plain_file()
            file: BinaryIO = open(  # noqa: SIM115  # `release` closes it
                self.folder / NAME, "r+b", buffering=0,
                opener=lambda name, flags: os.open(name, flags | os.O_CREAT | NO_LINK, 0o666),
            )  # fmt: skip
            locked = files.lock(file, wait=False)
            if locked is not False and not _is_lock(file):
                file.close()
                raise self._strange("another file")
            if locked and self._in_place(file):
                file.truncate(0)
                file.seek(0)
                file.write(START + f"{os.getpid()} on {platform.node()}".encode())
                return file
            holder = HOLDER.fullmatch(file.read(100)) if locked is False else None
            file.close()
            if locked is False:
                raise InUse(holder[0].decode() if holder else "another process")
            if locked is None:
                with suppress(OSError):
                    os.unlink(self.folder / NAME)
                break
            # else its holder removed it after it was opened here: try again
        return None

    def _require_plain_file(self) -> None:
        """Refuse pipes, which would block, and links, which would be followed."""
        try:
            mode = os.lstat(self.folder / NAME).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISLNK(mode):
            raise self._strange("a link")
        try:
            files.require_file(mode)
        except OSError as error:
            raise self._strange(str(error.strerror)) from None

    def _strange(self, got: str) -> CheckpointError:
        return CheckpointError(
            str(self.folder / NAME),
            expected="no file of that name, or one that a training left",
            got=got,
            fix="rename it, or choose another --out",
        )

    def _in_place(self, file: BinaryIO) -> bool:
        """Whether the file of that name in the folder is this one."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.lstat(self.folder / NAME))
        except FileNotFoundError:
            return False


def _is_lock(file: BinaryIO) -> bool:
    """Whether the file is empty or has a lock's text, and no second name: only such a file may be overwritten."""
    file.seek(0)
    content = file.read(len(START))
    return content in (b"", START) and os.fstat(file.fileno()).st_nlink <= 1
