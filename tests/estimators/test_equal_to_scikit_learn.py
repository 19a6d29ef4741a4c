"""The same random_state gives the same estimator as scikit-learn, up to rounding."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="scikit-learn is not installed (extra `sklearn`)")

from scipy import sparse
from sklearn import neural_network
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

from gpunn.estimators import MLPClassifier, MLPRegressor

TWINS = {MLPClassifier: neural_network.MLPClassifier, MLPRegressor: neural_network.MLPRegressor}
TOLD = ("loss_", "best_loss_", "best_validation_score_", "loss_curve_", "validation_scores_")
EQUAL = ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_")


def digits() -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return X[:450] / 16.0, y[:450]


def cancer() -> tuple[Any, Any]:
    X, y = load_breast_cancer(return_X_y=True)
    return scale(X)[:330], np.array(["benign", "malign"])[y[:330]]


def diabetes() -> tuple[Any, Any]:
    X, y = load_diabetes(return_X_y=True)
    return X, y / 100.0


def labels() -> tuple[Any, Any]:
    X, y = digits()
    return X, np.c_[y % 2, y > 4, y % 3 == 0].astype(int)


def outputs() -> tuple[Any, Any]:
    X, y = diabetes()
    return X, np.c_[y, np.sqrt(y), -y]


def pair(ours: Any, **options: Any) -> tuple[Any, Any]:
    return ours(random_state=3, device="cpu", **options), TWINS[ours](random_state=3, **options)


def compare(a: Any, b: Any, X: Any, atol: float = 1e-9) -> None:
    """Compare weights, all public results, and predictions."""
    for mine, theirs in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)
    for name in EQUAL:
        assert getattr(a, name) == getattr(b, name), name
    for name in TOLD:
        assert hasattr(a, name) == hasattr(b, name), name
        mine, theirs = getattr(a, name, None), getattr(b, name, None)
        assert (mine is None) == (theirs is None), name
        if theirs is not None:
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=atol, err_msg=name)
    assert np.shape(a.predict(X)) == np.shape(b.predict(X)) and a.predict(X).dtype == b.predict(X).dtype
    if hasattr(b, "predict_proba"):
        np.testing.assert_array_equal(a.classes_, b.classes_)
        np.testing.assert_array_equal(a.predict(X), b.predict(X))
        np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), rtol=0, atol=atol)
    else:
        np.testing.assert_allclose(a.predict(X), b.predict(X), rtol=0, atol=atol)


def fitted(ours: Any, data: Any, fit: Any = None, **options: Any) -> tuple[Any, Any]:
    """Our estimator and scikit-learn's after the same calls, which must give the same convergence warnings."""
    twins = pair(ours, **options)
    said = []
    for twin in twins:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            twin.fit(*data) if fit is None else fit(twin)
        said.append([w.category for w in caught if issubclass(w.category, (ConvergenceWarning, UserWarning))])
    assert said[0] == said[1]
    return twins


