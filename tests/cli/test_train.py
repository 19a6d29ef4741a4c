"""`gpunn train`: the files of a run, however training ends, and resuming it to the same bits."""

import csv
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.cli.recipe import share_of
from gpunn.cli.training import FolderCallback, TableTraining
from gpunn.data import evaluate, friedman, moons, read
from gpunn.errors import ConfigurationError
from tests.cli.stage import QUICK, call, document, process

FILES = {"model.gpunn", "checkpoint.gpunn", "history.csv", "history.json", "run.json"}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()} - {"curves.png"}


def model(folder: str) -> bytes:
    return Path(folder, "model.gpunn").read_bytes()


def write_csv(path: str, table: Any) -> str:
    columns = {name: table[name].values.tolist() for name in table.columns}
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values()))
    return path


def raising(number: int, *, update: int, times: int = 1) -> Callable[[Any, Any], None]:
    """A callback's on_step that sends this process a signal after an update in the middle of an epoch."""

    def on_step(self: Any, run: Any) -> None:
        for _ in range(times * (run.standing.done == update)):
            os.kill(os.getpid(), number)

    return on_step


# What a run leaves


def test_train_writes_all_files_of_a_run_and_a_record() -> None:
    told = document("train", "moons", "--out", "a", *QUICK)
    assert names("a") == FILES
    record = json.loads(Path("a/run.json").read_text())
    assert record.pop("format") == 1 and record == told
    assert record["status"] == "finished" and record["device"] == "cpu"
    assert record["data"]["rows"] == 800 and record["data"]["held_out"] == 200
    assert record["settings"]["epochs"] == 6 and record["settings"]["batch_size"] == 100
    assert record["versions"]["gpunn"] == gn.__version__
    assert record["network"]["parameters"] == 2 * 8 + 2 * 8 + 8 * 2 + 2  # no bias before the normalisation
    history = gn.History.from_json(Path("a/history.json").read_text())
    assert history.epochs == 6 and history.best_epoch == record["result"]["best_epoch"]
    assert len(Path("a/history.csv").read_text().splitlines()) == 7


def test_train_saves_the_best_network_with_its_preprocessing() -> None:
    told = document("train", "moons", "--out", "a", *QUICK)
    net = gn.load("a/model.gpunn", device="cpu")
    assert net.preprocessing is not None and net.preprocessing.classes == (0, 1)
    assert net.loss == gn.CrossEntropy()
    figures = evaluate(net, gn.data.splitting.split(moons(), 0.2, seed=0)[1])
    assert told["result"]["held_out"] == pytest.approx(figures, rel=1e-6)


def test_the_printed_table_of_train_agrees_with_its_json() -> None:
    text = call("train", "moons", "--out", "a", *QUICK).stdout
    result = document("inspect", "a")["record"]["result"]
    assert f"held-out accuracy  {result['held_out']['accuracy']:.5g}" in text
    assert "800 rows to train on, 200 held out, 2 inputs" in text


def test_train_draws_curves_if_matplotlib_is_installed() -> None:
    pytest.importorskip("matplotlib")
    call("train", "moons", "--out", "a", *QUICK)
    assert Path("a/curves.png").read_bytes().startswith(b"\x89PNG")


def test_train_without_matplotlib_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = call("train", "moons", "--out", "a", *QUICK)
    assert result.stderr.count("\n") == 1 and 'python -m pip install "gpunn[plot]"' in result.stderr
    assert names("a") == FILES


def test_two_runs_of_train_get_different_folders() -> None:
    told = [document("train", "moons", *QUICK)["run"] for _ in range(2)]
    assert told == [str(Path("runs", "moons")), str(Path("runs", "moons-2"))]


def test_train_does_not_overwrite_a_run() -> None:
    call("train", "moons", "--out", "a", *QUICK)
    before = model("a")
    assert "--out: expected a folder without a run" in call("train", "spirals", "--out", "a", *QUICK, code=2).stderr
    assert model("a") == before


def test_train_refuses_an_out_that_cannot_be_a_folder() -> None:
    Path("a").write_text("")
    assert "--out: expected a folder that can be made" in call("train", "moons", "--out", "a", *QUICK, code=4).stderr


# Data


def test_train_chooses_regression_for_a_numeric_target() -> None:
    told = document("train", "friedman", "--out", "a", *QUICK)
    assert told["data"]["task"] == "regression" and set(told["result"]["held_out"]) == {"loss", "r2", "rmse", "mae"}
    y = friedman().arrays()[1]
    assert told["result"]["held_out"]["mae"] < y.std()  # in the target's own units, better than its mean


def test_train_takes_several_targets() -> None:
    told = document("train", "friedman", "--target", "y", "--target", "x0", "--out", "a", *QUICK)
    assert told["data"]["task"] == "multi-output regression" and told["data"]["outputs"] == 2
    assert told["settings"]["target"] == ["y", "x0"] and told["data"]["inputs"] == 9


