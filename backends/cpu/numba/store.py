"""Where the texts of compiled loops lie, and beside them, by Numba's doing, their machine code.

What lies there is executed, so a folder is used only if nobody else can have put anything there.
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
    """Numba's own cache folder if the user has named one, else that of all programs."""
    chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(chosen or Path.home() / ".cache")


def folder() -> Path:
    return _cache() / "gpunn" / "loops"


def is_safe() -> bool:
    """Whether what is stored, if anything, is this user's own; where it is not, the log says so once."""
    try:
        places = [folder(), folder().parent]
        if os.environ.get("NUMBA_CACHE_DIR"):  # Numba puts machine code there, in folders of its own
            places.append(_cache())
        fault = next(filter(None, map(_fault, places)), None)
    except (OSError, RuntimeError):  # no home folder, or none that may be read
        return True
    if fault:
        _tell(fault)
    return not fault


def _fault(place: Path) -> str | None:
    """Why others may have put something in a folder; None where there is none, or on Windows."""
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
    """Code that was made by another version of the compiler is not what its text would be now."""
    return Path(__file__).with_name("compiler.py").read_bytes()


def path_of(source: str) -> Path:
    digest = hashlib.sha256(_compiler_version() + source.encode()).hexdigest()
    return folder() / f"loop_{digest[:32]}.py"


def is_stored(source: str) -> bool:
    try:
        return path_of(source).exists() and is_safe()
    except (OSError, RuntimeError):  # no home folder, or none that may be read
        return False


def store(source: str) -> Path | None:
    """The file that holds this text, written whole or not at all; None where nothing can or should be written."""
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
