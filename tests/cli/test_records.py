"""A run's record that was damaged, or edited by hand into something that `gpunn train` does not write."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.stage import QUICK, call, document


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "moons"
    call("train", "moons", "--target", "y", "--out", folder, *QUICK)
    return folder


@pytest.fixture
def record(run: Path) -> Any:
    """A copy of the record, which a test may change."""
    path = run / "run.json"
    before = path.read_text()
    yield json.loads(before)
    path.write_text(before)


def refusal(run: Path, record: Any, *command: Any, code: int = 4) -> str:
    (run / "run.json").write_text(record if isinstance(record, str) else json.dumps(record))
    return call(*command, code=code).stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden", 5),
        ("epochs", "x"),
        ("epochs", 0),
        ("epochs", 6.5),
        ("epochs", True),
        ("batch_norm", 1),
        ("batch_norm", "yes"),
        ("optimizer", "colour"),
        ("optimizer", None),
        ("rate", "0.1"),
        ("rate", -1),
        ("seed", [0]),
        ("target", "y"),
        ("target", [3]),
        ("target", None),
        ("leave_out", {}),
        ("data", None),
        ("data", 5),
        ("validation", 0.2),
        ("dtype", "int8"),
    ],
)
def test_a_record_with_a_setting_that_no_option_gives_is_refused(name: str, value: Any, run: Path, record: Any) -> None:
    record["settings"][name] = value
    told = refusal(run, record, "train", "--resume", "--out", run, "--quiet")
    assert f"run.json: expected what the options of gpunn train give, got {name} {value!r}; name the folder" in told
    assert told.count("\n") == 1
    assert document("evaluate", run, "moons", "--device", "cpu")["rows"] == 1000  # which needs no record


@pytest.mark.parametrize("command", [["train", "--resume", "--quiet", "--out"], ["inspect"]])
@pytest.mark.parametrize("data", [None, 5, {}, {"sha256": 5}])
def test_a_record_without_the_digest_of_its_data_is_refused(
    command: list[str], data: Any, run: Path, record: Any
) -> None:
    record["data"] = data
    assert "expected the record of a run" in refusal(run, record, *command, run)
    del record["data"]
    assert "expected the record of a run, got KeyError: 'data'" in refusal(run, record, *command, run)


def test_a_record_without_one_of_its_settings_is_refused(run: Path, record: Any) -> None:
    del record["settings"]["seed"]
    told = refusal(run, record, "train", "--resume", "--out", run, "--quiet")
    assert "expected the settings of this version's runs, got a difference in seed" in told


@pytest.mark.parametrize(("data", "smoothing"), [("moons", 0.05), ("friedman", 0.0)])
def test_an_older_record_without_newer_settings_is_resumed(data: str, smoothing: float, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = document("train", data, "--smoothing", smoothing, "--out", run, *QUICK)
    record = json.loads((run / "run.json").read_text())
    del record["settings"]["smoothing"], record["settings"]["class_weight"]
    (run / "run.json").write_text(json.dumps(record))
    told = refusal(run, record, "train", "--resume", "--smoothing", "0.1", "--out", run, "--quiet", code=2)
    assert f"--smoothing: expected that of the run, {smoothing}, got 0.1" in told
    resumed = document("train", "--resume", "--out", run, "--device", "cpu", "--quiet")
    assert resumed["settings"] == trained["settings"]
    assert resumed["result"]["held_out"] == trained["result"]["held_out"]


def test_a_record_with_null_settings_or_whole_numbers_is_accepted(run: Path, record: Any) -> None:
    record["settings"] |= {"dropout": 0, "rate": None, "task": None}
    (run / "run.json").write_text(json.dumps(record))
    # no complaint about the record, but about the checkpoint, which knows another network
    assert "run.json" not in call("train", "--resume", "--out", run, "--device", "cpu", "--quiet", code=4).stderr


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"population": null, "epochs": 1, "stopped": [], "best": [], "values": []}']
)
def test_a_run_with_a_damaged_history_is_refused(text: str, run: Path) -> None:
    path = run / "history.json"
    before = path.read_text()
    path.write_text(text)
    try:
        told = call("inspect", run, code=4).stderr
        assert "history.json: history" in told and "remove it, or copy the run's folder again" in told
        assert told.count("\n") == 1
        path.unlink()
        assert document("inspect", run)["history"] is None
    finally:
        path.write_text(before)
