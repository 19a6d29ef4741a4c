"""Metrics of whole sets and functions of users, compared with scikit-learn for every kind of loss, set and network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import metrics
from gpunn.errors import ConfigurationError
from gpunn.losses import Loss
from gpunn.metrics import Metric, ranking
from tests.conftest import backend_named
from tests.faults import contents, exactly

sklearn = pytest.importorskip("sklearn.metrics")
rng = np.random.default_rng(0)
CROSS, BINARY, NLL, NLLM = gn.CrossEntropy(), gn.BinaryCrossEntropy(), gn.NLL(), gn.NLLM()
WHOLE = ["auc", "average_precision", "f1"]


def judge(backend: Any, outputs: Any, y: Any, loss: Loss, names: Any, size: int | None = None, **options: Any) -> Any:
    """Scores of a network whose outputs are these, or their probabilities, in chunks of `size`."""
    net = passing_on(outputs, loss, backend, **options)
    return net.evaluate(outputs, y, loss=loss, metrics=names, batch_size=size)


def passing_on(outputs: Any, loss: Loss, device: Any = "cpu", **options: Any) -> gn.Network:
    ends: list[gn.Layer] = {NLL: [gn.Sigmoid()], NLLM: [gn.Softmax()]}.get(loss, [])
    return gn.Network([gn.Identity(), *ends], np.shape(outputs)[-1], device=device, dtype="float64", **options)


def probabilities(outputs: Any, loss: Loss, device: Any = "cpu") -> Any:
    """The probabilities that the network gives: equal ones must be equal to the last bit."""
    return passing_on(outputs, loss, device).predict_probability(outputs, loss=loss)


def ties(*shape: int, seed: int = 0) -> Any:
    """Numbers of which many are equal."""
    return np.random.default_rng(seed).integers(-4, 5, shape) / 2.0


def classes(n: int, count: int, seed: int = 1) -> Any:
    """Every class, in some order."""
    y = np.arange(n) % count
    np.random.default_rng(seed).shuffle(y)
    return y


def close(value: Any, expected: Any) -> None:
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize("loss", [BINARY, NLL], ids=repr)
def test_metrics_of_two_classes_agree_with_scikit_learn(backend: Any, loss: Loss, size: int | None) -> None:
    Z, y = ties(40, 1), classes(40, 2)
    p = probabilities(Z, loss, backend)[:, 0]
    result = judge(backend, Z, y, loss, [*WHOLE, "log_loss", "rmse"], size)
    close(result["auc"], sklearn.roc_auc_score(y, p))
    close(result["average_precision"], sklearn.average_precision_score(y, p))
    close(result["f1"], sklearn.f1_score(y, p > 0.5))
    close(result["log_loss"], sklearn.log_loss(y, p))
    of_what = Z[:, 0] if loss is BINARY else p  # as mse, of the outputs
    close(result["rmse"], sklearn.root_mean_squared_error(y, of_what))


@pytest.mark.parametrize("size", [None, 7])
@pytest.mark.parametrize("one_hot", [False, True], ids=["labels", "one-hot"])
@pytest.mark.parametrize("loss", [CROSS, gn.CrossEntropy(0.1), NLLM], ids=repr)
def test_metrics_of_several_classes_agree_with_scikit_learn(
    backend: Any, loss: Loss, one_hot: bool, size: int | None
) -> None:
    Z, y = ties(60, 4), classes(60, 4)
    P = probabilities(Z, loss, backend)
    result = judge(backend, Z, np.eye(4)[y] if one_hot else y, loss, [*WHOLE, "log_loss", "top_2", "top_3"], size)
    close(result["auc"], sklearn.roc_auc_score(y, P, multi_class="ovr"))
    close(result["average_precision"], sklearn.average_precision_score(y, P))
    close(result["f1"], sklearn.f1_score(y, P.argmax(axis=1), average="macro"))
    close(result["log_loss"], sklearn.log_loss(y, P))
    for k in (2, 3):
        close(result[f"top_{k}"], sklearn.top_k_accuracy_score(y, P, k=k))
    assert list(result) == ["loss", *WHOLE, "log_loss", "top_2", "top_3"]


@pytest.mark.parametrize("loss", [CROSS, NLLM], ids=repr)
def test_metrics_of_two_outputs_are_those_of_the_second_class(loss: Loss) -> None:
    Z, y = ties(40, 2), classes(40, 2)
    p = probabilities(Z, loss)[:, 1]
    result = judge(backend_named("cpu"), Z, y, loss, [*WHOLE, "log_loss", "top_1"])
    close(result["auc"], sklearn.roc_auc_score(y, p))
    close(result["average_precision"], sklearn.average_precision_score(y, p))
    close(result["f1"], sklearn.f1_score(y, p > 0.5))
    close(result["log_loss"], sklearn.log_loss(y, p))


@pytest.mark.parametrize("loss", [BINARY, NLL], ids=repr)
def test_metrics_of_several_yes_or_no_labels_agree_with_scikit_learn(backend: Any, loss: Loss) -> None:
    Z, Y = ties(50, 3), (ties(50, 3, seed=5) > 0).astype(int)
    P = probabilities(Z, loss, backend)
    result = judge(backend, Z, Y, loss, [*WHOLE, "log_loss"], 8)
    close(result["auc"], sklearn.roc_auc_score(Y, P))
    close(result["average_precision"], sklearn.average_precision_score(Y, P))
    close(result["f1"], sklearn.f1_score(Y, P > 0.5, average="macro"))
    close(result["log_loss"], np.mean([sklearn.log_loss(y, p) for y, p in zip(Y.T, P.T)]))


def test_metrics_of_zeros_and_ones_under_squared_error_agree_with_scikit_learn() -> None:
    Z, y = ties(40, 1), classes(40, 2)
    result = judge(backend_named("cpu"), Z, y, gn.SquaredError(), WHOLE)
    close(result["auc"], sklearn.roc_auc_score(y, Z[:, 0]))
    close(result["average_precision"], sklearn.average_precision_score(y, Z[:, 0]))
    close(result["f1"], sklearn.f1_score(y, Z[:, 0] > 0.5))


@pytest.mark.parametrize("seed", range(30))
def test_metrics_of_random_sets_with_ties_agree_with_scikit_learn(seed: int) -> None:
    some = np.random.default_rng(seed)
    n = int(some.integers(2, 60))
    score, truth = ties(n, seed=seed), some.random(n) < some.uniform(0.1, 0.9)
    truth[:2] = True, False
    close(ranking.area_under_roc(truth, score), sklearn.roc_auc_score(truth, score))
    close(ranking.average_precision(truth, score), sklearn.average_precision_score(truth, score))
    close(ranking.f1(truth, score > 0), sklearn.f1_score(truth, score > 0))


def test_metrics_that_are_undefined_are_nan() -> None:
    """The area under the curve of one class is NaN; classes that do not occur are left out; F1 of nothing is 0."""
    Z, no, yes = ties(9, 1), np.zeros(9), np.ones(9)
    cpu = backend_named("cpu")
    assert np.isnan(judge(cpu, Z, no, BINARY, "auc")["auc"])
    assert np.isnan(judge(cpu, Z, yes, BINARY, "auc")["auc"])
    assert np.isnan(judge(cpu, Z, no, BINARY, "average_precision")["average_precision"])
    assert judge(cpu, Z, yes, BINARY, "average_precision")["average_precision"] == 1.0
    assert judge(cpu, -abs(Z), no, BINARY, "f1")["f1"] == 0.0
    Z, y = ties(30, 4), classes(30, 3)  # the last class does not occur
    P = probabilities(Z, CROSS)
    result = judge(cpu, Z, y, CROSS, WHOLE)
    close(result["auc"], np.mean([sklearn.roc_auc_score(y == k, P[:, k]) for k in range(3)]))
    close(result["average_precision"], np.mean([sklearn.average_precision_score(y == k, P[:, k]) for k in range(3)]))
    close(result["f1"], sklearn.f1_score(y, P.argmax(axis=1), average="macro"))
    assert np.isnan(ranking.area_under_roc(np.array([True, False]), np.array([np.nan, 1.0])))
    assert np.isnan(ranking.average_precision(np.array([True, False]), np.array([np.inf, 1.0])))


def test_log_loss_of_a_probability_of_zero_agrees_with_scikit_learn() -> None:
    """A probability of 0 counts as the ε of the dtype."""
    P, y = np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([0, 1])
    net = gn.Network([gn.Identity()], 2, device="cpu", dtype="float64")
    close(net.evaluate(P, y, loss=NLLM, metrics="log_loss")["log_loss"], sklearn.log_loss(y, P))
    net = gn.Network([gn.Identity()], 1, device="cpu", dtype="float64")
    close(net.evaluate(P[:, :1], y, loss=NLL, metrics="log_loss")["log_loss"], sklearn.log_loss(y, P[:, 0]))


def test_top_k_ranks_equal_scores_as_scikit_learn_does() -> None:
    """Of equal scores the class with the higher number comes first."""
    Z = np.zeros((3, 3))
    for k, expected in ((1, 1 / 3), (2, 2 / 3)):
        close(judge(backend_named("cpu"), Z, [0, 1, 2], CROSS, metrics.TopK(k))[f"top_{k}"], expected)


# Populations, sets of each model's own, folds


@pytest.mark.parametrize("size", [None, 4])
def test_metrics_of_whole_sets_are_measured_for_each_model(backend: Any, size: int | None) -> None:
    Z, y = np.stack([ties(20, 3), ties(20, 3, seed=9)]), np.stack([classes(20, 3), classes(20, 3, seed=8)])
    names = [*WHOLE, "log_loss", "top_2", brier]
    for given in (y, y[0]):
        result = judge(backend, Z, given, CROSS, names, size, models=2)
        for k in range(2):
            alone = judge(backend, Z[k], given if given.ndim == 1 else given[k], CROSS, names, size)
            for name, value in alone.items():
                close(result[name][k], value)


def brier(y: Any, P: Any) -> float:
    return float(np.mean((np.eye(P.shape[1])[y] - P) ** 2))


@pytest.mark.parametrize("one_hot", [False, True])
def test_a_population_on_one_set_has_the_metrics_of_its_members(backend: Any, one_hot: bool) -> None:
    net = gn.Network([gn.Dense(4)], 3, device=backend, models=3, dtype="float64")
    X, y = rng.normal(size=(25, 3)), classes(25, 4)
    given = np.eye(4)[y] if one_hot else y
    names = [*WHOLE, "log_loss", "top_2"]
    result = net.evaluate(X, given, loss=CROSS, metrics=names, batch_size=10)
    for k in range(3):
        alone = net.member(k).evaluate(X, given, loss=CROSS, metrics=names)
        for name, value in alone.items():
            close(result[name][k], value)


def test_metrics_of_whole_sets_use_the_held_out_rows_of_each_fold() -> None:
    X, y = rng.normal(size=(60, 4)).astype("float32"), classes(60, 2)
    rows = np.arange(60)
    folds = [(rows[20:], rows[:20]), (rows[:40], rows[40:])]
    net = gn.Network([gn.Dense(4, "tanh"), gn.Dense(2)], 4, device="cpu", models=2, seed=[1, 2])
    history = net.fit(
        X, y, loss=CROSS, optimizer=gn.Adam(0.01), epochs=3, folds=folds, metrics=["auc", brier], keep="last"
    )  # fmt: skip
    P = net.predict_probability(X)
    for k, (_, held_out) in enumerate(folds):
        close(history["validation_auc"][-1, k], sklearn.roc_auc_score(y[held_out], P[k, held_out, 1]))
        close(history["validation_brier"][-1, k], brier(y[held_out], P[k, held_out]))


# Training


def trained(device: Any = "cpu", X: Any = None, **options: Any) -> tuple[gn.Network, Any]:
    data = np.random.default_rng(3)
    X = data.normal(size=(90, 4)).astype("float32")
    y = (X[:, 0] + 0.5 * data.normal(size=90) > 0).astype(int)
    net = gn.Network([gn.Dense(6, "tanh"), gn.Dense(1)], 4, device=device)
    options = {"validation": (X[60:], y[60:]), "epochs": 4, "batch_size": 16, **options}
    return net, net.fit(X[:60], y[:60], loss=BINARY, optimizer=gn.Adam(0.02), **options)


def seen(y: Any, P: Any) -> float:
    """A metric that gets y as the user gave it: whole numbers of shape (n,), though the loss works on a float
    column."""
    assert (y.shape, y.dtype.kind, P.shape) == ((30,), "i", (30, 1))
    return float(P[y == 1].mean())


def test_the_history_has_metrics_of_whole_sets_for_the_validation_set_alone(backend: Any) -> None:
    net, history = trained(backend, metrics=["auc", "log_loss", seen, "accuracy"], keep="last")
    measured = [name for name in history if not name.endswith(("second", "seconds", "rate"))]
    assert measured == [
        "loss", "log_loss", "accuracy", "validation_loss", "validation_auc", "validation_log_loss", "validation_seen",
        "validation_accuracy",
    ]  # fmt: skip
    np.testing.assert_allclose(history["log_loss"], history["loss"], rtol=1e-5)
    np.testing.assert_allclose(history["validation_log_loss"], history["validation_loss"], rtol=1e-5)
    data = np.random.default_rng(3)
    X = data.normal(size=(90, 4)).astype("float32")
    y = (X[:, 0] + 0.5 * data.normal(size=90) > 0).astype(int)
    p = net.predict_probability(X[60:])
    assert history["validation_auc"][-1] == pytest.approx(sklearn.roc_auc_score(y[60:], p[:, 0]), rel=1e-6)
    assert history["validation_seen"][-1] == pytest.approx(seen(y[60:], p), rel=1e-5)


def test_metrics_of_whole_sets_do_not_change_a_training() -> None:
    (plain, first), (watched, second) = trained(), trained(metrics=["auc", seen, "top_1"][:2])
    assert contents(plain) == contents(watched)
    assert first["validation_loss"].tobytes() == second["validation_loss"].tobytes()


def test_early_stopping_may_monitor_a_metric_of_the_whole_set() -> None:
    def worse(y: Any, P: Any) -> float:
        return next(values)

    values = iter([0.1, 0.5, 0.4, 0.3, 0.2])
    stopping = gn.EarlyStopping(2, monitor="validation_worse", mode="max")
    _, history = trained(metrics=[worse], stopping=stopping, epochs=9)
    assert (history.epochs, history.best_epoch) == (4, 2)
    _, history = trained(metrics=["auc"], stopping=gn.EarlyStopping(50, monitor="validation_auc"), epochs=6)
    assert history.best_epoch == 1 + int(history["validation_auc"].argmax())  # "auto" knows that more is better


def test_early_stopping_on_a_user_defined_function_needs_a_mode() -> None:
    message = (
        "EarlyStopping mode: expected 'min' or 'max' for 'validation_brier', got 'auto', which knows only gpunn's own "
        "metrics; write mode='max' if more of it is better"
    )
    with pytest.raises(ConfigurationError, match=exactly(message)):
        trained(metrics=[brier], stopping=gn.EarlyStopping(monitor="validation_brier"))


@pytest.mark.parametrize(("given", "names"), [(["auc"], "auc"), (["accuracy", "f1", brier], "f1, brier")])
def test_metrics_of_whole_sets_are_refused_without_a_validation_set(given: Any, names: str) -> None:
    message = (
        f"fit metrics {names}: expected validation= or folds=, of which such figures of a whole set are made, "
        "got neither; pass validation=0.2, or measure them afterwards with evaluate"
    )
    with pytest.raises(ConfigurationError, match=exactly(message)):
        trained(metrics=given, validation=None)


def test_metrics_of_whole_sets_are_measured_on_a_held_out_fraction() -> None:
    _, history = trained(metrics=["auc"], validation=0.3)
    assert np.isfinite(history["validation_auc"]).all()


def test_the_memory_for_predictions_of_a_whole_set_is_counted_beforehand() -> None:
    """The memory counted for an evaluation grows by the buffer for all predictions and one for a chunk."""
    from gpunn.training.batches import examples
    from gpunn.training.evaluation import Evaluator

    net = gn.Network([gn.Dense(3)], 4, device="cpu")
    X, y = rng.normal(size=(1000, 4)).astype("float32"), classes(1000, 3)

    def counted(*names: str) -> int:
        stage, rehearsal = net.rehearsed()
        Evaluator(stage, examples(net, "evaluate", X, y, CROSS).to(stage.ops), CROSS, metrics.resolve(names), 100)
        return int(rehearsal.bytes)

    assert counted("auc") - counted() == 1000 * 3 * 4 + 100 * 3 * 4
    assert counted("auc", "f1") == counted("auc")


def test_metrics_of_whole_sets_wait_for_the_device_only_when_read(strict: Any) -> None:
    from gpunn.training.batches import examples
    from gpunn.training.evaluation import Evaluator

    net = gn.Network([gn.Dense(3)], 4, device=strict)
    X, y = rng.normal(size=(50, 4)).astype("float32"), classes(50, 3)
    data = examples(net, "evaluate", X, y, CROSS).to(strict)
    made = Evaluator(net, data, CROSS, metrics.resolve(["auc", "top_2", "log_loss"]), 8)
    for _ in range(3):  # eager, captured, replayed
        made.run()
        made.read()
    counters = strict.xp.machine.counters
    before = counters.snapshot()
    made.run()
    after = counters.snapshot()
    assert after.pop("launches") > before.pop("launches")
    assert after == before  # no transfer, no wait, no array
    assert made.read()["auc"].shape == (1,)


# What cannot be measured

Z4 = ties(12, 4)
CANNOT: dict[str, tuple[Loss, Any, Any, str]] = {
    "shares": (
        CROSS, np.full((12, 4), 0.25), "auc",
        "metrics auc: expected classes, or zeros and ones, got targets from 0.25 to 0.25; "
        "leave it out: it needs to know what is true",
    ),
    "numbers": (
        gn.SquaredError(), Z4, "average_precision",
        "metrics average_precision: expected classes, or zeros and ones, got targets from -2 to 2; "
        "leave it out: it needs to know what is true",
    ),
    "two ones": (
        CROSS, np.ones((12, 4)), "f1",
        "metrics f1: expected classes, or zeros and ones, got rows with several ones, or none; "
        "leave it out: it needs to know what is true",
    ),
    "no probabilities": (
        gn.SquaredError(), Z4, "log_loss",
        "metrics log_loss: expected a loss that makes probabilities, got SquaredError; "
        "use mse, or CrossEntropy() or BinaryCrossEntropy() as the loss",
    ),
    "all classes": (
        CROSS, classes(12, 4), "top_4",
        "metrics top_4: expected CrossEntropy or NLLM on more than 4 classes, got CrossEntropy on 4 outputs; "
        "use accuracy, or a smaller k",
    ),
    "no classes": (
        BINARY, np.ones((12, 4)), metrics.TopK(2),
        "metrics top_2: expected CrossEntropy or NLLM on more than 2 classes, got BinaryCrossEntropy on 4 outputs; "
        "use accuracy, or a smaller k",
    ),
    "a name twice": (
        CROSS, classes(12, 4), ["auc", metrics.FunctionMetric(brier), lambda y, P: 0.0, lambda y, P: 1.0],
        "metrics: expected a name for each, got 'lambda' twice; rename your function",
    ),
    "no number": (
        CROSS, classes(12, 4), lambda y, P: P,
        "metrics lambda: expected a function that returns a number, got float64 of shape (12, 4); "
        "return one number for the whole set",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CANNOT)
def test_metrics_that_do_not_fit_the_loss_are_refused(case: str) -> None:
    loss, y, names, message = CANNOT[case]
    with pytest.raises(ConfigurationError, match=exactly(message)):
        judge(backend_named("cpu"), Z4, y, loss, names)


@pytest.mark.parametrize("name", [*WHOLE, "log_loss", "top_2"])
def test_metrics_of_classes_refuse_outputs_of_several_axes(name: str) -> None:
    net = gn.Network([gn.Reshape((2, 2))], 4, device="cpu")
    message = f"metrics {name}: expected outputs that are one vector for each example, got outputs of 2 axes; "
    with pytest.raises(ConfigurationError, match=exactly(f"{message}end the network in Flatten()")):
        net.evaluate(Z4, np.zeros((12, 2, 2)), loss=BINARY, metrics=[name])


def test_top_k_needs_a_whole_number_of_classes() -> None:
    with pytest.raises(ConfigurationError, match="^TopK k: expected a whole number >= 1, got 0"):
        metrics.TopK(0)
    for name in ("top_0", "top_k", "top_", "top_-1"):
        with pytest.raises(ConfigurationError, match=f"^metrics: expected some of .*, got '{name}'"):
            metrics.resolve([name])


def test_a_user_defined_metric_of_the_whole_set_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Metric, "named", dict(Metric.named))

    @dataclass(frozen=True)
    class Sure(metrics.WholeSet):
        name = "sure"

        def figure(self, y: Any, P: Any, exclusive: bool) -> float:
            assert exclusive
            return float(P.max(axis=1).mean())

    @dataclass(frozen=True)
    class Nothing(metrics.WholeSet):
        name = "nothing"

    close(
        judge(backend_named("cpu"), Z4, classes(12, 4), CROSS, "sure")["sure"],
        probabilities(Z4, CROSS).max(axis=1).mean(),
    )
    with pytest.raises(NotImplementedError, match="Nothing needs a figure method"):
        judge(backend_named("cpu"), Z4, classes(12, 4), CROSS, Nothing())


@pytest.mark.parametrize("y", [classes(12, 4), classes(12, 4)[:, None], np.eye(4)[classes(12, 4)]])
def test_a_metric_function_gets_the_targets_as_they_were_given(backend: Any, y: Any) -> None:
    got: list[Any] = []

    def look(y: Any, P: Any) -> float:
        got.append(y)
        return 1.0

    for given in (y, y.tolist(), backend.from_host(y)):
        for loss in (CROSS, NLLM):
            judge(backend, Z4, given, loss, look, 5)
    assert len(got) == 6
    for one in got:
        np.testing.assert_array_equal(one, y)
        assert one.dtype.kind == y.dtype.kind


def test_any_callable_may_be_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    class Score:
        def __call__(self, y: Any, P: Any) -> float:
            return 2.0

    call: Callable[..., float] = Score()
    assert judge(backend_named("cpu"), Z4, classes(12, 4), CROSS, call)["Score"] == 2.0


def test_a_subclass_of_a_metric_does_not_take_its_name() -> None:
    class Stricter(type(gn.metrics.resolve("accuracy")["accuracy"])):  # type: ignore[misc]
        """Has no name of its own."""

    assert type(gn.metrics.resolve("accuracy")["accuracy"]) is Stricter.__base__
