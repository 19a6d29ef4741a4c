"""Compiles CUDA C for the CPU: g++ behind `shim.h`, one cached shared library for each distinct text."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
# The second line: shared variables of two libraries must not merge, and a barrier may change any static variable.
FLAGS = [
    *("-O1", "-std=c++17", "-shared", "-fPIC", "-w", "-ffp-contract=off", "-fno-exceptions", "-fno-rtti"),
    *("-fno-gnu-unique", "-fno-ipa-reference", "-nodefaultlibs"),
]
BARRIERS = re.compile(r"__sync(threads|warp)|__(shfl|ballot|any|all)\w*_sync")
KERNEL = re.compile(r"^(?!\s*#)[^\n]*?__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+"
                    r"(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(", re.MULTILINE)  # fmt: skip
DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;")
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


class CompileException(Exception):
    """The text is not valid; carries the compiler's words, as `cupy.cuda.compiler.CompileException` does."""


@functools.cache
def have_gxx() -> bool:
    """Whether g++ is installed; kernels cannot run without it."""
    return shutil.which("g++") is not None


@functools.cache
def _shim_digest() -> bytes:
    version = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout
    return hashlib.sha256(
        version + b"".join((HERE / name).read_bytes() for name in ("shim.h", "fibers.h", "halves.h"))
    ).digest()


def cache_directory() -> Path:
    """Where the libraries lie: one folder per user, kept between runs."""
    path = Path(tempfile.gettempdir()) / f"gpunn-strict-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to someone else; its libraries are not to be trusted")
    return path


def kernel_names(code: str) -> list[str]:
    """The names of the plain (not templated) kernels in a CUDA text."""
    text = COMMENT.sub(lambda m: "\n" * m.group().count("\n"), code)
    names = []
    for match in KERNEL.finditer(text):
        before = text[: match.start(1)].rsplit(";", 1)[-1].rsplit("}", 1)[-1]
        if "template" not in before:
            names.append(match.group(1))
    return names


def defines(options: Sequence[str]) -> list[str]:
    """The -D options; those that speak to NVRTC only (--std, -arch, --fmad, ...) mean nothing here."""
    result = []
    options = list(options)
    for k, option in enumerate(options):
        if option in ("-D", "--define-macro"):
            result.append(f"-D{options[k + 1]}")
        elif option.startswith("-D"):
            result.append(option)
        elif option.startswith("--define-macro="):
            result.append("-D" + option.split("=", 1)[1])
    return result


def compile_library(source: str, options: Sequence[str] = ()) -> ctypes.CDLL:
    """Compile a C++ text that follows the shim, or load it from the cache. Safe with several processes."""
    if not have_gxx():
        raise CompileException("g++ is not installed, so kernels cannot run on the stand-in")
    command = ["g++", *FLAGS, *defines(options), f"-I{HERE}"]
    if BARRIERS.search(COMMENT.sub("", source)):
        command.append("-DSHIM_FIBERS")
    digest = hashlib.sha256("\0".join((*command, source)).encode() + _shim_digest()).hexdigest()[:32]
    library = cache_directory() / f"{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            text, built = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
            text.write_text(f'#include "shim.h"\n{source}')
            run = subprocess.run(
                [*command, str(text), "-o", str(built), "-lm", "-lc", "-lgcc"],
                check=False,
                capture_output=True,
                text=True,
            )
            if run.returncode:
                raise CompileException(run.stderr)
            os.replace(built, library)
    return _load(str(library))


@functools.cache
def _load(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path)


def kernel_library(code: str, options: Sequence[str], extra: str | None = None) -> ctypes.CDLL:
    """Compile a CUDA text with a launcher for each of its kernels, and for `extra`, made by a macro."""
    names = kernel_names(code) + ([extra] if extra else [])
    body = DYNAMIC.sub(r"\1* \2 = reinterpret_cast<\1*>(shim_dynamic_shared);", code)
    exports = "\n".join(f"SHIM_EXPORT({name})" for name in names)
    return compile_library(f'#line 1 "kernel.cu"\n{body}\n#line 1 "launchers"\n{exports}\n', options)
