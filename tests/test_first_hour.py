"""What users of Keras, PyTorch or scikit-learn type in their first hour gives a right answer or a helpful error."""

import re

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError

rng = np.random.default_rng(0)
X = rng.normal(size=(600, 5)).astype("float32")
y = (X[:, 0] + X[:, 1] > 0).astype(int)
target = 3 * X[:, 0] - X[:, 1]
ADAM = gn.Adam(0.01)


@pytest.mark.parametrize(
    ("end", "units", "wrong", "right", "advice"),
    [
        ("sigmoid", 1, gn.BinaryCrossEntropy(), gn.NLL(), "end the network in sigmoid and use NLL()"),
        ("softmax", 2, gn.CrossEntropy(), gn.NLLM(), "leave that activation out, or use NLLM()"),
    ],
    ids=["sigmoid", "softmax"],
)
def test_a_loss_that_misreads_the_last_activation_is_refused_with_advice_that_works(
    end: str, units: int, wrong: gn.losses.Loss, right: gn.losses.Loss, advice: str
) -> None:
    net = gn.Network([gn.Dense(16, "relu"), gn.Dense(units, end)], device="cpu")
    with pytest.raises(ConfigurationError, match=rf"layers.1 Dense: .* {re.escape(advice)}"):
        net.fit(X, y, loss=wrong, optimizer=ADAM)
    net.fit(X, y, loss=right, optimizer=ADAM, epochs=20)
    assert net.evaluate(X, y, metrics=["accuracy"])["accuracy"] > 0.97
    without = gn.Network([gn.Dense(16, "relu"), gn.Dense(units)], device="cpu")
    without.fit(X, y, loss=wrong, optimizer=ADAM, epochs=20)
    np.testing.assert_allclose(without.predict_probability(X), net.predict_probability(X), atol=1e-3)


def test_a_target_of_shape_n_trains_a_regression() -> None:
    net = gn.Network([gn.Dense(16, "tanh"), gn.Dense(1)], device="cpu")
    net.fit(X, target, loss=gn.SquaredError(), optimizer=ADAM, epochs=60)
    assert net.evaluate(X, target, metrics=["r2"])["r2"] > 0.99


def test_classes_of_shape_n_1_train_a_classification() -> None:
    net = gn.Network([gn.Dense(2)], device="cpu")
    net.fit(X, y[:, None], loss=gn.CrossEntropy(), optimizer=gn.Adam(0.05), epochs=10)
    assert net.evaluate(X, y[:, None], metrics=["accuracy"])["accuracy"] > 0.97


def test_the_error_for_lr_names_rate() -> None:
    with pytest.raises(ConfigurationError, match=r"^Adam: expected rate=, got lr=; write rate=0.001$"):
        gn.Adam(lr=1e-3)  # type: ignore[call-arg]


def test_the_errors_for_arguments_of_keras_name_those_of_gpunn() -> None:
    net = gn.Network([gn.Dense(2)], device="cpu")
    with pytest.raises(ConfigurationError, match=r"validation=, got validation_split=; write validation=0.2$"):
        net.fit(X, y, loss=gn.CrossEntropy(), optimizer=ADAM, validation_split=0.2)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=r"write gn.Adam\(1e-3\)$"):
        net.fit(X, y, loss=gn.CrossEntropy(), optimizer="adam")  # type: ignore[arg-type]


def test_the_metric_auc_is_measured_by_evaluate_and_in_training() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    net = gn.Network([gn.Dense(1)], device="cpu")
    net.fit(X, y, loss=gn.BinaryCrossEntropy(), optimizer=ADAM, epochs=30, validation=0.2, metrics=["auc"])
    result = net.evaluate(X, y, metrics=["auc", sklearn.brier_score_loss])
    assert result["auc"] == pytest.approx(sklearn.roc_auc_score(y, net.predict_probability(X)))
    assert 0.0 < result["brier_score_loss"] < 0.2


def test_a_history_becomes_a_pandas_table() -> None:
    pandas = pytest.importorskip("pandas")
    net = gn.Network([gn.Dense(2)], device="cpu", models=3)
    history = net.fit(X, y, loss=gn.CrossEntropy(), optimizer=ADAM, epochs=4)
    frame = pandas.DataFrame(dict(history))
    assert frame["loss"][0].tolist() == history["loss"][:, 0].tolist()
