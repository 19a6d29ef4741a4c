"""Results: a table for people or one JSON document on stdout, and files."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from errno import EBADF
from typing import Any, BinaryIO

import click

from gpunn import files
from gpunn.errors import CheckpointError, GpunnError, printable

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")


def say(text: str = "", *, error: bool = False) -> None:
    """One line on stdout or stderr, whatever is in the text: all that the command prints for people comes by here."""
    click.echo(printable(text), file=sys.stderr if error else sys.stdout)


def escape_what_cannot_be_shown() -> None:
    """Let stdout and stderr write signs that their encoding does not have as \\u0177 is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where there is none
            stream.reconfigure(errors="backslashreplace")


def require_stdout() -> None:
    """Refuse to make results for a stdout that is closed, where Python has none."""
    if sys.stdout is None:
        raise OSError(EBADF, os.strerror(EBADF))


def print_document(document: Any) -> None:
    """JSON for machines; NaN and infinity, for which it has no numbers, are null."""
    click.echo(json.dumps(plain(document), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """The same of dicts, lists and Python's own numbers."""
    if isinstance(value, dict):
        return dict(zip(map(str, value), map(plain, value.values())))  # one call a level: networks may nest deep
    if isinstance(value, (list, tuple)):
        return list(map(plain, value))
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def error_document(error: GpunnError) -> dict[str, Any]:
    parts = {name: getattr(error, name) for name in ("where", "expected", "got", "fix")}
    return {"error": {"kind": type(error).__name__, **parts}}


def print_table(rows: Iterable[Sequence[Any]], *, header: Sequence[str] = ()) -> None:
    """A table in columns as wide as they must be, the last one as it is; each row is one line."""
    cells = [[printable(text(cell)) for cell in row] for row in (header, *rows)][not header :]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for row in cells:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def text(value: Any) -> str:
    """A number to five digits; None as a dash."""
    value = plain(value) if hasattr(value, "tolist") else value
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """The file with this content, or, if that fails, as it was."""

    def fill(file: BinaryIO) -> None:
        file.write(content)

    try:
        files.replace(os.path.realpath(path), fill)
    except OSError as error:
        raise unwritten(path, error) from error


def unwritten(path: str | os.PathLike[str], error: OSError) -> CheckpointError:
    return CheckpointError(
        str(path),
        expected="a file that can be written",
        got=error.strerror or str(error),
        fix="free space, or write to a folder that exists and may be written",
    )
