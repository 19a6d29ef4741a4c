"""Metrics compared with their definitions, and their names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import metrics
from gpunn.errors import ConfigurationError
from gpunn.metrics import Metric
from tests.conftest import backend_named
from tests.faults import contents, exactly

rng = np.random.default_rng(0)
A = rng.normal(size=(9, 3))
Y = A + 0.3 * rng.normal(size=(9, 3))
LABELS = rng.integers(0, 3, 9)
SQUARED, CROSS, BINARY = gn.SquaredError(), gn.CrossEntropy(), gn.BinaryCrossEntropy()


def r_squared(A: Any, Y: Any) -> Any:
    return 1 - np.square(A - Y).sum() / np.square(Y - Y.mean(axis=0)).sum()


def score(
    backend: Any, A: Any, y: Any, names: Sequence[str], loss: Any, size: int | None = None, **options: Any
) -> Any:
    """Scores of a network whose outputs are A."""
    network = gn.Network([gn.Identity()], np.shape(A)[-1], device=backend, dtype="float64", **options)
    return network.evaluate(A, y, loss=loss, metrics=names, batch_size=size)


@pytest.mark.parametrize("size", [None, 1, 4])
@pytest.mark.parametrize(
    ("name", "loss", "y", "expected"),
    [
        ("accuracy", CROSS, LABELS, (A.argmax(axis=1) == LABELS).mean()),
        ("accuracy", CROSS, np.eye(3)[LABELS], (A.argmax(axis=1) == LABELS).mean()),
        ("accuracy", SQUARED, np.eye(3)[LABELS], (A.argmax(axis=1) == LABELS).mean()),
        ("mse", SQUARED, Y, np.square(A - Y).mean()),
        ("mae", SQUARED, Y, np.abs(A - Y).mean()),
        ("r2", SQUARED, Y, r_squared(A, Y)),
        ("mse", gn.AbsoluteError(), Y, np.square(A - Y).mean()),
    ],
    ids=["classes", "one-hot", "one-hot numbers", "mse", "mae", "r2", "mse of another loss"],
)
def test_a_metric_agrees_with_its_definition(
    backend: Any, name: str, loss: Any, y: Any, expected: float, size: int | None
) -> None:
    np.testing.assert_allclose(score(backend, A, y, [name], loss, size)[name], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "edge"), [(BINARY, 0.0), (gn.NLL(), 0.5), (SQUARED, 0.5)], ids=["logits", "probabilities", "numbers"]
)
def test_accuracy_of_one_output_decides_by_its_threshold(backend: Any, loss: Any, edge: float) -> None:
    outputs = np.array([[edge - 0.1], [edge + 0.1], [edge + 0.2], [edge - 0.2]])
    y = np.array([[0.0], [1.0], [0.0], [0.0]])
    assert score(backend, outputs, y, ["accuracy"], loss)["accuracy"] == 0.75


def test_accuracy_after_a_sigmoid_fused_with_the_loss_uses_probabilities(backend: Any) -> None:
    """The fused network computes logits and returns probabilities; accuracy is measured on the probabilities."""
    network = gn.Network([gn.Identity(), gn.Sigmoid()], 1, device=backend, dtype="float64")
    X, y = np.array([[-1.0], [0.2], [0.3], [2.0]]), np.array([[0.0], [1.0], [0.0], [1.0]])
    assert network.compile(4, gn.NLL()).fused is not None
    result = network.evaluate(X, y, loss=gn.NLL(), metrics=["accuracy", "mse"])
    assert result["accuracy"] == 0.75
    np.testing.assert_allclose(result["mse"], np.square(1 / (1 + np.exp(-X)) - y).mean(), rtol=1e-12)


@pytest.mark.parametrize("size", [None, 4])
def test_every_model_of_a_population_has_metrics_of_its_own(backend: Any, size: int | None) -> None:
    outputs, own = np.stack([A, A[::-1]]), np.stack([Y, 5 * Y])
    for y in (Y, own):
        scores = score(backend, outputs, y, ["mse", "mae", "r2"], SQUARED, size, models=2)
        for k in range(2):
            target = y if y is Y else y[k]
            np.testing.assert_allclose(scores["mse"][k], np.square(outputs[k] - target).mean(), rtol=1e-12)
            np.testing.assert_allclose(scores["mae"][k], np.abs(outputs[k] - target).mean(), rtol=1e-12)
            np.testing.assert_allclose(scores["r2"][k], r_squared(outputs[k], target), rtol=1e-12)


def test_metrics_of_outputs_of_several_axes_are_right(backend: Any) -> None:
    for models in (None, 2):
        network = gn.Network([gn.Identity(), gn.Reshape((3, 2))], 6, device=backend, dtype="float64", models=models)
        X, y = rng.normal(size=(5, 6)), rng.normal(size=(5, 3, 2))
        result = network.evaluate(X, y, loss=SQUARED, metrics=["mse", "r2"], batch_size=2)
        np.testing.assert_allclose(result["mse"], np.square(X.reshape(5, 3, 2) - y).mean(), rtol=1e-12)
        np.testing.assert_allclose(result["r2"], r_squared(X.reshape(5, 3, 2), y), rtol=1e-12)


@pytest.mark.parametrize("constant", [0.1, 3.0, 1e5])
def test_r2_of_a_constant_target_is_1_if_predicted_exactly_and_else_0(constant: float) -> None:
    y = np.full((7, 1), constant)
    assert score(backend_named("cpu"), y, y, ["r2"], SQUARED)["r2"] == 1.0
    assert score(backend_named("cpu"), y + 1, y, ["r2"], SQUARED)["r2"] == 0.0


def test_r2_of_a_target_with_a_large_mean_keeps_its_digits() -> None:
    """Deviations of 1 about a mean of 1e6, added up row by row, in float32."""
    y = (1e6 + np.arange(20000.0)[:, None] % 3).astype("float32")
    network = gn.Network([gn.Identity()], 1, device="cpu")
    outputs = y + np.float32(0.5)
    result = network.evaluate(outputs, y, loss=SQUARED, metrics=["r2"])["r2"]
    np.testing.assert_allclose(result, r_squared(outputs.astype(float), y.astype(float)), rtol=1e-4)


def test_the_variance_of_a_target_is_summed_in_float64() -> None:
    y = (100 + rng.normal(size=(20000, 2))).astype("float32")
    expected = 1 - 0.5 / y.astype("float64").var(axis=0).mean()
    np.testing.assert_allclose(metrics.R2().finish(np.array(0.5), y), expected, rtol=1e-10)


def test_metrics_are_returned_in_the_order_asked_for() -> None:
    names = ["r2", "mae", "mse"]
    assert list(score(backend_named("cpu"), A, Y, names, SQUARED)) == ["loss", *names]
    assert list(score(backend_named("cpu"), A, Y, "mae", SQUARED)) == ["loss", "mae"]
    assert list(score(backend_named("cpu"), A, Y, [], SQUARED)) == ["loss"]
    assert list(score(backend_named("cpu"), A, Y, None, SQUARED)) == ["loss"]  # type: ignore[arg-type]


def test_a_metric_may_be_given_as_an_object() -> None:
    cpu = backend_named("cpu")
    assert score(cpu, A, Y, [metrics.R2()], SQUARED) == score(cpu, A, Y, ["r2"], SQUARED)
    assert score(cpu, A, Y, metrics.R2(), SQUARED) == score(cpu, A, Y, ["r2"], SQUARED)


@pytest.mark.parametrize(
    ("given", "ours"), [("AUC", "auc"), ("RMSE", "rmse"), ("Accuracy", "accuracy"), ("Top_3", "top_3")]
)
def test_a_metric_in_capital_letters_is_refused_with_its_right_name(given: str, ours: str) -> None:
    with pytest.raises(ConfigurationError, match=f"got '{given}'; write '{ours}'$"):
        metrics.resolve([given])


def test_a_top_k_metric_of_thousands_of_digits_is_refused() -> None:
    name = "top_" + "9" * 5000
    with pytest.raises(ConfigurationError, match=r"got 'top_9{100,500}\.\.\.; use one of these names$"):
        metrics.resolve(name)
    history = gn.History()
    history.append({"loss": 1.0, name: 0.5})
    assert name in repr(gn.History.from_json(history.to_json()))


MANY = (rng.random((9, 3)) < 0.4).astype(float)


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize(("loss", "edge"), [(BINARY, 0.0), (gn.NLL(), 0.5)], ids=repr)
def test_accuracy_of_several_labels_is_the_fraction_that_is_right(
    backend: Any, loss: Any, edge: float, size: int | None, models: int | None
) -> None:
    outputs = A if edge == 0.0 else 1 / (1 + np.exp(-A))
    expected = ((A > 0) == (MANY > 0.5)).mean()
    assert expected != (A.argmax(axis=1) == MANY.argmax(axis=1)).mean()
    got = score(backend, outputs, MANY, ["accuracy"], loss, size, models=models)["accuracy"]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "y", "expected", "got", "fix"),
    [
        (SQUARED, Y, ", with a single 1 in each row", f"targets from {Y.min():g} to {Y.max():g}", "use r2 or rmse"),
        (gn.Huber(), Y[:, :1], "", f"targets from {Y[:, :1].min():g} to {Y[:, :1].max():g}", "use r2 or rmse"),
        (gn.AbsoluteError(), np.arange(9.0), "", "targets from 0 to 8", "use r2 or rmse"),
        (
            SQUARED, np.ones((9, 3)), ", with a single 1 in each row", "rows with several ones, or none",
            "use BinaryCrossEntropy() as the loss",
        ),
    ],
    ids=["several numbers", "one number", "a class as a number", "several labels"],
)  # fmt: skip
def test_accuracy_of_numeric_targets_is_refused(loss: Any, y: Any, expected: str, got: str, fix: str) -> None:
    name = type(loss).__name__
    message = f"metrics accuracy: expected zeros and ones for {name}{expected}, got {got}; {fix}"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        score(backend_named("cpu"), A[:, : 1 if expected == "" else 3], y, ["accuracy"], loss)


@pytest.mark.parametrize("bad", ["acc", "", "loss", metrics.Accuracy, 5, None, ["accuracy"]], ids=repr)
def test_values_that_are_not_metrics_are_refused(bad: Any) -> None:
    names = ", ".join(Metric.named)
    fix = "write 'accuracy'" if bad == "acc" else "use one of these names"
    message = f"metrics: expected some of {names}, top_5, or functions of y and the prediction, got {bad!r}; {fix}"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        score(backend_named("cpu"), A, Y, ["mse", bad], SQUARED)
    if not isinstance(bad, list) and bad is not None:
        with pytest.raises(ConfigurationError, match=exactly(message)):
            score(backend_named("cpu"), A, Y, bad, SQUARED)


@pytest.mark.parametrize("name", ["mse", "mae", "r2"])
@pytest.mark.parametrize("rows", [3, 9], ids=["as many as classes", "more"])
@pytest.mark.parametrize("models", [None, 2])
def test_metrics_of_distance_are_refused_for_classes(backend: Any, models: int | None, rows: int, name: str) -> None:
    """With as many examples as classes a subtraction would broadcast silently."""
    network = gn.Network([gn.Dense(3)], 3, device=backend, models=models)
    before = contents(network)
    message = (
        rf"^metrics {name}: expected a target of one number for each output, of shape .*; use accuracy for classes$"
    )
    with pytest.raises(ConfigurationError, match=message):
        network.evaluate(A[:rows], LABELS[:rows], loss=CROSS, metrics=[name])
    assert contents(network) == before


def test_a_user_defined_metric_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Metric, "named", dict(Metric.named))

    class Largest(Metric):
        name = "largest"

        def rows(self, ops: Any, A: Any, y: Any, decision: float, out: Any) -> None:
            ops.copy(A.max(axis=-1, keepdims=True), out=out)

    result = score(backend_named("cpu"), A, Y, ["largest", Largest()], SQUARED)
    np.testing.assert_allclose(result["largest"], A.max(axis=1).mean(), rtol=1e-12)


def test_a_user_defined_metric_needs_a_rows_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Metric, "named", dict(Metric.named))

    class Nothing(Metric):
        name = "nothing"

    with pytest.raises(NotImplementedError, match="Nothing needs a rows method"):
        score(backend_named("cpu"), A, Y, ["nothing"], SQUARED)
