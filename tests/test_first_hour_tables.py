"""What a new user types in the first hour with tables gives the right answer."""

from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from tests.cli.stage import call


def test_a_data_frame_with_columns_in_another_order_predicts_the_same() -> None:
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"age": rng.normal(size=500), "height": rng.normal(size=500), "weight": rng.normal(size=500)})
    y = (df["age"] > df["weight"]).astype(int)
    net = gn.Network([gn.Dense(16, "relu"), gn.Dense(2)])
    net.fit(df, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-2), epochs=30, progress=False)
    other = df[["weight", "age", "height"]]
    assert (net.predict(other).argmax(axis=1) == y).mean() > 0.97
    assert net.evaluate(other, y, metrics=["accuracy"]) == net.evaluate(df, y, metrics=["accuracy"])


def test_truth_values_of_get_dummies_train_a_network(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"colour": rng.choice(["red", "green", "blue"], 400), "size": rng.integers(0, 9, 400)})
    y = ((df["colour"] == "red") & (df["size"] > 3)).astype(int)
    X = pd.get_dummies(df)
    net = gn.Network([gn.Dense(16, "relu"), gn.Dense(2)])
    net.fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-2), epochs=50, progress=False)
    assert (net.predict(X).argmax(axis=1) == y).mean() > 0.97
    net.save(tmp_path / "colours.gpunn")
    assert gn.load(tmp_path / "colours.gpunn").columns == ("size", "colour_blue", "colour_green", "colour_red")


def test_a_population_trained_on_a_table_is_used_by_the_command(tmp_path: Path) -> None:
    table = gn.data.moons(600)
    preprocessing = gn.data.Preprocessing.fit(table)
    net = gn.Network([gn.Dense(16, "relu"), gn.Dense(2)], models=3)
    net.preprocessing = preprocessing
    X, y = preprocessing.inputs(table), preprocessing.targets(table)
    net.fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-2), epochs=30, progress=False)
    net.save(tmp_path / "three.gpunn")
    np.savez(tmp_path / "rows.npz", x0=table["x0"].data, x1=table["x1"].data)
    call("predict", tmp_path / "three.gpunn", tmp_path / "rows.npz", "-o", tmp_path / "out.csv")
    name, *labels = (tmp_path / "out.csv").read_text().split()
    assert name == "y" and len(labels) == 600
    assert (np.array(labels, int) == y).mean() > 0.85


def test_probabilities_of_a_rare_class_are_calibrated(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(6000, 4))
    y = rng.random(6000) < 1.0 / (1.0 + np.exp(5.6 - X[:, 0] - X[:, 1]))
    assert 0.0085 < y.mean() < 0.0095
    np.savez(tmp_path / "rare.npz", x=X, y=np.where(y, "yes", "no"))
    call("train", tmp_path / "rare.npz", "--hidden", "16", "--out", tmp_path / "run", "--quiet")
    call("predict", tmp_path / "run", tmp_path / "rare.npz", "--probabilities", "-o", tmp_path / "out.csv")
    header, *rows = (tmp_path / "out.csv").read_text().splitlines()
    assert header == "y,y=no,y=yes"
    mean = np.mean([float(row.split(",")[2]) for row in rows])
    assert abs(mean - y.mean()) < 2.0 * np.sqrt(y.mean() / len(y))
