"""`gpunn evaluate`, `predict` and `inspect` on a run."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.cli.runs import load_network
from gpunn.data import friedman, moons, predict, read
from tests.cli.stage import QUICK, call, document

CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of classes and one of numbers."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("moons", "friedman"):
        call("train", name, "--out", folder / name, *QUICK)
    return folder


def table_of(text: str) -> dict[str, list[str]]:
    header, *rows = csv.reader(text.splitlines())
    return dict(zip(header, map(list, zip(*rows))))


def test_evaluate_prints_the_figures_of_a_run_on_given_data(runs: Path) -> None:
    told = document("evaluate", runs / "moons", "moons", *CPU)
    expected = gn.data.evaluate(gn.load(runs / "moons/model.gpunn", device="cpu"), "moons")
    assert told["rows"] == 1000 and told["device"] == "cpu"
    assert {name: told[name] for name in expected} == expected
    assert f"accuracy  {expected['accuracy']:.5g}" in call("evaluate", runs / "moons", "moons", *CPU).stdout


def test_evaluate_takes_a_saved_network_instead_of_a_folder(runs: Path) -> None:
    told = [document("evaluate", runs / name, "moons", *CPU) for name in ("moons", "moons/model.gpunn")]
    assert told[0]["loss"] == told[1]["loss"]


def test_predict_prints_labels_to_stdout(runs: Path) -> None:
    columns = table_of(call("predict", runs / "moons", "moons", *CPU).stdout)
    assert list(columns) == ["y"]
    assert np.mean(np.array(columns["y"], int) == moons().arrays()[1]) > 0.7


def test_predict_prints_probabilities_that_add_up_to_1(runs: Path) -> None:
    columns = table_of(call("predict", runs / "moons", "moons", "--probabilities", *CPU).stdout)
    assert list(columns) == ["y", "y=0", "y=1"]
    P = np.array([columns["y=0"], columns["y=1"]], float)
    np.testing.assert_allclose(P.sum(axis=0), 1.0, atol=1e-6)
    assert (P.argmax(axis=0) == np.array(columns["y"], int)).all()


def test_predict_prints_numbers_in_the_units_of_the_target(runs: Path) -> None:
    columns = table_of(call("predict", runs / "friedman", "friedman", *CPU).stdout)
    predictions = predict(gn.load(runs / "friedman/model.gpunn", device="cpu"), "friedman")
    assert [float(v) for v in columns["y"]] == predictions.values.tolist()  # to the last digit
    assert abs(predictions.values.mean() - friedman().arrays()[1].mean()) < 3


def test_predict_prints_predictions_as_json(runs: Path) -> None:
    told = document("predict", runs / "moons", "moons", "--probabilities", *CPU)
    assert {len(column) for column in told["predictions"].values()} == {1000}


def test_predict_writes_csv_and_parquet_files(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for name in ("a.csv", "a.parquet"):
        result = call("predict", runs / "moons", "moons", "--probabilities", "-o", tmp_path / name, *CPU)
        assert result.stdout == ""
    a, b = read(tmp_path / "a.csv"), read(tmp_path / "a.parquet")
    assert a.columns == b.columns == ("y", "y=0", "y=1") and a.rows == 1000
    assert all((a[name].data == b[name].data).all() for name in a.columns)
    told = document("predict", runs / "moons", "moons", "-o", tmp_path / "b.csv", *CPU)
    assert told["output"] == str(tmp_path / "b.csv") and "predictions" not in told


@pytest.mark.parametrize("other", ["a.csv", "below/../a.csv", "link.csv", "hard.csv"])
def test_predict_refuses_to_overwrite_its_data(
    other: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = "x0,x1\n0.5,0.5\n"
    Path("a.csv").write_text(before)
    Path("below").mkdir()
    Path("link.csv").symlink_to("a.csv")
    Path("hard.csv").hardlink_to("a.csv")
    told = call("predict", runs / "moons", "a.csv", "-o", other, *CPU, code=2).stderr
    assert f"--output: expected another file than what it is made from, got {other!r}; choose another name" in told
    assert Path("a.csv").read_text() == before


def test_predict_refuses_to_overwrite_its_network(runs: Path, tmp_path: Path) -> None:
    network = tmp_path / "a.csv"
    network.write_bytes((runs / "moons/model.gpunn").read_bytes())
    assert "expected another file" in call("predict", network, "moons", "-o", network, *CPU, code=2).stderr


def test_predict_prints_a_column_for_each_of_several_targets(tmp_path: Path) -> None:
    call("train", "friedman", "--target", "y", "--target", "x0", "--out", tmp_path / "a", *QUICK)
    assert list(table_of(call("predict", tmp_path / "a", "friedman", *CPU).stdout)) == ["y", "x0"]


def test_predict_refuses_probabilities_for_numeric_targets(runs: Path) -> None:
    told = call("predict", runs / "friedman", "friedman", "--probabilities", *CPU, code=2)
    assert "--probabilities: expected a network for classes" in told.stderr


def test_predict_exits_with_4_if_its_file_cannot_be_written(runs: Path, tmp_path: Path) -> None:
    told = call("predict", runs / "moons", "moons", "-o", tmp_path / "no" / "a.csv", *CPU, code=4)
    assert "expected a file that can be written" in told.stderr


def test_predict_names_the_extra_for_parquet_without_pyarrow(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    told = call("predict", runs / "moons", "moons", "-o", tmp_path / "a.parquet", *CPU, code=6)
    assert "--output: expected pyarrow" in told.stderr and 'python -m pip install "gpunn[data]"' in told.stderr
    call("predict", runs / "moons", "moons", "-o", tmp_path / "a.csv", *CPU)


def test_predict_refuses_data_with_other_columns(runs: Path) -> None:
    assert "the columns of training" in call("predict", runs / "moons", "digits", *CPU, code=3).stderr


def test_a_network_without_preprocessing_can_be_inspected_but_not_evaluated(tmp_path: Path) -> None:
    gn.Network([gn.Dense(2)], 2, device="cpu").save(tmp_path / "a.gpunn")
    for command in ("evaluate", "predict"):
        told = call(command, tmp_path / "a.gpunn", "moons", *CPU, code=2)
        assert "expected the preprocessing that the network was trained with" in told.stderr
    told = document("inspect", tmp_path / "a.gpunn")
    assert told["parameters"] == 6 and told["preprocessing"] is told["record"] is told["history"] is None


def test_a_half_precision_run_is_read_in_float32_on_the_cpu(strict: Any, tmp_path: Path) -> None:
    net = gn.Network([gn.Dense(2)], 2, device=strict, dtype="bfloat16")
    net.save(tmp_path / "a.gpunn")
    loaded = load_network(str(tmp_path / "a.gpunn"), "cpu")
    assert loaded.precision.name == "float32"
    assert (loaded.parameters["0.W"] == strict.to_host(net.parameters["0.W"])).all()


@pytest.mark.parametrize("content", [b"", b"{}", b"x" * 1000])
def test_files_that_are_not_networks_exit_with_4(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.gpunn").write_bytes(content)
    for command in (["inspect"], ["evaluate", "--device", "cpu"]):
        data = ["moons"] if command[0] == "evaluate" else []
        call(command[0], tmp_path / "a.gpunn", *data, *command[1:], code=4)


def test_inspect_shows_layers_preprocessing_settings_and_history(runs: Path) -> None:
    text = call("inspect", runs / "moons").stdout
    for part in ("BatchNorm", "preprocessing of 3 columns", "numeric", "asked for", "hidden", "6 epochs", "best"):
        assert part in text
    told = document("inspect", runs / "moons")
    assert [layer["layer"] for layer in told["layers"]] == ["Dense", "BatchNorm", "Dropout", "Dense"]
    assert len(told["history"]["validation_accuracy"]) == 6
    assert told["record"] == json.loads((runs / "moons/run.json").read_text())


def test_inspect_shows_some_of_many_columns(tmp_path: Path) -> None:
    call("train", "digits", "--out", tmp_path / "a", *QUICK)
    text = call("inspect", tmp_path / "a").stdout
    assert "pixel0 " in text and "digit " in text and "25 more" in text and "pixel30" not in text


def test_inspect_works_without_a_record_and_history(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gpunn").write_bytes((runs / "moons/model.gpunn").read_bytes())
    assert document("inspect", tmp_path)["record"] is None
    assert "asked for" not in call("inspect", tmp_path).stdout