SGD = {"solver": "sgd", "learning_rate_init": 0.05}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {"max_iter": 12},
    "converges": {"tol": 0.05, "n_iter_no_change": 3},
    "never stops": {"n_iter_no_change": np.inf, "max_iter": 12, "tol": 10.0},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 2, "validation_fraction": 0.2, "max_iter": 40},
    "two layers of tanh": {"hidden_layer_sizes": (20, 10), "activation": "tanh", "max_iter": 8, "alpha": 1.0},
    "logistic": {"hidden_layer_sizes": 16, "activation": "logistic", "max_iter": 8},
    "linear": {"hidden_layer_sizes": (), "activation": "identity", "max_iter": 8},
    "one example a batch left over": {"batch_size": 7, "max_iter": 4, "alpha": 0.1},
    "all in one batch": {"batch_size": 10_000, "max_iter": 5},
    "not shuffled": {"shuffle": False, "max_iter": 6, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-5},
    "sgd": {**SGD, "max_iter": 10},
    "sgd without momentum": {**SGD, "momentum": 0.0, "max_iter": 10},
    "sgd without Nesterov": {**SGD, "nesterovs_momentum": False, "max_iter": 10},
    "adaptive": {**SGD, "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1},
    "inverse scaling": {**SGD, "learning_rate": "invscaling", "power_t": 0.3, "max_iter": 15},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("data", [digits, cancer, labels])
def test_a_classifier_equals_the_one_of_scikit_learn(data: Any, settings: dict[str, Any]) -> None:
    X, y = data()
    compare(*fitted(MLPClassifier, (X, y), **settings), X)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("data", [diabetes, outputs])
def test_a_regressor_equals_the_one_of_scikit_learn(data: Any, settings: dict[str, Any]) -> None:
    X, y = data()
    compare(*fitted(MLPRegressor, (X, y), **settings), X)


def test_an_estimator_converges_in_the_same_epoch_as_that_of_scikit_learn() -> None:
    X, y = load_digits(return_X_y=True)
    a, b = fitted(MLPClassifier, (X / 16.0, y), learning_rate_init=0.01, early_stopping=True)
    assert 10 < a.n_iter_ < 100
    compare(a, b, X)


@pytest.mark.parametrize("settings", [{"max_iter": 15}, {"max_fun": 9}, {"tol": 0.2}], ids=str)
def test_estimators_with_lbfgs_equal_those_of_scikit_learn(settings: dict[str, Any]) -> None:
    for ours, data in ((MLPClassifier, cancer), (MLPRegressor, diabetes)):
        X, y = data()
        a, b = fitted(ours, (X, y), solver="lbfgs", hidden_layer_sizes=(8,), **settings)
        compare(a, b, X, 1e-7)
        assert not hasattr(a, "loss_curve_") and not hasattr(a, "partial_fit")


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("ours", TWINS)
def test_estimators_with_sample_weights_equal_those_of_scikit_learn(ours: Any, early_stopping: bool) -> None:
    """The loss of a batch is divided by its weights, not by its number of examples."""
    X, y = diabetes() if ours is MLPRegressor else cancer()
    weight = np.random.default_rng(0).integers(1, 5, len(X)) / 2.0
    options = {"loss": "poisson"} if ours is MLPRegressor else {}
    a, b = fitted(
        ours, (), lambda e: e.fit(X, y, weight), max_iter=10, batch_size=50, alpha=2.0, early_stopping=early_stopping,
        **options,
    )  # fmt: skip
    compare(a, b, X)
    assert a.score(X, y, weight) == pytest.approx(b.score(X, y, weight), abs=1e-12)


def test_a_classifier_with_lbfgs_and_sample_weights_equals_that_of_scikit_learn() -> None:
    X, y = cancer()
    weight = np.random.default_rng(0).integers(0, 5, len(X))
    a, b = fitted(MLPClassifier, (), lambda e: e.fit(X, y, weight), solver="lbfgs", max_iter=10, alpha=1.0)
    compare(a, b, X, 1e-7)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_of_a_classifier_equals_that_of_scikit_learn(solver: str) -> None:
    X, y = digits()

    def calls(e: Any) -> None:
        e.partial_fit(X[:150], y[:150], classes=range(10))
        e.partial_fit(X[150:], y[150:])
        e.partial_fit(X[:77], y[:77], np.linspace(0.5, 1.0, 77))

    options = {"solver": solver, "learning_rate_init": 0.003, "learning_rate": "invscaling", "batch_size": 64}
    a, b = pair(MLPClassifier, **options)
    calls(a)
    calls(b)
    compare(a, b, X)


def test_partial_fit_of_a_regressor_and_of_several_labels_equals_that_of_scikit_learn() -> None:
    for ours, data in ((MLPRegressor, diabetes), (MLPClassifier, labels)):
        X, y = data()
        first = {} if ours is MLPRegressor else {"classes": [0, 1, 2]}
        a, b = pair(ours, solver="sgd", learning_rate="adaptive", tol=1.0, n_iter_no_change=1)
        for e in (a, b):
            e.partial_fit(X, y, **first)
            for _ in range(7):
                e.partial_fit(X, y)
        compare(a, b, X)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_warm_starts_equal_those_of_scikit_learn(solver: str) -> None:
    X, y = cancer()

    def calls(e: Any) -> None:
        for _ in range(3):
            e.fit(X, y)

    options = {"solver": solver, "learning_rate": "invscaling", "learning_rate_init": 0.01, "tol": 1e-3}
    a, b = fitted(MLPClassifier, (), calls, warm_start=True, max_iter=6, **options)
    compare(a, b, X, 1e-7)
    assert solver == "lbfgs" or len(a.loss_curve_) > a.n_iter_


def test_a_warm_start_with_early_stopping_keeps_the_best_weights_of_all_calls() -> None:
    """scikit-learn's second fit writes over the best weights of the first one."""
    X, y = cancer()
    a = MLPClassifier(random_state=0, warm_start=True, early_stopping=True, device="cpu", n_iter_no_change=3)
    a.fit(X, y)
    best, before = a.best_validation_score_, a.network_.vector.copy()
    a.set_params(learning_rate_init=10.0).fit(X, y)
    assert a.best_validation_score_ == best
    np.testing.assert_array_equal(a.network_.vector, before)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array])
