"""Several models in one file: the command averages their predictions and says so."""

from pathlib import Path

import numpy as np
import pytest

import gpunn as gn
from gpunn.data import Preprocessing, moons
from tests.cli.stage import call, document

CPU = ("--device", "cpu")
SAID = "gpunn: 3 models: what is predicted is the mean of theirs\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = moons()
    fitted = Preprocessing.fit(table)
    net = gn.Network([gn.Dense(8, "tanh"), gn.Dense(2)], 2, models=3, device="cpu")
    X, y = fitted.inputs(table), fitted.targets(table)
    net.fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-2), epochs=3, progress=False)
    net.preprocessing = fitted
    path = tmp_path_factory.mktemp("population") / "moons.gpunn"
    net.save(path)
    return path


def test_predict_averages_the_models_of_a_population_and_says_so(saved: Path) -> None:
    told = call("predict", saved, "moons", "--probabilities", *CPU)
    assert told.stderr == SAID
    P = np.array([line.split(",")[1:] for line in told.stdout.splitlines()[1:]], float)
    net = gn.load(saved, device="cpu")
    X = Preprocessing.fit(moons()).inputs(moons())
    np.testing.assert_allclose(P, net.predict_probability(X).mean(axis=0), rtol=1e-5)
    found = document("predict", saved, "moons", *CPU)
    assert found["models"] == 3 and len(found["predictions"]["y"]) == 1000


def test_evaluate_averages_the_models_of_a_population_and_says_so(saved: Path) -> None:
    assert call("evaluate", saved, "moons", *CPU).stderr == SAID
    told = document("evaluate", saved, "moons", *CPU)
    assert told["models"] == 3
    figures = gn.data.evaluate(gn.load(saved, device="cpu"), "moons")
    assert {name: told[name] for name in ("loss", "accuracy")} == figures


def test_inspect_names_the_number_of_models_of_a_population(saved: Path) -> None:
    assert "3 models of this architecture, whose predictions are averaged\n" in call("inspect", saved).stdout
    assert document("inspect", saved)["models"] == 3


def test_predict_says_nothing_of_models_for_a_single_network(saved: Path, tmp_path: Path) -> None:
    gn.load(saved, device="cpu").member(1).save(tmp_path / "one.gpunn")
    told = call("predict", tmp_path / "one.gpunn", "moons", *CPU)
    assert told.stderr == "" and len(told.stdout.splitlines()) == 1001
    assert document("inspect", tmp_path / "one.gpunn")["models"] == 1
    assert "models of this" not in call("inspect", tmp_path / "one.gpunn").stdout
