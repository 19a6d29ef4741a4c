"""How long does an import take, and how large is what pip installs, beside PyTorch, JAX and scikit-learn?

    python -m benchmarks.install [--folder DIR]

Each in a fresh environment, which pip fills as its settings here say; a package that pip cannot bring is a line that
says so. Sizes are those of site-packages, pip taken off. Imports are timed in processes of their own, the first of
which writes bytecode and does not count. On Linux PyPI's torch brings CUDA. With --quick nothing is installed, and the
imports are those of the environment that runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from benchmarks.command import alone
from benchmarks.harness import FAILED, LEFT_OUT, NOT_INSTALLED, Row, Setting, say
from benchmarks.machine import ROOT

PACKAGES = {"gpunn": "gpunn", "scikit-learn": "sklearn", "jax": "jax", "torch": "torch"}  # and what is imported
IMPORT, SIZE = "import", "installed"
SECONDS = 900.0  # that an installation may take
TIMER = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def run(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    turns = 1 if setting.quick else setting.turns
    for package, module in PACKAGES.items():
        say(f"install: {package}")
        imported, size = Row("install", IMPORT, package, "s"), Row("install", SIZE, package, "MB")
        if setting.quick:
            here(imported, module, turns)
            size.note = f"{LEFT_OUT}: nothing is installed for --quick"
        else:
            with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
                fresh(Path(folder), imported, size, module, turns)
        rows += [imported, size]
    return sorted(rows, key=lambda row: row.case)


def here(row: Row, module: str, turns: int) -> None:
    """In the environment that runs."""
    if find_spec(module) is None:
        row.note = f"{NOT_INSTALLED}: No module named '{module}'"
    else:
        timed_import(row, Path(sys.executable), module, turns, ROOT)


def fresh(folder: Path, imported: Row, size: Row, module: str, turns: int) -> None:
    """In an environment of its own."""
    python = folder / "env" / "bin" / "python"
    wanted = str(sources(folder)) if imported.competitor == "gpunn" else imported.competitor
    try:
        command([sys.executable, "-m", "venv", str(folder / "env")])
        before = site_bytes(folder)
        command([str(python), "-m", "pip", "install", "--quiet", "--no-input", "--no-compile", wanted])
    except (subprocess.SubprocessError, OSError) as error:
        imported.note = size.note = f"{NOT_INSTALLED}: pip could not bring it: {last_line(error)}"
        return
    size.runs = [(site_bytes(folder) - before) / 1e6]
    timed_import(imported, python, module, turns, folder)


def sources(folder: Path) -> Path:
    """A copy of what gpunn is built from, since building leaves files behind."""
    copy = folder / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("gpunn", "backends"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def command(arguments: list[str], where: Path | None = None) -> str:
    # As a user's: an import that may not leave its bytecode behind compiles everything again and again.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        arguments, cwd=where, env=environment, capture_output=True, text=True, check=True, timeout=SECONDS
    )
    return done.stdout


def last_line(error: Exception) -> str:
    """What a command that failed said last, or what happened to it."""
    written = (getattr(error, "stderr", None) or "").strip().splitlines()
    return written[-1] if written else type(error).__name__


def site_bytes(folder: Path) -> int:
    """What lies in the environment's site-packages, every file once."""
    files = (file for file in folder.glob("env/lib/python*/site-packages/**/*") if not file.is_symlink())
    return sum(file.stat().st_size for file in files if file.is_file())


def timed_import(row: Row, python: Path, module: str, turns: int, where: Path) -> None:
    try:
        runs = [float(command([str(python), "-c", TIMER.format(module)], where)) for _ in range(turns + 1)]
    except (subprocess.SubprocessError, OSError) as error:
        row.note = f"{FAILED}: {last_line(error)}"
    else:
        row.runs = runs[1:]


if __name__ == "__main__":
    alone("install")
