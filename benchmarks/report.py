"""Results as tables on the screen, as JSON, and as plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.harness import Row, ratios, say

SCHEMA = 1


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cell(row: Row | None) -> str:
    if row is None:
        return ""
    if not row.runs:
        return row.note.partition(":")[0]
    spread = f" ±{100 * row.spread:.0f} %" if len(row.runs) > 1 else ""
    score = f"; {row.details['score']}" if "score" in row.details else ""
    return f"{number(row.median)} {row.unit}{spread}{score}"


def grid(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Titles and lines of the table of one question: a line for each case, a column for each competitor."""
    places = {(row.case, row.competitor): row for row in rows}
    competitors = list(dict.fromkeys(row.competitor for row in rows))
    cases = list(dict.fromkeys(row.case for row in rows))
    return ["", *competitors], [[case, *(cell(places.get((case, name))) for name in competitors)] for case in cases]


def notes(rows: Sequence[Row]) -> list[str]:
    """What the cells have no room for."""
    told = [f"{name} takes {mean:.2f} times {base}'s time ({low:.2f} to {high:.2f} in {count} cases)"
            for base in ("gpunn", "gpunn jit")
            for name, mean, low, high, count in ratios(rows, base)]  # fmt: skip
    missing: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            missing.setdefault(f"{row.competitor}: {row.note}", []).append(row.case)
        details = [f"{k} {text(v)}" for k, v in row.details.items() if k != "score"]  # which stands in its cell
        if details:
            told.append(f"{row.case}, {row.competitor}: " + ", ".join(details))
    told += [f"{note} ({cases[0] if len(cases) == 1 else f'{len(cases)} cases'})" for note, cases in missing.items()]
    return told


def text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def by_question(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.question, []).append(row)
    return found


def show(description: dict[str, Any], rows: Sequence[Row]) -> None:
    """A table for each question, last of all that is printed."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 200)
    for line in machine.lines(description):
        console.print(line, markup=False, highlight=False)
    for question, own in by_question(rows).items():
        titles, lines = grid(own)
        table = Table(title=question, title_justify="left")
        for i, title in enumerate(titles):
            table.add_column(title, justify="right" if i else "left")
        for cells in lines:
            table.add_row(*cells)
        for note in notes(own):
            console.print(f"{question}: {note}", markup=False, highlight=False)
        console.print(table)


def document(description: dict[str, Any], rows: Sequence[Row], *, quick: bool) -> dict[str, Any]:
    """What a results file holds."""
    results = [asdict(row) | {"median": row.median if row.runs else None, "count": len(row.runs)} for row in rows]
    return {"schema": SCHEMA, "quick": quick, "machine": description, "results": results}


def write_json(path: Path, description: dict[str, Any], rows: Sequence[Row], *, quick: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = json.dumps(document(description, rows, quick=quick), indent=1, allow_nan=False)
    path.write_text(written + "\n", encoding="utf-8")


def read_json(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Machine and rows of a results file that can be shown to others."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"{path}: expected results of schema {SCHEMA}, as --json writes them")
    if data["quick"]:
        raise ValueError(f"{path}: expected a full run, got one with --quick, whose figures say nothing")
    names = Row.__dataclass_fields__
    return data["machine"], [Row(**{k: v for k, v in row.items() if k in names}) for row in data["results"]]


def plot(folder: Path, rows: Sequence[Row]) -> None:
    """One PNG for each question: bars over the cases, on a logarithmic axis."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        say("no plots: matplotlib is not installed")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for question, own in by_question([row for row in rows if row.runs]).items():
        cases = list(dict.fromkeys(row.case for row in own))
        competitors = list(dict.fromkeys(row.competitor for row in own))
        figure = Figure(figsize=(8, 1 + 0.22 * len(cases) * (len(competitors) + 1)), layout="constrained")
        axes = figure.subplots()
        height = 0.8 / len(competitors)
        for i, name in enumerate(competitors):
            mine = [row for row in own if row.competitor == name]
            places = [cases.index(row.case) + i * height for row in mine]
            axes.barh(places, [row.median for row in mine], height, label=name)
        axes.set_yticks([place + 0.4 - height / 2 for place in range(len(cases))], cases)
        axes.invert_yaxis()
        axes.set(title=question, xscale="log", xlabel=", ".join(dict.fromkeys(row.unit for row in own)))
        axes.legend()
        figure.savefig(folder / f"{question}.png")
