"""Estimators take arrays on a GPU without a copy, and their predictions are on the GPU too."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="scikit-learn is not installed (extra `sklearn`)")

from scipy.sparse import csr_matrix
from sklearn.datasets import load_digits

import gpunn as gn
from gpunn.errors import ArrayTypeError, DataError, ShapeError
from gpunn.estimators import MLPClassifier, MLPRegressor, inputs
from tests.conftest import backend_named

FEW = 11  # numbers that come to the host at once: classes, sums of an epoch


def digits() -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return X[:300] / 16.0, y[:300]


@pytest.fixture(params=["strict", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A CUDA backend, which the estimators find under its name."""
    ops = backend_named(request.param)
    found = inputs.get_backend
    monkeypatch.setattr(inputs, "get_backend", lambda name: found("cpu") if name == "cpu" else ops)
    return ops


@pytest.fixture
def fetched(device: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all arrays that are copied to the host."""
    sizes: list[int] = []
    plain = type(device).to_host

    def to_host(self: Any, array: Any) -> Any:
        sizes.append(array.size)
        return plain(self, array)

    monkeypatch.setattr(type(device), "to_host", to_host)
    return sizes


QUIET = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def alike(a: Any, b: Any, ops: Any, atol: float = 1e-10) -> None:
    for on_device, on_host in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_):
        assert ops.owns(on_device) and isinstance(on_host, np.ndarray)
        np.testing.assert_allclose(ops.to_host(on_device), on_host, rtol=0, atol=atol)
    np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-9)


@QUIET
@pytest.mark.parametrize("weighted", [False, True])
def test_a_classifier_trained_on_a_gpu_equals_that_on_the_cpu(device: Any, fetched: list[int], weighted: bool) -> None:
    X, y = digits()
    weight = np.linspace(0.5, 2.0, len(X)) if weighted else None
    on_device = [None if array is None else device.from_host(array) for array in (X, y, weight)]
    options = {"max_iter": 4, "random_state": 0, "class_weight": "balanced" if weighted else None}
    a = MLPClassifier(**options).fit(*on_device)
    predicted, probable, logarithm = (getattr(a, name)(on_device[0]) for name in
                                      ("predict", "predict_proba", "predict_log_proba"))  # fmt: skip
    assert max(fetched) < FEW
    b = MLPClassifier(device="cpu", **options).fit(X, y, weight)
    alike(a, b, device)
    np.testing.assert_array_equal(device.to_host(predicted), b.predict(X))
    np.testing.assert_allclose(device.to_host(probable), b.predict_proba(X), rtol=0, atol=1e-10)
    np.testing.assert_allclose(device.to_host(logarithm), b.predict_log_proba(X), rtol=0, atol=1e-8)
    np.testing.assert_array_equal(a.classes_, b.classes_)
    assert a.score(*on_device) == b.score(X, y, weight)
    assert isinstance(a.predict(X), np.ndarray)
    np.testing.assert_array_equal(a.predict(X), b.predict(X))


@QUIET
@pytest.mark.parametrize("kind", ["one", "several", "poisson"])
def test_a_regressor_trained_on_a_gpu_equals_that_on_the_cpu(device: Any, fetched: list[int], kind: str) -> None:
    X, y = digits()
    y = np.c_[y, np.sqrt(y)] if kind == "several" else y.astype(float)
    options = {"max_iter": 4, "random_state": 0, "loss": "poisson" if kind == "poisson" else "squared_error"}
    a = MLPRegressor(**options).fit(device.from_host(X), device.from_host(y))
    predicted = a.predict(device.from_host(X))
    assert max(fetched) < FEW
    b = MLPRegressor(device="cpu", **options).fit(X, y)
    alike(a, b, device)
    np.testing.assert_allclose(device.to_host(predicted), b.predict(X), rtol=0, atol=1e-9)
    assert a.score(device.from_host(X), device.from_host(y)) == pytest.approx(b.score(X, y))


@QUIET
def test_a_classifier_on_a_gpu_takes_two_classes_several_labels_and_words(device: Any) -> None:
    X, y = digits()
    on_device = device.from_host(X)
    for target in (y % 2, np.c_[y % 2, y > 4].astype(int)):
        a = MLPClassifier(max_iter=2, random_state=0).fit(on_device, device.from_host(target))
        b = MLPClassifier(max_iter=2, random_state=0, device="cpu").fit(X, target)
        for name in ("predict", "predict_proba", "predict_log_proba"):
            got = device.to_host(getattr(a, name)(on_device))
            np.testing.assert_allclose(got, getattr(b, name)(X), rtol=0, atol=1e-9)
    words = np.array(["even", "odd"])[y % 2]
    c = MLPClassifier(max_iter=2, random_state=0).fit(on_device, words)
    assert set(c.predict(on_device)) <= {"even", "odd"}  # words do not live on a GPU


@QUIET
@pytest.mark.parametrize("optimizer", [None, gn.AdamW(1e-3), gn.LBFGS()], ids=repr)
def test_early_stopping_and_any_optimizer_work_for_an_estimator_on_a_gpu(device: Any, optimizer: Any) -> None:
    X, y = digits()
    options = {"max_iter": 3, "random_state": 0, "early_stopping": True, "optimizer": optimizer}
    a = MLPClassifier(**options).fit(device.from_host(X), device.from_host(y))
    b = MLPClassifier(device="cpu", **options).fit(X, y)
    alike(a, b, device, 1e-6)
    assert a.validation_scores_ == b.validation_scores_


@QUIET
def test_an_estimator_with_lbfgs_on_a_gpu_equals_that_on_the_cpu(device: Any) -> None:
    X, y = digits()
    a = MLPClassifier(solver="lbfgs", max_iter=5, random_state=0).fit(device.from_host(X), device.from_host(y))
    b = MLPClassifier(solver="lbfgs", max_iter=5, random_state=0, device="cpu").fit(X, y)
    np.testing.assert_allclose(device.to_host(a.coefs_[0]), b.coefs_[0], rtol=0, atol=1e-8)


def test_partial_fit_on_a_gpu_goes_on_after_pickling(device: Any) -> None:
    X, y = digits()
    on_device = device.from_host(X), device.from_host(y)
    a = MLPClassifier(random_state=0, early_stopping=True).partial_fit(*on_device, classes=np.arange(10))
    state = a.__getstate__()
    assert not [name for name, array in state["_memory"].moments.items() if device.owns(array)]
    memory = pickle.loads(pickle.dumps(state["_memory"]))
    a.partial_fit(*on_device)
    assert memory.rules.losses == a.loss_curve_[:1]
    assert {name: array.shape for name, array in memory.moments.items()} == {
        name: array.shape for name, array in a._memory.moments.items()
    }


@QUIET
def test_an_estimator_on_a_gpu_takes_numpy_arrays(device: Any) -> None:
    """An estimator fitted on NumPy arrays has NumPy weights, wherever it is trained."""
    X, y = digits()
    a = MLPClassifier(device="cuda", max_iter=2, random_state=0).fit(X, y)
    b = MLPClassifier(device="cpu", max_iter=2, random_state=0).fit(X, y)
    for mine, theirs in zip(a.coefs_, b.coefs_):
        assert isinstance(mine, np.ndarray)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10)
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), rtol=0, atol=1e-10)


@QUIET
def test_an_estimator_on_a_gpu_takes_sparse_matrices(device: Any) -> None:
    X, y = digits()
    a = MLPClassifier(device="cuda", max_iter=2, random_state=0).fit(csr_matrix(X), y)
    b = MLPClassifier(device="cpu", max_iter=2, random_state=0).fit(csr_matrix(X), y)
    np.testing.assert_allclose(a.predict_proba(csr_matrix(X)), b.predict_proba(X), rtol=0, atol=1e-10)


def test_an_estimator_on_the_cpu_refuses_arrays_on_a_gpu(device: Any) -> None:
    X, y = digits()
    with pytest.raises(ArrayTypeError, match="on a GPU"):
        MLPClassifier(device="cpu").fit(device.from_host(X), y)


@QUIET
def test_an_estimator_checks_gpu_arrays_that_scikit_learn_cannot_check(device: Any) -> None:
    X, y = (device.from_host(array) for array in digits())
    with pytest.raises(ShapeError, match="a row for each example"):
        MLPClassifier().fit(X[0], y)
    with pytest.raises(ShapeError, match="one row for each of 300 examples"):
        MLPClassifier().fit(X, y[:9])
    with pytest.raises(DataError, match="Unknown label type: continuous"):
        MLPClassifier().fit(X, device.from_host(np.linspace(0.0, 1.0, 300)))
    with pytest.raises(DataError, match="not all zero"):
        MLPClassifier().fit(X, y, device.zeros((300,), np.float64))
    with pytest.raises(DataError, match="finite numbers"):
        MLPRegressor().fit(device.from_host(np.full((5, 2), np.nan)), device.from_host(np.ones(5)))
    a = MLPClassifier(max_iter=1).fit(X, y)
    with pytest.raises(ShapeError, match="the 64 features that MLPClassifier was fitted on"):
        a.predict(device.from_host(np.ones((3, 5))))


@QUIET
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_estimator_in_half_precision_comes_near_float32(device: Any, dtype: str) -> None:
    """Near what float32 gives; predictions and weights are float32 numbers."""
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    X, y = (device.from_host(array) for array in digits())
    options = {"max_iter": 4, "random_state": 0, "early_stopping": True, "hidden_layer_sizes": (32,)}
    half = MLPClassifier(dtype=dtype, **options).fit(X, y)
    single = MLPClassifier(dtype="float32", **options).fit(X, y)
    assert half.coefs_[0].dtype == half.predict_proba(X).dtype == np.float32
    np.testing.assert_allclose(half.loss_curve_, single.loss_curve_, rtol=0.02)
    assert half.loss_curve_ != single.loss_curve_
