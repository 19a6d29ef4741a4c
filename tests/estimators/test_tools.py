"""Estimators in scikit-learn's tools, with tables, pickles and other processes."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="scikit-learn is not installed (extra `sklearn`)")

from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from threadpoolctl import threadpool_info, threadpool_limits

import gpunn as gn
from gpunn.estimators import MLPClassifier, MLPRegressor
from gpunn.training.full_batch import Objective

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_wine(return_X_y=True)


def classifier(**options: Any) -> Any:
    return MLPClassifier(**{"max_iter": 40, "random_state": 0, "device": "cpu", "learning_rate_init": 0.01, **options})


def test_scikit_learn_knows_classifier_and_regressor_apart() -> None:
    assert is_classifier(MLPClassifier()) and is_regressor(MLPRegressor())


def test_an_estimator_works_in_a_pipeline_and_a_grid_search() -> None:
    pipeline = make_pipeline(StandardScaler(), classifier())
    grid = {
        "mlpclassifier__dropout": [0.0, 0.2],
        "mlpclassifier__optimizer": [None, gn.AdamW(0.01)],
        "mlpclassifier__activation": ["relu", gn.SiLU()],
    }
    search = GridSearchCV(pipeline, grid, cv=3).fit(X, Y)
    assert search.best_score_ > 0.95 and len(search.cv_results_["params"]) == 8
    assert search.predict(X).shape == Y.shape


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_parallel_cross_validation_gives_the_scores_of_a_single_process(backend: str) -> None:
    """Other processes or threads give the same scores."""
    folds = {"cv": 3, "scoring": "accuracy"}
    here = cross_val_score(classifier(), scale(X), Y, **folds)
    with joblib.parallel_backend(backend, n_jobs=2):
        there = cross_val_score(classifier(), scale(X), Y, **folds)
    np.testing.assert_array_equal(here, there)
    assert here.mean() > 0.95


def test_a_cloned_estimator_keeps_parameters_and_nothing_learnt() -> None:
    e = classifier(optimizer=gn.AdamW(0.01), activation=gn.SiLU(), callbacks=[gn.GradientFlow()]).fit(scale(X), Y)
    twin = clone(e)
    assert not hasattr(twin, "coefs_") and not hasattr(twin, "network_")
    assert twin.optimizer == gn.AdamW(0.01) and twin.activation == gn.SiLU()


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_copied_estimator_learns_on_as_the_original_does(tmp_path: Path, early_stopping: bool) -> None:
    """Moments, step count, rate and stopping rules are copied too."""
    e = classifier(solver="sgd", learning_rate="invscaling", early_stopping=early_stopping, dropout=0.3)
    e.partial_fit(scale(X), Y, classes=[0, 1, 2]).partial_fit(scale(X), Y)
    joblib.dump(e, tmp_path / "estimator.joblib")
    copies = [pickle.loads(pickle.dumps(e)), copy.deepcopy(e), joblib.load(tmp_path / "estimator.joblib")]
    e.partial_fit(scale(X), Y)
    for twin in copies:
        assert len(twin.loss_curve_) == 2
        twin.partial_fit(scale(X), Y)
        assert twin.loss_curve_ == e.loss_curve_
        np.testing.assert_array_equal(twin.network_.vector, e.network_.vector)
        np.testing.assert_array_equal(twin.predict_proba(scale(X)), e.predict_proba(scale(X)))


def test_an_estimator_with_another_optimizer_starts_with_new_moments() -> None:
    a, b = (classifier().partial_fit(scale(X), Y, classes=[0, 1, 2]) for _ in range(2))
    for e in (a.set_params(optimizer=gn.Adagrad(0.01)), b.set_params(solver="sgd")):
        before = e.network_.vector.copy()
        e.partial_fit(scale(X), Y)
        assert np.isfinite(e.network_.vector).all() and np.abs(e.network_.vector - before).max() > 1e-4


def test_an_estimator_takes_pandas_tables_and_knows_their_columns() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = load_wine(as_frame=True)
    frame, target = table.data, table.target.map({0: "red", 1: "white", 2: "rosé"})
    e = classifier().fit(frame, target, pandas.Series(np.ones(len(frame))))
    assert e.feature_names_in_.tolist() == frame.columns.tolist()
    assert set(e.predict(frame)) <= {"red", "white", "rosé"}
    with pytest.warns(UserWarning, match="feature names"):
        e.predict(frame.to_numpy())
    with pytest.raises(ValueError, match="feature names"):
        e.predict(frame[frame.columns[::-1]])
    regressor = MLPRegressor(max_iter=2, device="cpu").fit(*load_diabetes(return_X_y=True, as_frame=True))
    assert regressor.n_features_in_ == 10 and "feature_names_in_" in vars(regressor)


def test_an_estimator_works_in_a_multi_output_classifier() -> None:
    e = MultiOutputClassifier(classifier(max_iter=5)).fit(scale(X), np.c_[Y, Y > 0])
    assert e.predict(scale(X)).shape == (len(X), 2)


def test_an_estimator_prints_its_parameters_as_they_were_given() -> None:
    text = repr(MLPClassifier(dropout=0.2, optimizer=gn.AdamW(0.01)))
    assert text == "MLPClassifier(dropout=0.2, optimizer=AdamW(0.01))"


def test_the_network_of_an_estimator_is_saved_loaded_and_evaluated(tmp_path: Path) -> None:
    A, b = load_breast_cancer(return_X_y=True)
    e = classifier(batch_norm=True, dropout=0.2, max_iter=3).fit(scale(A), b)
    e.network_.save(tmp_path / "cancer.gpunn")
    loaded = gn.load(tmp_path / "cancer.gpunn", device="cpu")
    np.testing.assert_allclose(
        loaded.predict_probability(scale(A))[:, 0], e.predict_proba(scale(A))[:, 1], rtol=0, atol=1e-12
    )
    r = MLPRegressor(max_iter=2, device="cpu").fit(*load_diabetes(return_X_y=True))
    r.network_.save(tmp_path / "diabetes.gpunn")
    assert gn.load(tmp_path / "diabetes.gpunn", device="cpu").loss == gn.SquaredError()


@pytest.mark.parametrize("lacking", ["sklearn.base", "sklearn.utils._array_api"])
def test_importing_estimators_without_scikit_learn_names_the_extra(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("gpunn.estimators")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, lacking, None)
    message = r'scikit-learn 1.9 or newer, got .*; run: python -m pip install "gpunn\[sklearn\]"$'
    with pytest.raises(gn.errors.MissingExtraError, match=message):
        importlib.import_module("gpunn.estimators")


def test_importing_gpunn_does_not_import_scikit_learn() -> None:
    program = "import sys, gpunn; print([m for m in ('sklearn', 'scipy', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_estimator_with_lbfgs_uses_one_thread_for_a_small_set(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []
    value = Objective.value

    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    def watched(objective: Objective) -> float:
        seen.append(threads())
        return value(objective)

    monkeypatch.setattr(Objective, "value", watched)
    with threadpool_limits(2, user_api="blas"):
        if threads() != {2}:
            pytest.skip("threadpoolctl knows no BLAS library here that takes two threads")
        MLPClassifier((4,), solver="lbfgs", max_iter=3, device="cpu").fit(X, Y)
        assert threads() == {2}
    assert len(seen) > 3 and all(count == {1} for count in seen)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_an_estimator_uses_fewer_threads_if_other_processes_take_cores(
    solver: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = count()
    monkeypatch.setattr("gpunn.training.threads.SMALL", 0.0)
    monkeypatch.setattr("gpunn.training.threads.blas_threads", lambda: 2)
    monkeypatch.setattr("gpunn.training.watch.PERIOD", 0.0)
    monkeypatch.setattr("gpunn.training.watch.COST", 0.0)
    monkeypatch.setattr("gpunn.cores.waits", lambda: {"1": 1000.0 * next(waiting)})
    MLPClassifier((4,), solver=solver, max_iter=5, device="cpu").fit(X, Y)
    assert "training goes on with 1 of 2 threads" in caplog.text
