"""The summary of a training names every choice that changes the answer, and figures say what their units are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from tests.cli.stage import QUICK, call, document


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(*arguments: Any) -> dict[str, str]:
    lines = call(*arguments).stdout.splitlines()
    return {name.strip(): value.strip() for name, value in (line.split("  ", 1) for line in lines)}


def summary(*arguments: Any) -> dict[str, str]:
    return rows("train", *arguments, *QUICK)


def columns(n: int = 60) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "age": rng.normal(size=n),
        "truth": rng.random(n) < 0.5,
        "city": np.array(["Bonn", "Ulm"])[rng.integers(2, size=n)],
        "street": np.array([f"street {k}" for k in range(20)])[np.arange(n) % 20],
        "postcode": rng.integers(10, 13, size=n),
        "y": rng.integers(2, size=n),
    }


def test_the_summary_of_train_names_every_default_choice() -> None:
    told = summary("moons", "--out", "a")
    expected = {
        "layers": "hidden 8; relu, batch norm, dropout 0.2, float32",
        "optimizer": "AdamW, weight decay 0.01; the rate makes one cycle up to 0.003",
        "epochs": "6 at most, patience 10, batches of 100",
        "held out": "a share of 0.2, drawn by seed 0",
        "seed": "0, of first weights, order of rows and dropout",
        "numbers": "standardise; gaps become the median",
        "smoothing": "0",
        "class weights": "none",
    }
    assert {name: told[name] for name in expected} == expected
    assert not {"one-hot", "embedding", "read as categories"} & told.keys()


def test_the_summary_of_train_names_every_choice_of_the_user() -> None:
    np.savez("other.npz", **dict(zip("xy", gn.data.friedman(50, seed=1).arrays())))
    options = ("--no-batch-norm", "--optimizer", "sgd", "--rate", "0.01", "--numeric", "quantile", "--seed", "3")
    told = summary("friedman", "--out", "a", *options, "--validation", "other.npz")
    assert told["layers"] == "hidden 8; relu, no batch norm, dropout 0.2, float32"
    assert told["optimizer"] == "SGD, momentum 0.9; the rate makes one cycle up to 0.01"
    assert told["held out"] == str(Path("other.npz").absolute()) and told["seed"].startswith("3, of")
    assert told["numbers"] == "quantile; gaps become the median"
    assert "smoothing" not in told and "class weights" not in told


def test_the_summary_of_a_network_without_hidden_layers_names_none_of_their_options() -> None:
    told = rows("train", "moons", "--out", "b", *QUICK, "--hidden", "")
    assert told["layers"] == "no hidden ones, float32"
    assert [repr(layer) for layer in gn.load("b/model.gpunn", device="cpu").network.layers] == ["Dense(2)"]


def test_the_summary_of_train_says_how_columns_are_encoded() -> None:
    np.savez("a.npz", **columns())
    told = summary("a.npz", "--categorical", "postcode", "--numeric", "quantile")
    assert told["numbers"] == "quantile; gaps become the median; truth values are standardised"
    assert told["one-hot"] == "'city', 'postcode'"
    assert told["embedding"] == "'street'"
    assert told["read as categories"] == "'postcode'"


def test_the_summary_of_train_names_flags_for_columns_with_gaps() -> None:
    table = columns()
    gaps = np.where(np.arange(60) % 5 == 0, np.nan, table["age"])
    np.savez("a.npz", age=gaps, other=table["age"], y=table["y"])
    assert summary("a.npz")["numbers"] == "standardise; gaps become the median, with a flag in 'age'"
    np.savez("b.npz", city=table["city"], y=table["y"])
    assert "numbers" not in summary("b.npz")


def test_figures_of_numeric_targets_are_printed_with_their_units() -> None:
    told = summary("friedman", "--out", "a")
    found = document("inspect", "a")["record"]["result"]["held_out"]
    assert told["held-out loss"] == f"{found['loss']:.5g} (of standardised targets)"
    assert told["held-out rmse"] == f"{found['rmse']:.5g} (in the units of y)"
    assert told["held-out mae"] == f"{found['mae']:.5g} (in the units of y)"
    assert told["held-out r2"] == f"{found['r2']:.5g}"
    evaluated = rows("evaluate", "a", "friedman", "--device", "cpu")
    assert evaluated["loss"].endswith(" (of standardised targets)") and evaluated["rmse"].endswith(
        " (in the units of y)"
    )
    of_classes = summary("moons", "--out", "b")
    assert "(" not in of_classes["held-out loss"] + of_classes["held-out accuracy"]


def test_the_rmse_of_each_of_several_targets_is_reported() -> None:
    X = np.random.default_rng(0).normal(size=(100, 3))
    metres, grams = X[:, 0] + 0.1 * X[:, 2], 1000.0 * X[:, 1]
    np.savez("a.npz", x=X, metres=metres, grams=grams)
    told = summary("a.npz", "--target", "metres", "--target", "grams", "--out", "a")
    held_out = document("inspect", "a")["record"]["result"]["held_out"]["rmse_by_target"]
    assert told["held-out rmse of grams"] == f"{held_out['grams']:.5g}"
    assert told["held-out rmse"].endswith(" (over all targets, whatever their units)")
    evaluated, found = rows("evaluate", "a", "a.npz", "--device", "cpu"), document("evaluate", "a", "a.npz")
    predictions = gn.data.predict(gn.load("a/model.gpunn", device="cpu"), {f"x{j}": X[:, j] for j in range(3)})
    for j, (name, y) in enumerate({"metres": metres, "grams": grams}.items()):
        rmse = np.sqrt(((predictions.values[:, j] - y) ** 2).mean())
        assert found["rmse_by_target"][name] == pytest.approx(rmse, rel=1e-5)
        assert evaluated[f"rmse of {name}"] == f"{found['rmse_by_target'][name]:.5g}"


@pytest.mark.filterwarnings("ignore:2 epochs were not enough")
def test_the_loss_of_targets_that_are_not_standardised_has_no_note_on_units() -> None:
    estimators = pytest.importorskip("gpunn.estimators")
    X, y = gn.data.friedman(100).arrays()
    np.savez("a.npz", x=X, y=y)
    estimators.MLPRegressor(hidden_layer_sizes=(4,), max_iter=2, device="cpu", early_stopping=True).fit(
        X, y
    ).network_.save("a.gpunn")
    assert "(" not in rows("evaluate", "a.gpunn", "a.npz", "--device", "cpu")["loss"]
