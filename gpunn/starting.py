"""Ctrl-C while the command is loaded: it ends at once and says nothing.

An exception would not do: a library that is interrupted while it is imported makes another error of it. The package
imports this module before all others, and for the same reason it imports next to nothing: `_signal` is the part of
`signal` that is built into Python.
"""

import _signal  # type: ignore[import-not-found]
import os
import sys

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C has ended


def end(number: int, frame: object) -> None:
    """A handler of signals."""
    os._exit(INTERRUPTED)


def is_command(arguments: list[str], original: list[str]) -> bool:
    """Whether a process with these arguments is `gpunn` or `python -m gpunn.cli`, and not a program that imports it."""
    name = os.path.basename(arguments[0]) if arguments else ""
    return name in ("gpunn", "gpunn.exe") or (name == "-m" and "gpunn.cli" in original)


def end_at_once() -> None:
    """Let Ctrl-C end this process, where it would raise a KeyboardInterrupt."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, end)


if is_command(sys.argv, sys.orig_argv):
    end_at_once()
