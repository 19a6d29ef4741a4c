"""Networks with their preprocessing: in files, pickles and populations, and in predictions."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import archive
from gpunn.data import Preprocessing
from gpunn.errors import CheckpointError, ConfigurationError, DataError, ShapeError


def trained(source: Any, *, models: int | None = None, outputs: Any = None, **options: Any) -> gn.Network:
    table = gn.data.read(source)
    fitted = Preprocessing.fit(table)
    net = gn.Network(
        [*fitted.layers(), gn.Dense(32, "tanh"), gn.Dense(fitted.outputs)], fitted.width, device="cpu", models=models
    )
    net.preprocessing = fitted
    net.fit(
        fitted.inputs(table), fitted.targets(table), loss=fitted.loss, optimizer=gn.AdamW(1e-2), epochs=20,
        batch_size=32, progress=False, **options,
    )  # fmt: skip
    return net


@pytest.fixture(scope="module")
def moons() -> gn.Network:
    return trained("moons")


def test_predictions_of_classes_have_labels_and_probabilities(moons: gn.Network) -> None:
    table = gn.data.moons(200, seed=5)
    predictions = gn.data.predict(moons, table.without("y"))
    assert (predictions.names, predictions.classes) == (("y",), (0, 1))
    assert predictions.probabilities is not None and predictions.probabilities.shape == (200, 2)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1.0, rtol=1e-5)
    accuracy = (predictions.values == table.arrays()[1]).mean()
    scores = gn.data.evaluate(moons, table)
    assert scores.keys() == {"loss", "accuracy"}
    assert scores["accuracy"] == pytest.approx(accuracy) and accuracy > 0.95
    np.testing.assert_array_equal(gn.data.predict(moons, table, batch_size=7).values, predictions.values)


def test_predictions_of_numbers_are_in_the_units_of_the_target() -> None:
    table = gn.data.friedman(500)
    scaled = gn.data.read({"x": table.arrays()[0], "y": 1000.0 * table.arrays()[1] + 5e5})
    net = trained(scaled)
    predictions = gn.data.predict(net, scaled)
    y = scaled.arrays()[1]
    assert predictions.probabilities is None and predictions.classes is None and predictions.values.shape == (500,)
    scores = gn.data.evaluate(net, scaled)
    error = predictions.values - y
    assert scores["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    assert scores["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert scores["r2"] == pytest.approx(1 - (error**2).mean() / y.var(), abs=1e-5)
    assert scores["r2"] > 0.8
    assert scores.keys() == {"loss", "r2", "rmse", "mae"}


def test_rmse_of_errors_whose_squares_overflow_is_finite() -> None:
    """An overflow would be a warning, which is an error here."""
    x = np.linspace(-1.0, 1.0, 64)
    small, large = (gn.data.evaluate(trained(table), table) for table in ({"x": x, "y": x}, {"x": x, "y": 1e300 * x}))
    for name in ("rmse", "mae"):
        assert large[name] == pytest.approx(1e300 * small[name], rel=1e-3)
    net = trained({"x": x, "y": np.tile([-0.5, 0.5], 32)})
    net.vector[...] = 0.0  # predicts the mean
    assert gn.data.evaluate(net, {"x": x, "y": np.zeros(64)})["rmse"] == 0.0


def test_predictions_of_several_targets_have_a_column_each() -> None:
    X = np.random.default_rng(0).normal(size=(200, 3))
    table = gn.data.read((X, np.stack([100 * X[:, 0], X[:, 1]], axis=1)))
    net = trained(table)
    predictions = gn.data.predict(net, table)
    assert predictions.values.shape == (200, 2) and predictions.names == ("y0", "y1")
    assert gn.data.evaluate(net, table)["mae"] == pytest.approx(np.abs(predictions.values - table.arrays()[1]).mean())


def test_the_first_name_of_predictions_still_works() -> None:
    assert gn.data.Answers is gn.data.Predictions


def members(net: gn.Network, source: Any) -> list[gn.data.Predictions]:
    assert net.models is not None
    return [gn.data.predict(net.member(k), source) for k in range(net.models)]


def test_a_population_predicts_the_mean_of_its_numbers() -> None:
    table = gn.data.read((gn.data.friedman(300).arrays()[0], np.random.default_rng(0).normal(size=(300, 2))))
    for source, shape in (("friedman", (1000,)), (table, (300, 2))):
        net = trained(source, models=3)
        predictions = gn.data.predict(net, source)
        mean = np.mean([single.values for single in members(net, source)], axis=0)
        assert predictions.values.shape == shape
        np.testing.assert_allclose(predictions.values, mean, rtol=1e-5, atol=1e-5)
        y = gn.data.read(source).arrays()[1]
        scores = gn.data.evaluate(net, source)
        assert scores["rmse"] == pytest.approx(np.sqrt(((mean - y) ** 2).mean()), rel=1e-5)
        assert scores["mae"] == pytest.approx(np.abs(mean - y).mean(), rel=1e-5)
        r2 = 1.0 - ((mean - y) ** 2).mean(axis=0) / y.var(axis=0)
        assert scores["r2"] == pytest.approx(r2.mean(), abs=1e-5)
        assert scores["loss"] == pytest.approx((((mean - y) / y.std(axis=0)) ** 2).mean(), rel=1e-5)
        assert all(isinstance(value, float) for value in scores.values())


def test_a_population_predicts_the_mean_of_its_probabilities() -> None:
    net = trained("moons", models=3)
    predictions = gn.data.predict(net, "moons")
    mean = np.mean([single.probabilities for single in members(net, "moons")], axis=0)
    assert predictions.probabilities is not None and predictions.probabilities.shape == (1000, 2)
    np.testing.assert_allclose(predictions.probabilities, mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(predictions.values, mean.argmax(axis=1))
    y = gn.data.read("moons").arrays()[1]
    scores = gn.data.evaluate(net, "moons")
    assert scores == {
        "loss": pytest.approx(-np.log(mean[np.arange(1000), y]).mean(), rel=1e-5),
        "accuracy": pytest.approx((mean.argmax(axis=1) == y).mean()),
    }


def one_output(models: int | None) -> gn.Network:
    table = gn.data.read("moons")
    fitted = Preprocessing.fit(table)
    net = gn.Network([gn.Dense(16, "tanh"), gn.Dense(1)], fitted.width, device="cpu", models=models)
    net.preprocessing = fitted
    y = fitted.targets(table)[:, None]
    net.fit(fitted.inputs(table), y, loss=gn.BinaryCrossEntropy(), optimizer=gn.Adam(1e-2), epochs=20, progress=False)
    return net


@pytest.mark.parametrize("models", [None, 2])
def test_one_output_gives_the_probabilities_of_two_classes(models: int | None) -> None:
    net, y = one_output(models), gn.data.read("moons").arrays()[1]
    predictions = gn.data.predict(net, "moons")
    assert predictions.probabilities is not None and predictions.probabilities.shape == (1000, 2)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1.0)
    accuracy = (predictions.values == y).mean()
    assert accuracy > 0.85
    assert gn.data.evaluate(net, "moons") == {
        "loss": pytest.approx(-np.log(predictions.probabilities[np.arange(1000), y]).mean(), rel=1e-4),
        "accuracy": pytest.approx(accuracy),
    }


def test_decode_refuses_outputs_that_are_not_probabilities_or_of_wrong_shape() -> None:
    fitted = Preprocessing.fit("moons")
    with pytest.raises(
        DataError, match=r"^outputs: expected probabilities from 0 to 1, where .*, got -3 to 2; give what"
    ):
        fitted.decode([[2.0], [-3.0]])
    with pytest.raises(
        ShapeError, match=r"^outputs: expected one for each of 2 classes, got shape \(1, 3\); give what"
    ):
        fitted.decode([[0.1, 0.2, 0.7]])


def test_a_population_with_a_diverged_model_refuses_to_predict() -> None:
    net = trained("friedman", models=3)
    net.parameters["1.b"][1] = np.inf
    for use in (gn.data.predict, gn.data.evaluate):
        with pytest.raises(DataError, match=r"expected finite ones of every model, got others of model 1; leave these"):
            use(net, "friedman")


def test_preprocessing_is_saved_copied_and_pickled_with_its_network(moons: gn.Network, tmp_path: Path) -> None:
    moons.save(tmp_path / "a.gpunn")
    again = gn.load(tmp_path / "a.gpunn", device="cpu")
    for net in (again, copy.deepcopy(moons), pickle.loads(pickle.dumps(moons))):
        assert net.preprocessing == moons.preprocessing
        np.testing.assert_array_equal(gn.data.predict(net, "moons").values, gn.data.predict(moons, "moons").values)
    bare = gn.Network([gn.Dense(2)], device="cpu")
    bare.preprocessing = moons.preprocessing
    assert copy.copy(bare).preprocessing == moons.preprocessing
    plain = gn.Network([gn.Dense(2)], 2, device="cpu")
    plain.save(tmp_path / "b.gpunn")
    assert gn.load(tmp_path / "b.gpunn", device="cpu").preprocessing is None
    assert "preprocessing" not in archive.read(tmp_path / "b.gpunn")[1]["network"]


def test_checkpoints_of_a_training_hold_the_preprocessing(tmp_path: Path) -> None:
    net = trained("moons", checkpoint=tmp_path / "run.gpunn")
    assert gn.load(tmp_path / "run.gpunn", device="cpu").preprocessing == net.preprocessing


FORGED: dict[str, Any] = {
    "another value": lambda p: p["columns"][0],
    "a number": lambda p: 3,
    "no columns": lambda p: {**p, "columns": []},
    "columns of something": lambda p: {**p, "columns": [{"layer": "Dense", "units": 3}]},
    "a wrong number": lambda p: {**p, "columns": [{**p["columns"][0], "deviation": "x"}]},
    "an unknown column": lambda p: {**p, "columns": [{"column": "Eval", "name": "x"}]},
    "no target": lambda p: {**p, "target": None},
}


@pytest.mark.parametrize("how", FORGED)
def test_a_saved_network_with_forged_preprocessing_is_refused(moons: gn.Network, tmp_path: Path, how: str) -> None:
    moons.save(tmp_path / "a.gpunn")
    arrays, meta = archive.read(tmp_path / "a.gpunn")
    meta["network"]["preprocessing"] = FORGED[how](json.loads(json.dumps(meta["network"]["preprocessing"])))
    archive.write(tmp_path / "b.gpunn", arrays, meta)
    with pytest.raises(CheckpointError, match=r"^checkpoint '.*b\.gpunn'.*: expected .*, got .*; \S"):
        gn.load(tmp_path / "b.gpunn", device="cpu")


def test_predict_refuses_a_network_without_preprocessing() -> None:
    net = gn.Network([gn.Dense(2)], 2, device="cpu")
    message = r"^network\.preprocessing: expected the preprocessing that the network was trained with, got None; set it"
    for use in (gn.data.predict, gn.data.evaluate):
        with pytest.raises(ConfigurationError, match=message):
            use(net, "moons")


def test_a_network_that_was_not_trained_is_evaluated_by_the_loss_of_its_task() -> None:
    fitted = Preprocessing.fit("moons")
    net = gn.Network([gn.Dense(2)], 2, device="cpu")
    net.preprocessing = fitted
    assert 0.0 <= gn.data.evaluate(net, "moons")["accuracy"] <= 1.0
    found = gn.data.predict(net, "moons")
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0, rtol=1e-5)
