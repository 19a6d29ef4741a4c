"""Stored results, and the tables that are made of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import machine, report, tables
from benchmarks.command import QUESTIONS
from benchmarks.harness import Row

GPU = {
    "name": "Some GPU", "multiprocessors": 1, "memory": 2, "driver": "600.1", "cuda driver": 13000,
    "cuda runtime": 13000, "cublaslt": True,
}  # fmt: skip
LATER = (
    "passes",
    "mapped",
    "profile",
    "accuracy",
    "epoch",
    "batching",
    "update",
    "populations",
    "scaling",
    "requests",
    "layers",
    "busy",
    "memory",
    "install",
)
TEXT = """# Title
<!-- benchmark: step cuda short -->
None has been measured.
<!-- end -->
between
<!-- benchmark: step cpu -->
None has been measured either.
<!-- end -->
after
"""


def rows() -> list[Row]:
    return [
        Row("step", "a Adam", "gpunn", "µs", [10.0, 12.0, 11.0], details={"host waits a step": 0.0}),
        Row("step", "a Adam", "jax jit", "µs", note="not installed: No module named 'jax'"),
        Row("step", "a SGD", "gpunn", "µs", [1234.4, 1234.4, 1234.4]),
        Row("step", "a SGD", "jax jit", "µs", [2468.8, 2468.8, 2468.8]),
        Row("digits", "d", "gpunn", "s", [0.25]),
    ]


def stored(folder: Path, name: str = "r.json", *, device: str = "cuda", quick: bool = False, **changes: Any) -> Path:
    description = machine.describe("cpu") | {"device": device, "gpu": GPU if device == "cuda" else None} | changes
    report.write_json(folder / name, description, rows(), quick=quick)
    return folder / name


def test_stored_results_have_the_documented_schema(tmp_path: Path) -> None:
    data = json.loads(stored(tmp_path).read_text(encoding="utf-8"))
    assert (data["schema"], data["quick"]) == (1, False)
    assert data["machine"].keys() == {
        "date", "commit", "device", "system", "python", "cpu", "cores", "threads", "blas", "gpu", "versions",
        "warnings",
    }  # fmt: skip
    assert data["machine"]["versions"]["numpy"] and data["machine"]["cores"] >= 1
    assert all(
        pool.keys() == {"internal_api", "version", "architecture", "num_threads"} for pool in data["machine"]["blas"]
    )
    keys = {"question", "case", "competitor", "unit", "runs", "note", "details", "median", "count"}
    assert [result.keys() for result in data["results"]] == [keys] * 5
    assert data["results"][0]["median"] == 11.0 and data["results"][0]["count"] == 3
    assert data["results"][1]["median"] is None


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    description, read = report.read_json(stored(tmp_path))
    assert read == rows()
    assert description["gpu"] == GPU


def test_a_short_table_fills_its_marker_and_leaves_other_text() -> None:
    found = {("step", "cuda", None): (machine.describe("cpu") | {"gpu": GPU, "device": "cuda"}, rows()[:4])}
    text = tables.filled(TEXT, found)
    lines = text.splitlines()
    assert lines[:6] == [
        "# Title",
        "<!-- benchmark: step cuda short -->",
        "|  | gpunn | jax jit |",
        "| --- | ---: | ---: |",
        "| a Adam | 11 µs ±9 % | not installed |",
        "",
    ]
    assert "Medians of 3 turns" in text and "Some GPU, driver 600.1" in text
    assert "a SGD" not in text and "None has been measured.\n" not in text
    assert text.endswith(TEXT[TEXT.index("<!-- end -->\nbetween") :])
    assert tables.filled(text, found) == text


def test_a_long_table_has_all_cases_and_notes() -> None:
    found = {("step", "cpu", None): (machine.describe("cpu"), rows()[:4])}
    text = tables.filled(TEXT, found)
    assert "| a SGD | 1,234 µs ±0 % | 2,469 µs ±0 % |" in text
    assert "- jax jit takes 2.00 times gpunn's time (2.00 to 2.00 in 1 cases)" in text
    assert "- jax jit: not installed: No module named 'jax' (a Adam)" in text
    assert "- a Adam, gpunn: host waits a step 0" in text
    assert "None has been measured.\n" in text


def test_a_table_takes_the_newest_results(tmp_path: Path) -> None:
    new = stored(tmp_path, "new.json", date="2030-01-02T00:00:00+00:00")
    old = stored(tmp_path, "old.json", date="2030-01-01T00:00:00+00:00")
    found = tables.results([new, old])
    assert set(found) == {(question, "cuda", file) for question in ("step", "digits") for file in ("new", "old", None)}
    assert found["step", "cuda", None][0]["date"] == "2030-01-02T00:00:00+00:00"


def test_a_table_may_name_the_file_of_its_results(tmp_path: Path) -> None:
    one = stored(tmp_path, "one.json", device="cpu", threads=1, date="2030-01-01T00:00:00+00:00")
    two = stored(tmp_path, "two.json", device="cpu", threads=2, date="2030-01-02T00:00:00+00:00")
    marker = "<!-- benchmark: digits cpu{} -->\nnothing\n<!-- end -->\n"
    text = "".join(marker.format(file) for file in (" from=one", " from=two short", "", " from=three"))
    told = tables.filled(text, tables.results([two, one])).split("<!-- end -->")
    assert [("1 threads; commit" in part, "2 threads; commit" in part) for part in told[:4]] == [
        (True, False), (False, True), (False, True), (False, False),
    ]  # fmt: skip


def test_a_table_shows_scores_beside_times() -> None:
    row = Row("estimators", "wine", "gpunn", "s", [0.5, 0.5], details={"score": "0.97 ± 0.01"})
    assert report.cell(row) == "0.5 s ±0 %; 0.97 ± 0.01"
    assert report.notes([row]) == []


def test_the_tables_command_fills_the_readmes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = (tmp_path / "README.md", tmp_path / "other.md")
    files[0].write_text(TEXT, encoding="utf-8")
    files[1].write_text("nothing to fill", encoding="utf-8")
    monkeypatch.setattr(tables, "FILES", files)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    done = CliRunner().invoke(tables.main, [str(stored(tmp_path, device="cpu"))], catch_exceptions=False)
    assert done.output == "README.md: changed\nother.md: as it was\n"
    text = files[0].read_text(encoding="utf-8")
    assert "None has been measured.\n" in text  # there are no results of a GPU
    assert "| a Adam | 11 µs ±9 % | not installed |" in text


def test_files_of_another_schema_and_quick_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"schema": 99}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"x\.json: expected results of schema 1, as --json writes them"):
        report.read_json(tmp_path / "x.json")
    with pytest.raises(ValueError, match="expected a full run, got one with --quick"):
        report.read_json(stored(tmp_path, quick=True))


def test_the_readmes_have_a_marker_for_every_table() -> None:
    """The text between a pair of markers was written by hand or by the command, never in part."""
    readme, own = (file.read_text(encoding="utf-8") for file in tables.FILES)
    assert [(m["question"], m["device"], m["file"]) for m in tables.MARKER.finditer(readme)] == [
        ("step", "cuda", None), ("step", "cpu", None), ("step", "cpu", "step-avx2"),
        ("estimators", "cpu", "estimators-1"), ("estimators", "cpu", "estimators-2"),
    ]  # fmt: skip
    assert [(m["question"], m["device"]) for m in tables.MARKER.finditer(own)] == [
        ("step", "cuda"), ("products", "cuda"), ("digits", "cuda"),
        ("step", "cpu"), ("step", "cpu"), ("products", "cpu"), ("estimators", "cpu"), ("estimators", "cpu"),
        *((question, "cpu") for question in LATER),
    ]  # fmt: skip
    assert set(LATER) < set(QUESTIONS)
    assert readme.count("<!-- end -->") == 5 and own.count("<!-- end -->") == 8 + len(LATER)