def test_train_takes_the_options_task_and_leave_out() -> None:
    told = document("train", "digits", "--task", "regression", "--leave-out", "pixel0", "--out", "a", *QUICK)
    assert told["data"]["task"] == "regression" and told["data"]["inputs"] == 63


def test_train_takes_a_file_to_validate_on() -> None:
    pytest.importorskip("pyarrow")
    train, other = write_csv("train.csv", moons(300)), write_csv("other.csv", moons(50, seed=7))
    told = document("train", train, "--validation", other, "--out", "a", *QUICK)
    assert told["data"]["rows"] == 300 and told["data"]["held_out"] == 50
    assert told["result"]["held_out"] == pytest.approx(evaluate(gn.load("a/model.gpunn", device="cpu"), read(other)))


def test_train_fits_the_preprocessing_without_the_held_out_rows() -> None:
    np.savez("a.npz", x=np.r_[np.zeros(49), 1e6], y=np.arange(50.0) / 7)
    training = TableTraining.prepare(settings(data="a.npz", seed=seed_holding_out(49)), "cpu")
    assert training.preprocessing.columns[0].mean == 0.0


def settings(**changes: Any) -> dict[str, Any]:
    known = {
        "target": [], "leave_out": [], "categorical": [], "task": None, "hidden": "4", "activation": "relu",
        "dropout": 0.0, "batch_norm": True, "numeric": "standardise",
        "optimizer": "adamw", "rate": None, "epochs": None, "batch_size": None,
        "validation": "0.2", "patience": None, "smoothing": 0.0, "class_weight": "none", "seed": 0, "dtype": "float32",
    }  # fmt: skip
    return {**known, **changes}


def seed_holding_out(row: int) -> int:
    table = read("a.npz")
    return next(
        seed
        for seed in range(100)
        if table["y"].data[row] in gn.data.splitting.split(table, 0.2, seed=seed)[1]["y"].data
    )


def test_a_refused_training_leaves_no_folder_behind() -> None:
    np.savez("a.npz", X=np.full((20, 2), np.inf), y=np.arange(20) % 2)
    call("train", "a.npz", *QUICK, code=3)
    for rate in ("nan", "inf"):
        assert "rate: expected a number" in call("train", "moons", "--rate", rate, *QUICK, code=2).stderr
    assert "or --no-batch-norm" in call("train", "moons", *QUICK, "--batch-size", "1", code=2).stderr
    assert "--out: expected the name of a folder" in call("train", "moons", "--out", "", *QUICK, code=2).stderr
    assert names(".") == {"a.npz"}


@pytest.mark.parametrize("share", ["0", "1", "-0.5", "nan", "7"])
def test_the_option_validation_refuses_a_share_outside_0_to_1(share: str) -> None:
    with pytest.raises(ConfigurationError, match="--validation: expected a share between 0 and 1"):
        share_of(share)


# The ends of a training


