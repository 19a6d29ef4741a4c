"""A last axis of 1 may be missing in y or be extra: y is read in the one way that makes sense, never broadcast."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import DataError, ShapeError
from gpunn.losses import Loss

rng = np.random.default_rng(0)
ROWS = 12
X = rng.normal(size=(ROWS, 3)).astype("float32")
OWN = rng.normal(size=(2, ROWS, 3)).astype("float32")  # of each of two models
YES = (X[:, 0] > 0).astype(int)
REAL = X @ [1.0, 2.0, -1.0]
CROSS, NLLM = gn.CrossEntropy(), gn.NLLM()

COLUMNS: dict[str, tuple[Loss, Any]] = {
    "numbers": (gn.SquaredError(), REAL),
    "absolute": (gn.AbsoluteError(), REAL.astype("float32")),
    "huber": (gn.Huber(), REAL),
    "binary": (gn.BinaryCrossEntropy(), YES),
    "booleans": (gn.BinaryCrossEntropy(), YES > 0),
    "probabilities": (gn.NLL(), YES),
}


def network(loss: Loss, device: Any = "cpu", **options: Any) -> gn.Network:
    units = 2 if loss.target in ("classes", "one_hot") else 1
    end = {gn.NLL: "sigmoid", gn.NLLM: "softmax"}.get(type(loss))
    return gn.Network([gn.Dense(4, "tanh"), gn.Dense(units, end)], 3, device=device, **options)


def trained(loss: Loss, y: Any, device: Any = "cpu", X: Any = X, **options: Any) -> tuple[Any, ...]:
    """All that training and judging by these targets leave behind."""
    models = {"models": 2} if options.pop("population", False) else {}
    net = network(loss, device, **models)
    history = net.fit(X, y, loss=loss, optimizer=gn.Adam(0.01), epochs=2, batch_size=5, validation=(X, y), **options)
    metrics = ["accuracy"] if loss.target != "numbers" else ["mse", "r2"]
    scores = net.evaluate(X, y, metrics=metrics)
    value, gradients = net.gradients(X, y, loss)
    results = [
        history["loss"],
        history["validation_loss"],
        net.predict(X),
        *scores.values(),
        value,
        *gradients.values(),
    ]
    return tuple(np.asarray(result).tobytes() for result in results)


def forms(y: np.ndarray) -> dict[str, Any]:
    """One target as users have it; the axis that may be missing is the last one."""
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(y, index=np.arange(len(y))[::-1])
    return {
        "(n,)": y, "(n, 1)": y[:, None], "list": y.tolist(), "lists": y[:, None].tolist(), "Series": series,
        "DataFrame": series.to_frame("target"),
    }  # fmt: skip


@pytest.mark.parametrize("case", COLUMNS)
def test_targets_of_one_number_train_the_same_as_shape_n_and_n_1(case: str) -> None:
    loss, y = COLUMNS[case]
    results = {form: trained(loss, given) for form, given in forms(y).items()}
    assert all(result == results["(n, 1)"] for result in results.values())


@pytest.mark.parametrize("loss", [CROSS, NLLM], ids=repr)
@pytest.mark.parametrize("y", [YES, YES > 0, YES.astype("float32")], ids=["integers", "booleans", "whole floats"])
def test_targets_of_one_class_train_the_same_as_shape_n_and_n_1(loss: Loss, y: Any) -> None:
    results = {form: trained(loss, given) for form, given in forms(y).items()}
    assert all(result == results["(n,)"] for result in results.values())


@pytest.mark.parametrize("loss", [gn.SquaredError(), gn.BinaryCrossEntropy(), CROSS], ids=repr)
def test_targets_of_shape_n_and_n_1_train_the_same_on_every_device(backend: Any, loss: Loss) -> None:
    y = YES if loss is CROSS else YES.astype("float32")
    columns = trained(loss, backend.from_host(y[:, None]), backend)
    assert trained(loss, backend.from_host(y), backend) == columns


@pytest.mark.parametrize("loss", [gn.SquaredError(), gn.BinaryCrossEntropy(), CROSS, NLLM], ids=repr)
def test_targets_of_shape_n_and_n_1_train_the_same_for_populations(loss: Loss) -> None:
    """For targets shared by all models, and for targets of each model."""
    together = [trained(loss, y, population=True) for y in (YES, YES[:, None])]
    assert together[0] == together[1]
    own = np.stack([YES, 1 - YES])
    each = [trained(loss, y, X=OWN, population=True) for y in (own, own[:, :, None])]
    assert each[0] == each[1]
    shared = [trained(loss, y, X=OWN, population=True) for y in (YES, YES[:, None], np.stack([YES, YES]))]
    assert shared[0] == shared[1] == shared[2] != each[0]


def test_the_squared_error_of_a_target_of_shape_n_is_never_broadcast() -> None:
    """(n, 1) - (n,) would be (n, n), whose mean is another number."""
    net = gn.Network([gn.Identity()], 1, device="cpu", dtype="float64")
    a, y = rng.normal(size=(7, 1)), rng.normal(size=7)
    expected = np.mean((a[:, 0] - y) ** 2)
    assert net.loss_of(a, y, gn.SquaredError()) == pytest.approx(expected, rel=1e-12)
    scores = net.evaluate(a, y, loss=gn.SquaredError(), metrics=["mse", "mae", "r2"])
    assert scores["mse"] == pytest.approx(expected, rel=1e-12)
    assert scores["mae"] == pytest.approx(np.mean(abs(a[:, 0] - y)), rel=1e-12)
    assert scores["r2"] == pytest.approx(1 - expected / y.var(), rel=1e-12)


def test_targets_may_lack_the_last_axis_of_outputs_of_several_axes() -> None:
    net = gn.Network([gn.Reshape((3, 1))], 3, device="cpu")
    y = rng.normal(size=(ROWS, 3))
    assert net.loss_of(X, y, gn.SquaredError()) == net.loss_of(X, y[:, :, None], gn.SquaredError())


def test_targets_are_read_right_with_as_many_models_as_examples() -> None:
    """Two models on two examples each: whole numbers are classes of each model, floats one-hot rows of all."""
    net, X = network(CROSS, models=2, dtype="float64"), OWN[:, :2]
    singles = [net.member(k) for k in range(2)]
    labels = np.array([[0, 1], [1, 1]])
    expected = [single.loss_of(x, y, CROSS) for single, x, y in zip(singles, X, labels)]
    for y in (labels, labels[:, :, None]):
        np.testing.assert_allclose(net.loss_of(X, y, CROSS), expected, rtol=1e-12)
    expected = [single.loss_of(x, [0, 1], CROSS) for single, x in zip(singles, X)]
    for y in (np.array([0, 1]), np.array([[0], [1]]), np.eye(2)):
        np.testing.assert_allclose(net.loss_of(X, y, CROSS), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 2), (2, 2, 1, 1, 1), (4,), (4, 1)])
def test_targets_whose_shape_has_no_meaning_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="^y: expected shape"):
        network(gn.SquaredError(), models=2).loss_of(OWN[:, :2], np.zeros(shape), gn.SquaredError())


@pytest.mark.parametrize("weights", ["list", "column", "DataFrame"])
def test_sample_weights_may_have_shape_n_1(weights: str) -> None:
    pandas = pytest.importorskip("pandas")
    plain = rng.uniform(size=ROWS)
    given = {"list": plain.tolist(), "column": plain[:, None], "DataFrame": pandas.DataFrame({"w": plain})}[weights]
    for options in ({}, {"class_weight": "balanced"}):
        expected = trained(CROSS, YES, sample_weight=plain, **options)
        assert trained(CROSS, YES, sample_weight=given, **options) == expected
    net = network(CROSS)
    scores = [net.evaluate(X, YES, loss=CROSS, sample_weight=w) for w in (plain, given)]
    assert scores[0] == scores[1]


def test_sample_weights_of_another_length_are_refused_beside_class_weights() -> None:
    with pytest.raises(DataError, match=r"^fit sample_weight: expected 12 finite numbers .*, got shape \(5,\)"):
        trained(CROSS, YES, sample_weight=np.ones(5), class_weight="balanced")


def test_targets_of_shape_n_and_n_1_train_the_same_if_streamed() -> None:
    big = rng.normal(size=(400, 3)).astype("float32")
    y = (big[:, 0] > 0).astype(int)
    for loss in (gn.BinaryCrossEntropy(), CROSS):
        first, second = (trained(loss, given, X=big, memory=1000) for given in (y, y[:, None]))
        assert first == second
