"""An estimator's network, saved by itself, keeps the names of features and classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="scikit-learn is not installed (extra `sklearn`)")

import gpunn as gn
from gpunn.errors import DataError
from gpunn.estimators import MLPClassifier, MLPRegressor
from tests.cli.stage import call

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X = np.random.default_rng(0).normal(size=(120, 3))
QUICK: dict[str, Any] = {"max_iter": 20, "random_state": 0, "device": "cpu", "learning_rate_init": 0.02}


def saved(estimator: Any, path: Path) -> gn.Network:
    estimator.network_.save(path)
    return gn.load(path, device="cpu")


@pytest.mark.parametrize(
    "labels", [["no", "yes"], ["a", "b", "c"], [3, 7], [False, True], [0.0, 1.0], np.array(["u", "v"], object)]
)
def test_a_saved_classifier_predicts_with_its_labels(tmp_path: Path, labels: Any) -> None:
    y = np.asarray(labels)[np.digitize(X[:, 0], [-0.4, 0.4][: len(labels) - 1])]
    model = MLPClassifier((8,), **QUICK).fit(X, y)
    predictions = gn.data.predict(saved(model, tmp_path / "a.gpunn"), X)
    assert predictions.values.tolist() == model.predict(X).tolist() and predictions.classes == tuple(labels)
    assert predictions.probabilities is not None
    np.testing.assert_allclose(predictions.probabilities, model.predict_proba(X), rtol=1e-5, atol=1e-7)


def test_decode_and_the_command_give_the_labels_of_a_saved_classifier(tmp_path: Path) -> None:
    y = np.where(X[:, 0] > 0, "up", "down")
    model = MLPClassifier((8,), **QUICK).fit(X, y)
    net = saved(model, tmp_path / "a.gpunn")
    assert net.preprocessing is not None
    decoded = net.preprocessing.decode(net.predict_probability(X))
    np.testing.assert_array_equal(decoded, model.predict(X))
    np.savez(tmp_path / "rows.npz", x=X)
    told = call("predict", tmp_path / "a.gpunn", tmp_path / "rows.npz", "--device", "cpu").stdout.split()
    assert told == ["y", *model.predict(X)]


def test_a_saved_regressor_predicts_as_the_estimator_does(tmp_path: Path) -> None:
    for y in (X[:, 0], X[:, :2]):
        model = MLPRegressor(hidden_layer_sizes=(8,), **QUICK).fit(X, y)
        predictions = gn.data.predict(saved(model, tmp_path / "a.gpunn"), X)
        np.testing.assert_allclose(predictions.values, model.predict(X), rtol=1e-5, atol=1e-7)
    assert predictions.names == ("y0", "y1")


def test_a_saved_estimator_knows_the_names_of_its_features(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(X, columns=["a", "y", "c"])
    y = np.where(X[:, 0] > 0, "up", "down")
    model = MLPClassifier((8,), **QUICK).fit(table, y)
    np.testing.assert_array_equal(model.predict(table), MLPClassifier((8,), **QUICK).fit(X, y).predict(X))
    net = saved(model, tmp_path / "a.gpunn")
    other = table[["c", "a", "y"]].assign(more="x")
    assert net.columns == ("a", "y", "c")
    np.testing.assert_array_equal(net.predict(other), net.predict(X))
    predictions = gn.data.predict(net, other)
    assert predictions.names == ("class",)  # a feature is called y
    np.testing.assert_array_equal(predictions.values, model.predict(table))
    with pytest.raises(DataError, match=r"^column 'a': expected a number in every row, got none in row 2; fill it"):
        gn.data.predict(net, {"a": [1.0, None], "y": [1.0, 2.0], "c": [1.0, 2.0]})
    assert "a      numeric      as it is; no gaps" in call("inspect", tmp_path / "a.gpunn").stdout


def test_estimators_whose_targets_tables_cannot_express_save_no_preprocessing() -> None:
    several = MLPClassifier((4,), **QUICK).fit(X, (X[:, :2] > 0).astype(int))
    alone = MLPClassifier((4,), **QUICK).fit(X, np.zeros(120, int))
    partly = MLPClassifier((4,), **QUICK, loss=gn.CrossEntropy()).partial_fit(X, X[:, 0] > 0, classes=[False, True])
    counts = MLPRegressor(hidden_layer_sizes=(4,), loss="poisson", **QUICK).fit(X, np.abs(X[:, 0]).round())
    for estimator in (several, alone, counts):
        assert estimator.network_.preprocessing is None
    assert partly.network_.preprocessing.classes == (False, True)
