"""The folder in which the sources of compiled loops are stored; Numba stores their machine code beside them.

Files in it are executed, so it is used only if no other user can have written to it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import stat
import tempfile
from pathlib import Path

log = logging.getLogger("gpunn")
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def _cache() -> Path:
    """The cache folder that the user has set for Numba, else the user's general one."""
    chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(chosen or Path.home() / ".cache")


def folder() -> Path:
    return _cache() / "gpunn" / "loops"


def is_safe() -> bool:
    """Whether no other user can have written to the folder; else the log says so once."""
    try:
        places = [folder(), folder().parent]
        if os.environ.get("NUMBA_CACHE_DIR"):  # Numba writes machine code to other folders in this one
            places.append(_cache())
        fault = next(filter(None, map(_fault, places)), None)
    except (OSError, RuntimeError):  # the home folder is missing or cannot be read
        return True
    if fault:
        _tell(fault)
    return not fault


def _fault(place: Path) -> str | None:
    """The reason why others may have written to a folder; None if it is safe, does not exist, or on Windows."""
    if not hasattr(os, "geteuid") or not place.exists():
        return None
    status = place.stat()
    if status.st_uid not in (os.geteuid(), 0):
        return f"{place} belongs to another user, number {status.st_uid}"
    if status.st_mode & OTHERS_WRITE:
        return f"others may write to {place}"
    return None


@functools.cache
def _tell(fault: str) -> None:
    log.warning("compiled loops are not stored, since %s: make it yours alone, or set NUMBA_CACHE_DIR", fault)


@functools.cache
def _compiler_version() -> bytes:
    """A part of each file's name, so that code from another version of `compiler.py` is not used."""
    return Path(__file__).with_name("compiler.py").read_bytes()


def path_of(source: str) -> Path:
    digest = hashlib.sha256(_compiler_version() + source.encode()).hexdigest()
    return folder() / f"loop_{digest[:32]}.py"


def is_stored(source: str) -> bool:
    try:
        return path_of(source).exists() and is_safe()
    except (OSError, RuntimeError):  # the home folder is missing or cannot be read
        return False


def store(source: str) -> Path | None:
    """Write the source to its file, completely or not at all; None if nothing can or should be written."""
    try:
        path = path_of(source)
        for place in (_cache(), folder().parent, folder()):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_safe():
            return None
        if not path.exists() or path.read_text(encoding="utf-8") != source:
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(source)
            os.replace(temporary, path)
        return path
    except (OSError, RuntimeError):
        return None
