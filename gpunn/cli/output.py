"""Results: a table or one JSON document on stdout, and files."""

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
    """Print one line, escaped where needed; everything that people read on stdout or stderr is printed by this."""
    click.echo(printable(text), file=sys.stderr if error else sys.stdout)


def escape_unencodable() -> None:
    """Let stdout and stderr write characters that their encoding does not have in the form \\u0177."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            stream.reconfigure(errors="backslashreplace")


def require_stdout() -> None:
    """Refuse to make results if stdout is closed; then Python has none."""
    if sys.stdout is None:
        raise OSError(EBADF, os.strerror(EBADF))


def print_document(document: Any) -> None:
    """Print JSON; NaN and infinity, which JSON does not have, are null."""
    click.echo(json.dumps(plain(document), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """The same value made of dicts, lists and Python's numbers."""
    if isinstance(value, dict):
        return dict(zip(map(str, value), map(plain, value.values())))  # one call a level: networks may nest deep
    if isinstance(value, (list, tuple)):
        return list(map(plain, value))
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def error_document(error: GpunnError) -> dict[str, Any]:
    fields = {name: getattr(error, name) for name in ("where", "expected", "got", "fix")}
    return {"error": {"kind": type(error).__name__, **fields}}


def print_table(rows: Iterable[Sequence[Any]], *, header: Sequence[str] = ()) -> None:
    """Print a table, each row on one line; all columns but the last are padded to equal width."""
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
    """Write a file with this content; if that fails, the file stays as it was."""

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
