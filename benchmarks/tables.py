"""Stored results into the tables of README.md and benchmarks/README.md.

    python -m benchmarks.tables RESULTS.json...

What stands between `<!-- benchmark: step cuda -->` and `<!-- end -->` is replaced by the table of that question on that
device; `<!-- benchmark: step cuda short -->` takes what has nothing added, with Adam, and
`<!-- benchmark: step cpu from=step-avx2 -->` what `step-avx2.json` has. Where several files have it and none is named,
the newest counts; where none has, the text stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import Row
from benchmarks.machine import ROOT, lines
from benchmarks.report import by_question, grid, notes, read_json

MARKER = re.compile(
    r"(?P<start><!-- benchmark: (?P<question>\w+) (?P<device>cpu|cuda)"
    r"(?: from=(?P<file>[\w-]+))?(?P<short> short)? -->\n)"
    r".*?(?P<end><!-- end -->)",
    re.DOTALL,
)
FILES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
Results = dict[tuple[str, str, str | None], tuple[dict[str, Any], list[Row]]]


def results(paths: Sequence[Path]) -> Results:
    """The rows of each question on each device and their machine, of each file by its name and of the newest."""
    read = sorted(((*read_json(path), path.stem) for path in paths), key=lambda result: str(result[0]["date"]))
    return {
        (question, machine["device"], file): (machine, own)
        for machine, rows, stem in read
        for question, own in by_question(rows).items()
        for file in (stem, None)
    }


def markdown(machine: dict[str, Any], rows: Sequence[Row], short: bool) -> str:
    """A table, where it comes from, and, unless it is short, its notes."""
    if short:
        rows = [row for row in rows if not any(word in row.case for word in ("BatchNorm", "SGD", ", "))]
    titles, body = grid(rows)
    table = [titles, ["---", *["---:"] * (len(titles) - 1)], *body]
    turns = max((len(row.runs) for row in rows), default=0)
    caption = [f"Medians of {turns} turns, ± is the farthest one"] * (turns > 1) + lines(machine)
    listed = [] if short else [f"- {note}" for note in notes(rows)]
    written = ["| " + " | ".join(line) + " |" for line in table]
    return "\n".join([*written, "", ". ".join(caption) + ".", *[""] * bool(listed), *listed, ""])


def filled(text: str, found: Results) -> str:
    """A Markdown text with the tables of all its markers that there are results for."""

    def replace(match: re.Match[str]) -> str:
        key = (match["question"], match["device"], match["file"])
        if key not in found:
            return match[0]
        return match["start"] + markdown(*found[key], short=bool(match["short"])) + match["end"]

    return MARKER.sub(replace, text)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(paths: tuple[Path, ...]) -> None:
    """Write the tables of these results files into the READMEs."""
    found = results(paths)
    for file in FILES:
        before = file.read_text(encoding="utf-8")
        after = filled(before, found)
        file.write_text(after, encoding="utf-8")
        click.echo(f"{file.relative_to(ROOT)}: {'changed' if after != before else 'as it was'}")


if __name__ == "__main__":
    main()
