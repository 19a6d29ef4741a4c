"""The losses that a run reports are comparable, its probabilities calibrated, and what changes that is reported."""

from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn.cli import recipe
from gpunn.data.splitting import split
from tests.cli.stage import QUICK, call, document


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def best_losses(folder: str) -> tuple[float, float]:
    """The training and the validation loss of the epoch whose weights were kept, from the history."""
    header, *rows = (line.split(",") for line in Path(folder, "history.csv").read_text().splitlines())
    best = gn.History.from_json(Path(folder, "history.json").read_text()).best_epoch
    record = dict(zip(header, map(float, rows[best - 1])))
    return record["loss"], record["validation_loss"]


def unbalanced(rows: int = 400) -> str:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 2))
    np.savez("rare.npz", x=X, y=(X[:, 0] + rng.normal(size=rows) > 1.8).astype(int))
    return "rare.npz"


@pytest.mark.parametrize("data", ["moons", "friedman"])
def test_the_held_out_loss_of_train_is_the_best_loss_of_its_history(data: str) -> None:
    told = document("train", data, "--out", "a", *QUICK)["result"]["held_out"]
    assert told["loss"] == pytest.approx(best_losses("a")[1], rel=1e-5) and "loss_as_trained" not in told
    net = gn.load("a/checkpoint.gpunn", device="cpu")
    assert net.loss in (gn.CrossEntropy(), gn.SquaredError())


def test_train_with_smoothing_says_so_and_reports_both_losses() -> None:
    table = call("train", "moons", "--smoothing", "0.1", "--out", "a", *QUICK).stdout
    told = "smoothing                 0.1; the losses in the history include it, and probabilities are not calibrated\n"
    assert told in table
    told = document("inspect", "a")["record"]["result"]["held_out"]
    assert told["loss_as_trained"] == pytest.approx(best_losses("a")[1], rel=1e-5)
    assert f"held-out loss as trained  {told['loss_as_trained']:.5g}\n" in table
    assert f"held-out loss             {told['loss']:.5g}\n" in table
    net = gn.load("a/model.gpunn", device="cpu")
    assert told["loss"] == pytest.approx(gn.data.evaluate(net, split(gn.data.moons(), 0.2)[1])["loss"], rel=1e-6)
    assert told["loss_as_trained"] != pytest.approx(told["loss"], rel=0.01)
    assert gn.load("a/checkpoint.gpunn", device="cpu").loss == gn.CrossEntropy(0.1)
    assert net.loss == gn.CrossEntropy()


def test_train_with_class_weights_says_so_and_reports_both_losses() -> None:
    mean = {}
    for weights in ("none", "balanced"):
        longer = (*QUICK, "--epochs", "20", "--batch-size", "20")
        table = call("train", unbalanced(), "--class-weight", weights, "--out", weights, *longer).stdout
        P = np.array(
            document("predict", weights, "rare.npz", "--probabilities", "--device", "cpu")["predictions"]["y=1"]
        )
        mean[weights] = P.mean()
    rate = np.load("rare.npz")["y"].mean()
    assert rate < 0.15 and mean["balanced"] > mean["none"] + 0.1
    assert (
        "class weights             balanced; the losses in the history include it, and probabilities are not" in table
    )
    told = document("inspect", "balanced")["record"]["result"]["held_out"]
    assert told["loss_as_trained"] == pytest.approx(best_losses("balanced")[1], rel=1e-5)
    assert told["loss_as_trained"] != pytest.approx(told["loss"], rel=0.01)


def test_class_weights_are_kept_by_an_interrupted_and_resumed_run() -> None:
    told = document("train", unbalanced(), "--class-weight", "balanced", "--out", "a", *QUICK)
    Path("a/checkpoint.gpunn").unlink()
    again = document("train", "--resume", "--out", "a", "--device", "cpu", "--quiet")
    assert again["result"]["held_out"] == told["result"]["held_out"]


def test_balanced_class_weights_give_each_class_the_same_sum() -> None:
    assert recipe.balanced([0, 1, 1, 1]) == {0: 2.0, 1: pytest.approx(2 / 3)}


@pytest.mark.parametrize("option", [("--smoothing", "0.1"), ("--class-weight", "balanced")])
def test_smoothing_and_class_weights_are_refused_for_numeric_targets(option: tuple[str, str]) -> None:
    told = call("train", "friedman", *option, *QUICK, code=2).stderr
    assert f"{option[0]}: expected a target of classes, got one of numbers; leave it out, or pass --task" in told
    assert not Path("runs").exists()


def test_a_smoothing_of_1_is_refused() -> None:
    assert "0<=x<1" in call("train", "moons", "--smoothing", "1", *QUICK, code=2).stderr