def test_ctrl_c_keeps_the_best_weights_and_the_run_can_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = document("train", "moons", "--out", "whole", *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(FolderCallback, "on_step", raising(signal.SIGINT, update=19))
        said = call("train", "moons", "--out", "a", "--json", *QUICK, code=130)
    told = json.loads(said.stdout)
    assert said.stderr.startswith("gpunn: interrupted; to go on: gpunn train --resume --out a\n")
    assert told["status"] == "interrupted" and told["result"]["epochs"] == 2 and names("a") == FILES
    steps: list[int] = []
    monkeypatch.setattr(FolderCallback, "on_step", lambda self, run: steps.append(run.standing.done))
    again = document("train", "--resume", "--out", "a", "--device", "cpu", "--quiet")
    assert steps == list(range(20, 49)) and model("a") == model("whole")  # it went on, and did not begin again
    assert again["result"]["epochs"] == 6 and again["status"] == "finished"
    assert again["result"]["held_out"] == whole["result"]["held_out"]


def test_a_second_ctrl_c_is_recorded_as_interrupted_and_not_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    call("train", "moons", "--out", "whole", *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(FolderCallback, "on_step", raising(signal.SIGINT, update=19, times=2))
        told = call("train", "moons", "--out", "a", "--json", *QUICK, code=130)
    assert told.stderr == "gpunn: interrupted; to go on: gpunn train --resume --out a\n"
    assert json.loads(told.stdout) == {"status": "interrupted"}
    assert json.loads(Path("a/run.json").read_text())["status"] == "interrupted"
    call("train", "--resume", "--out", "a", "--device", "cpu", "--quiet")
    assert model("a") == model("whole")


def test_ctrl_c_after_the_last_step_is_recorded_as_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["gpunn.cli.training"], "evaluation", interrupted)
    call("train", "moons", "--out", "a", *QUICK, code=130)
    assert json.loads(Path("a/run.json").read_text())["status"] == "interrupted"


def test_sigterm_during_train_leaves_a_checkpoint_and_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    call("train", "moons", "--out", "whole", *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(FolderCallback, "on_step", raising(signal.SIGTERM, update=19))
        told = call("train", "moons", "--out", "a", "--json", *QUICK, code=143)
    record = json.loads(Path("a/run.json").read_text())
    assert json.loads(told.stdout) == {name: value for name, value in record.items() if name != "format"}
    assert record["status"] == "terminated" and record["result"]["epochs"] == 2
    assert document("evaluate", "a", "moons", "--device", "cpu")["accuracy"] > 0.5
    call("train", "moons", "--resume", "--out", "a", "--device", "cpu", "--quiet")
    assert model("a") == model("whole")


def test_a_process_of_train_that_gets_sigterm_ends_with_143(tmp_path: Path) -> None:
    """Through `main`, whose handler of SIGTERM is replaced while the training runs."""
    patch = (
        "import os, signal\n"
        "from gpunn.cli.training import FolderCallback\n"
        "FolderCallback.on_epoch = lambda self, run, record: run.epoch == 2 and os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = process("train", "moons", "--out", "a", *QUICK, cwd=tmp_path, before=patch)
    told = "gpunn: terminated; to go on: gpunn train --resume --out a\n"
    assert (done.returncode, done.stdout, done.stderr) == (143, "", told)
    assert json.loads(Path("a/run.json").read_text())["status"] == "terminated"


def test_train_fails_on_a_loss_that_is_not_finite_and_keeps_good_weights() -> None:
    told = call("train", "friedman", "--optimizer", "sgd", "--rate", "1e30", "--out", "a", *QUICK, code=1)
    assert "gpunn: training failed: non-finite loss" in told.stderr
    record = json.loads(Path("a/run.json").read_text())
    assert record["status"] == "failed" and names("a") == FILES
    assert np.isfinite(gn.load("a/model.gpunn", device="cpu").vector).all()


def test_an_error_during_train_is_written_to_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, run: Any, record: Any) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(FolderCallback, "on_epoch", broken)
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        call("train", "moons", "--out", "a", *QUICK)
    assert json.loads(Path("a/run.json").read_text())["status"] == "failed"


# Going on


def test_resuming_a_run_without_a_checkpoint_begins_it_again() -> None:
    call("train", "moons", "--out", "whole", *QUICK)
    call("train", "moons", "--out", "a", *QUICK)
    for name in ("model.gpunn", "checkpoint.gpunn"):
        Path("a", name).unlink()
    call("train", "--resume", "--out", "a", "--device", "cpu", "--quiet")
    assert model("a") == model("whole")


def test_a_run_resumed_from_another_folder_finds_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez("a.npz", **dict(zip("Xy", moons(200).arrays())))
    call("train", "a.npz", "--out", "a", *QUICK)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    call("train", "../a.npz", "--resume", "--out", "../a", "--device", "cpu", "--quiet")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--resume"], 2, "--resume: expected --out"),
        (["--resume", "--out", "b"], 4, "run.json: expected the record of a run"),
        (["spirals", "--resume", "--out", "a"], 2, "DATA: expected that of the run, 'moons', got"),
        (["--resume", "--out", "a", "--batch-size", "7"], 2, "--batch-size: expected that of the run, 100, got 7"),
        (["--resume", "--out", "a", "--no-batch-norm"], 2, "--batch-norm: expected that of the run, True, got False"),
    ],
)
def test_train_refuses_to_resume_what_cannot_be_resumed(arguments: list[str], code: int, message: str) -> None:
    call("train", "moons", "--out", "a", *QUICK)
    before = model("a")
    assert message in call("train", *arguments, "--quiet", code=code).stderr
    assert model("a") == before


def test_a_run_is_resumed_with_its_options_repeated() -> None:
    for more in ((), ("--resume",)):
        call("train", "moons", "--out", "a", *QUICK, *more)


def test_train_refuses_to_resume_with_other_data() -> None:
    for noise in (0.1, 0.2):
        np.savez("a.npz", **dict(zip("Xy", moons(200, noise=noise).arrays())))
        if noise == 0.1:
            call("train", "a.npz", "--out", "a", *QUICK)
    told = call("train", "--resume", "--out", "a", "--device", "cpu", "--quiet", code=4)
    assert "expected the data that the run began with" in told.stderr


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "settings": {}}', '{"format": 1, "settings": 3}'])
def test_train_refuses_to_resume_a_run_with_a_damaged_record(text: str) -> None:
    Path("a").mkdir()
    Path("a/run.json").write_text(text)
    assert "expected the record of a run" in call("train", "--resume", "--out", "a", code=4).stderr


def test_train_refuses_to_resume_a_record_with_unknown_settings() -> None:
    Path("a").mkdir()
    Path("a/run.json").write_text('{"format": 1, "settings": {"colour": 1}, "data": {"sha256": "0"}}')
    assert "expected the settings of this version" in call("train", "--resume", "--out", "a", code=4).stderr
