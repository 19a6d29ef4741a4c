"""What estimators refuse before they train, with four parts in each error."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="scikit-learn is not installed (extra `sklearn`)")

from sklearn.exceptions import NotFittedError

import gpunn as gn
from gpunn.errors import ConfigurationError, DataError
from gpunn.estimators import MLPClassifier, MLPRegressor

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)), RNG.integers(0, 3, 40)

WRONG: dict[str, tuple[Any, str]] = {
    "hidden_layer_sizes": ((5, 0), "hidden_layer_sizes: expected a whole number >= 1, got 0"),
    "activation": ("sine", "activation: expected one of .*relu"),
    "solver": ("newton", "solver: expected one of 'adam', 'sgd', 'lbfgs'"),
    "alpha": (-1.0, "alpha: expected a number with 0 <= value"),
    "batch_size": (0, "batch_size: expected a whole number >= 1"),
    "learning_rate": ("cosine", "learning_rate: expected one of 'constant', 'invscaling', 'adaptive'"),
    "learning_rate_init": (0.0, "learning_rate_init: expected a number with 0 < value"),
    "power_t": (-0.5, "power_t"),
    "max_iter": (0, "max_iter: expected a whole number >= 1"),
    "shuffle": ("yes", "shuffle: expected one of True, False"),
    "tol": (np.nan, "tol"),
    "warm_start": (None, "warm_start"),
    "momentum": (1.1, "momentum: expected a number with 0 <= value <= 1"),
    "nesterovs_momentum": (2, "nesterovs_momentum"),
    "early_stopping": ("no", "early_stopping"),
    "validation_fraction": (1.0, "validation_fraction: expected a number with 0 <= value < 1"),
    "beta_1": (1.0, "beta_1"),
    "beta_2": (-0.1, "beta_2"),
    "epsilon": (0.0, "epsilon"),
    "n_iter_no_change": (0, "n_iter_no_change"),
    "max_fun": (0, "max_fun"),
    "device": ("gpu", "device: expected"),
    "dtype": ("int8", "Network dtype"),
    "dropout": (1.0, "dropout: expected a number with 0 <= value < 1"),
    "batch_norm": ("yes", "batch_norm"),
    "input_noise": (-0.1, "input_noise"),
    "optimizer": (gn.Adam, "optimizer: expected one of gpunn's optimizers .*; make one, with its parentheses"),
    "schedule": ("cosine", "schedule"),
    "callbacks": (gn.GradientFlow, "callbacks"),
    "loss": ("hinge", "loss: expected .*got 'hinge'"),
    "validation_data": (X, r"validation_data: expected \(X, y\) or \(X, y, weight\), got ndarray"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_an_estimator_refuses_a_bad_value_of_each_parameter(kind: Any, name: str) -> None:
    value, match = WRONG[name]
    e = kind(**{"device": "cpu", "max_iter": 1, name: value})
    with pytest.raises(ConfigurationError, match=match):
        e.fit(X, Y)


def test_a_bad_value_of_every_parameter_of_an_estimator_is_tested() -> None:
    unchecked = {"random_state", "verbose", "class_weight"}  # scikit-learn's, anything, and below
    assert set(MLPClassifier().get_params()) == set(WRONG) | unchecked


def test_an_estimator_refuses_activation_none() -> None:
    with pytest.raises(
        ConfigurationError, match='activation: expected a name or an activation, got None; use "identity"'
    ):
        MLPClassifier(activation=None).fit(X, Y)


def test_an_estimator_needs_one_dropout_or_one_for_each_layer() -> None:
    with pytest.raises(
        ConfigurationError, match="dropout: expected one rate, or one for each of 2 hidden layers, got 3"
    ):
        MLPClassifier((4, 4), dropout=[0.1, 0.2, 0.3]).fit(X, Y)


def classifier(**options: Any) -> Any:
    return MLPClassifier(**{"device": "cpu", "max_iter": 1, "optimizer": gn.SGD(0.1), **options})


CASES: dict[str, tuple[Any, type[Exception], str]] = {
    "weights of another length": (lambda e: e.fit(X, Y, np.ones(3)), DataError, r"sample_weight: .* got shape \(3,\)"),
    "negative weights": (lambda e: e.fit(X, Y, -np.ones(40)), DataError, "weights from -1 to -1"),
    "no classes": (lambda e: e.partial_fit(X, Y), ConfigurationError, "partial_fit classes: .*first call, got None"),
    "other classes later": (
        lambda e: e.partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, Y, classes=[0, 1]),
        ConfigurationError, r"partial_fit classes: expected the classes of the first call, \[0, 1, 2\]",
    ),
    "an unknown class": (
        lambda e: e.partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, Y + 1), DataError, r"y: expected the classes",
    ),
    "labels after classes": (
        lambda e: e.partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, np.c_[Y > 0, Y > 1, Y > 0]),
        DataError, "got another kind of target",
    ),
    "continuous": (lambda e: e.fit(X, X[:, 0]), ValueError, "Unknown label type: continuous"),
    "columns of classes": (lambda e: e.fit(X, np.c_[Y, Y]), DataError, "y: expected one class .*got several classes"),
    "too few to validate": (
        lambda e: e.set_params(early_stopping=True, validation_fraction=0.01).fit(X, Y), DataError,
        "validation_fraction: expected at least 2 examples to validate on, got 1 of 40",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", CASES)
def test_an_estimator_refuses_bad_data(case: str) -> None:
    fit, kind, match = CASES[case]
    with pytest.raises(kind, match=match):
        fit(classifier())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_warm_start_refuses_other_classes() -> None:
    e = classifier(warm_start=True).fit(X, Y)
    with pytest.raises(DataError, match=r"y: expected the classes of the first fit, \[0, 1, 2\], got \[0, 1\]"):
        e.fit(X, np.minimum(Y, 1))


@pytest.mark.parametrize(
    ("weight", "y", "match"),
    [
        ("even", Y, "class_weight: expected a dict of classes and weights, or \"balanced\", got 'even'"),
        ({7: 1.0}, Y, r"class_weight: expected some of the classes \[0, 1, 2\], got 7"),
        ({1: -1.0}, Y, r"class_weight\[1\]: expected a number with 0 <= value"),
        ("balanced", np.c_[Y > 0, Y > 1], "got several labels for an example; use sample_weight"),
    ],
)
def test_a_classifier_refuses_a_bad_class_weight(weight: Any, y: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        classifier(class_weight=weight).fit(X, y)


def test_partial_fit_refuses_balanced_class_weights() -> None:
    with pytest.raises(
        ConfigurationError, match="class_weight: expected a dict of classes and weights, got 'balanced'"
    ):
        classifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])


@pytest.mark.parametrize(
    ("y", "loss", "wanted"),
    [
        (Y, gn.BinaryCrossEntropy(), "CrossEntropy"),
        (np.c_[Y > 0, Y > 1], gn.CrossEntropy(), "BinaryCrossEntropy"),
    ],
)
def test_a_classifier_refuses_a_loss_that_does_not_fit_its_target(y: Any, loss: Any, wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"loss: expected gn.{wanted}\(\) for this target"):
        classifier(loss=loss).fit(X, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_regressor_refuses_bad_targets_and_losses() -> None:
    with pytest.raises(DataError, match="y: expected counts >= 0 for loss='poisson', got -1"):
        MLPRegressor("poisson", device="cpu").fit(X, Y - 1.0)
    e = MLPRegressor(device="cpu", max_iter=1).partial_fit(X, Y)
    with pytest.raises(DataError, match="y: expected 1 outputs, as in the first fit, got 2"):
        e.partial_fit(X, np.c_[Y, Y])
    with pytest.raises(ConfigurationError, match="loss: expected one of squared_error"):
        MLPRegressor(gn.CrossEntropy()).fit(X, Y)


def test_an_estimator_that_is_not_fitted_says_so() -> None:
    with pytest.raises(NotFittedError):
        MLPClassifier().predict(X)
    with pytest.raises(AttributeError, match="not fitted"):
        _ = MLPClassifier().coefs_
    with pytest.raises(AttributeError, match="partial_fit"):
        MLPClassifier(solver="lbfgs").partial_fit(X, Y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator_refuses_validation_data_of_other_columns_or_classes() -> None:
    with pytest.raises(ValueError, match="features"):
        classifier(validation_data=(X[:, :2], Y)).fit(X, Y)
    with pytest.raises(DataError, match="y: expected the classes"):
        classifier(validation_data=(X, Y + 5)).fit(X, Y)


def test_ctrl_c_ends_the_fit_of_an_estimator_with_what_it_has_learnt() -> None:
    def interrupt(epoch: int, record: Any) -> None:
        if epoch == 3:
            signal.raise_signal(signal.SIGINT)

    e = classifier(max_iter=50, callbacks=interrupt)
    with pytest.warns(UserWarning, match="interrupted: the estimator has what it learnt so far"):
        e.fit(X, Y)
    assert e.n_iter_ == len(e.loss_curve_) == 3 and e.predict(X).shape == (40,)


def test_an_estimator_with_batch_norm_refuses_batches_of_one_row() -> None:
    with pytest.raises(DataError, match="at least 2 examples"):
        classifier(batch_norm=True, batch_size=1).fit(X, Y)


def test_wrong_shapes_of_numpy_arrays_are_refused_by_scikit_learn() -> None:
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        classifier().fit(X, Y[:5])