def test_estimators_on_sparse_inputs_equal_those_of_scikit_learn(kind: Any, solver: str) -> None:
    X, y = digits()
    X = kind(np.where(X > 0.5, X, 0.0))
    a, b = fitted(MLPClassifier, (X, y), solver=solver, max_iter=6)
    compare(a, b, X, 1e-7)
    c, d = fitted(MLPClassifier, (X, y), early_stopping=True, max_iter=6)
    compare(c, d, X)


def test_a_classifier_takes_sparse_labels_and_predicts_dense_ones() -> None:
    """The predictions of scikit-learn would be sparse too."""
    X, y = labels()
    a, b = fitted(MLPClassifier, (X, sparse.csr_matrix(y)), max_iter=4)
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(a.predict(X), b.predict(X).toarray())


def test_an_estimator_on_float32_data_computes_in_float32() -> None:
    X, y = digits()
    a, b = fitted(MLPClassifier, (X.astype(np.float32), y), max_iter=3)
    assert a.coefs_[0].dtype == b.coefs_[0].dtype == np.float32
    assert a.predict_proba(X).dtype == np.float32
    np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], atol=1e-4)


def test_random_state_of_an_estimator_may_be_a_generator_or_none() -> None:
    X, y = cancer()
    a, b = (c(random_state=np.random.RandomState(5), max_iter=3) for c in (MLPClassifier, neural_network.MLPClassifier))
    a.set_params(device="cpu")
    with pytest.warns(ConvergenceWarning):
        a.fit(X, y)
    with pytest.warns(ConvergenceWarning):
        b.fit(X, y)
    compare(a, b, X)
    with pytest.warns(ConvergenceWarning):
        one, other = (MLPClassifier(max_iter=1, device="cpu").fit(X, y) for _ in range(2))
    assert np.abs(one.coefs_[0] - other.coefs_[0]).max() > 0.01


def test_parameters_and_defaults_of_estimators_are_those_of_scikit_learn() -> None:
    for ours, theirs in TWINS.items():
        mine, wanted = (inspect.signature(kind).parameters for kind in (ours, theirs))
        assert {name: (mine[name].kind, mine[name].default) for name in wanted} == {
            name: (parameter.kind, parameter.default) for name, parameter in wanted.items()
        }
        positional = [n for n, p in mine.items() if p.kind == p.POSITIONAL_OR_KEYWORD]
        assert positional == [n for n, p in wanted.items() if p.kind == p.POSITIONAL_OR_KEYWORD]


def test_log_probabilities_equal_those_of_scikit_learn_but_are_finite() -> None:
    """They are finite where the probability of scikit-learn is 0."""
    for data in (digits, cancer, labels):
        X, y = data()
        a, b = fitted(MLPClassifier, (X, y), max_iter=4)
        np.testing.assert_allclose(a.predict_log_proba(X), b.predict_log_proba(X), rtol=1e-6)
        with np.errstate(divide="ignore"):
            assert np.isneginf(b.predict_log_proba(1e6 * X)).any()
        assert np.isfinite(a.predict_log_proba(1e6 * X)).all()


def test_the_weights_of_an_estimator_can_be_written_to() -> None:
    X, y = cancer()
    a, _ = fitted(MLPClassifier, (X, y), max_iter=2)
    a.coefs_[-1][...] = 0.0
    a.intercepts_[-1][...] = 0.0
    np.testing.assert_array_equal(a.predict_proba(X), np.full((len(X), 2), 0.5))


def test_comparing_estimators_with_scikit_learn_notices_a_difference() -> None:
    X, y = digits()
    a, _ = fitted(MLPClassifier, (X, y), max_iter=5)
    for change in ({"alpha": 1e-3}, {"shuffle": False}, {"epsilon": 1e-6}, {"batch_size": 199}):
        _, b = fitted(MLPClassifier, (X, y), max_iter=5, **change)
        with pytest.raises(AssertionError):
            compare(a, b, X)
