"""Where the texts of compiled loops lie, and beside them, by Numba's doing, their machine code."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from pathlib import Path


def folder() -> Path:
    """In Numba's own cache folder if the user has named one, else in that of all programs."""
    chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(chosen or Path.home() / ".cache") / "gpunn" / "loops"


@functools.cache
def _compiler_version() -> bytes:
    """Code that was made by another version of the compiler is not what its text would be now."""
    return Path(__file__).with_name("numba_compiler.py").read_bytes()


def path_of(source: str) -> Path:
    digest = hashlib.sha256(_compiler_version() + source.encode()).hexdigest()
    return folder() / f"loop_{digest[:32]}.py"


def is_stored(source: str) -> bool:
    try:
        return path_of(source).exists()
    except (OSError, RuntimeError):  # no home folder, or none that may be read
        return False


def store(source: str) -> Path | None:
    """The file that holds this text, written whole or not at all; None where nothing can be written."""
    try:
        path = path_of(source)
        if not path.exists() or path.read_text(encoding="utf-8") != source:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(source)
            os.replace(temporary, path)
        return path
    except (OSError, RuntimeError):
        return None
