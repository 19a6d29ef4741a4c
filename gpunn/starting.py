"""Ctrl-C while the command is loaded: it ends at once and prints nothing.

KeyboardInterrupt would not do: a library that is interrupted during its import turns it into another error. So the
package imports this module before all others, and this module imports almost nothing: `_signal` is the part of
`signal` that is built into Python.
"""

import _signal  # type: ignore[import-not-found]
import os
import sys

INTERRUPTED = 130  # the exit code that a shell reports for a program that Ctrl-C ended


def end(number: int, frame: object) -> None:
    """A signal handler that ends the process."""
    os._exit(INTERRUPTED)


def is_command(arguments: list[str], original: list[str]) -> bool:
    """Whether a process with these arguments is `gpunn` or `python -m gpunn.cli`, not a program that imports gpunn."""
    name = os.path.basename(arguments[0]) if arguments else ""
    return name in ("gpunn", "gpunn.exe") or (name == "-m" and "gpunn.cli" in original)


def end_at_once() -> None:
    """Let Ctrl-C end this process, if it would raise KeyboardInterrupt."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, end)


if is_command(sys.argv, sys.orig_argv):
    end_at_once()
