"""Criteria on made-up records: the exact epoch in which each model must stop."""

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError
from gpunn.training.stopping import (
    EarlyStopping,
    GradientTolerance,
    LossTolerance,
    Stopping,
    TimeLimit,
    as_criteria,
    improvement,
    monitored,
)
from gpunn.value import from_json, to_json
from tests.faults import exactly

NAN, INF = math.nan, math.inf


def records(**columns: list[Any]) -> list[dict[str, Any]]:
    """A record for each epoch; an entry is a number, or a list of one for each model."""
    return [{n: np.ravel(np.array(v, float)) for n, v in zip(columns, row)} for row in zip(*columns.values())]


def stops(criterion: Stopping, made: list[dict[str, Any]], through_json: bool = False) -> list[int | None]:
    """The first epoch, from 1, in which each model is told to stop."""
    models = len(made[0]["loss"])
    state, found = criterion.start(models), [None] * models
    for epoch, record in enumerate(made, 1):
        if through_json:
            state = json.loads(json.dumps(state, allow_nan=False))
        kept = {name: values.copy() for name, values in record.items()}
        told = criterion.judge(state, record)
        assert told.shape == (models,) and told.dtype == bool
        for name, values in record.items():
            np.testing.assert_array_equal(values, kept[name])
        found = [epoch if before is None and now else before for before, now in zip(found, told)]
    return found


# What each of these must do: criterion, record, epochs.
CASES: dict[str, tuple[Stopping, list[dict[str, Any]], list[int | None]]] = {
    "never improves": (EarlyStopping(3), records(loss=[1, 1, 1, 1, 1, 1]), [4]),
    "patience 1": (EarlyStopping(1), records(loss=[3, 2, 2.5, 1]), [3]),
    "always improves": (EarlyStopping(1), records(loss=[5, 4, 3, 2, 1]), [None]),
    "improves in the last moment": (EarlyStopping(3), records(loss=[3, 4, 4, 2, 4, 4, 4, 1]), [7]),
    "against the best, not the last": (EarlyStopping(3), records(loss=[1, 4, 3, 2, 1.5]), [4]),
    "default patience": (EarlyStopping(), records(loss=[1] * 12), [11]),
    "validation comes first": (EarlyStopping(2), records(loss=[3, 2, 1, 0.5], validation_loss=[1, 2, 3, 4]), [3]),
    "unless another is asked for": (
        EarlyStopping(2, monitor="loss"), records(loss=[3, 2, 1, 1], validation_loss=[1, 2, 3, 4]), [None]),
    "change too small": (EarlyStopping(2, minimum_change=0.5), records(loss=[3, 2.5, 2.6, 1]), [3]),
    "small changes add up": (EarlyStopping(2, minimum_change=0.5), records(loss=[3, 2.6, 2.4, 2.3, 1.8]), [None]),
    "accuracy grows": (EarlyStopping(2, monitor="accuracy"), records(loss=[1] * 5, accuracy=[1, 2, 3, 2, 3]), [5]),
    "validation accuracy grows": (
        EarlyStopping(2, monitor="validation_accuracy"), records(loss=[1] * 4, validation_accuracy=[1, 2, 3, 4]),
        [None]),
    "r2 grows, from below 0": (
        EarlyStopping(2, monitor="r2", minimum_change=0.1), records(loss=[1] * 5, r2=[-5, -3, -2, -1.95, -1.91]), [5]),
    "other metrics shrink": (EarlyStopping(2, monitor="mae"), records(loss=[1] * 3, mae=[1, 2, 3]), [3]),
    "mode max": (EarlyStopping(2, monitor="mae", mode="max"), records(loss=[1] * 3, mae=[1, 2, 3]), [None]),
    "mode min": (EarlyStopping(2, monitor="accuracy", mode="min"), records(loss=[1] * 3, accuracy=[1, 2, 3]), [3]),
    "NaN is no improvement": (EarlyStopping(2), records(loss=[1, NAN, NAN, 0.5]), [3]),
    "NaN from the start": (EarlyStopping(2), records(loss=[NAN, NAN, NAN]), [2]),
    "NaN is improved on": (EarlyStopping(2), records(loss=[NAN, 5, 6, 4]), [None]),
    "NaN among accuracies": (
        EarlyStopping(2, monitor="accuracy"), records(loss=[1] * 4, accuracy=[0.5, NAN, NAN, 1]), [3]),
    "infinity is no improvement": (EarlyStopping(2), records(loss=[INF, INF, 1]), [2]),
    "minus infinity neither": (EarlyStopping(2), records(loss=[1, -INF, -INF]), [3]),
    "each model by itself": (
        EarlyStopping(2),
        records(loss=[[1, 3, 1, NAN], [2, 2, 0.5, 1], [3, 1, 1, 1], [0, 2, 1, 1], [0, 2, 1, 1]]), [3, 5, 4, 4]),
    "gradient": (GradientTolerance(0.1), records(loss=[1] * 4, gradient_norm=[1, 0.2, 0.1, 0.01]), [3]),
    "gradients of models": (
        GradientTolerance(0.1), records(loss=[[1, 1, 1]] * 3, gradient_norm=[[1, 0, 9], [0.1, 1, NAN], [0, 0, 1]]),
        [2, 1, None]),
    "gradient of exactly 0": (GradientTolerance(0), records(loss=[1] * 2, gradient_norm=[1e-300, 0]), [2]),
    "loss": (LossTolerance(0.1), records(loss=[1, 0.5, 0.45, 0.2]), [3]),
    "loss that grows": (LossTolerance(0.1), records(loss=[1, 2, 2.0625]), [3]),
    "loss at the tolerance": (LossTolerance(0.5), records(loss=[2, 1.5]), [2]),
    "loss, patience": (LossTolerance(0.1, 2), records(loss=[1, 1, 2, 2, 2, 2]), [5]),
    "loss, relative": (LossTolerance(0.1, relative=True), records(loss=[100, 80, 73, 65]), [3]),
    "loss, not relative": (LossTolerance(0.1), records(loss=[100, 80, 73, 65]), [None]),
    "loss, relative to a negative one": (LossTolerance(0.1, relative=True), records(loss=[-100, -120, -125]), [3]),
    "loss, one epoch": (LossTolerance(1e9), records(loss=[1]), [None]),
    "loss, not the validation's": (LossTolerance(0.1), records(loss=[3, 2, 1], validation_loss=[1, 1, 1]), [None]),
    "loss, exactly the same": (LossTolerance(0), records(loss=[1, 1 + 1e-15, 1 + 1e-15]), [3]),
    "loss, NaN": (LossTolerance(0.1), records(loss=[1, NAN, NAN, 1, 1]), [5]),
    "loss, infinity": (LossTolerance(0.1, relative=True), records(loss=[INF, INF, 1, INF]), [None]),
    "losses of models": (
        LossTolerance(0.1, 2), records(loss=[[1, 1, 1], [1, 2, 1], [1, 2, 2], [1, 2, 2], [1, 2, 2]]), [3, 4, 5]),
    "time": (TimeLimit(10), records(loss=[1] * 4, seconds=[4, 8, 12, 16]), [3]),
    "time to the second": (TimeLimit(8.0), records(loss=[[1, 1]] * 3, seconds=[[4, 4], [8, 8], [12, 12]]), [2, 2]),
}  # fmt: skip


@pytest.mark.parametrize("through_json", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_each_criterion_stops_each_model_in_the_right_epoch(name: str, through_json: bool) -> None:
    criterion, made, expected = CASES[name]
    assert stops(criterion, made, through_json) == expected


@pytest.mark.parametrize("name", CASES)
def test_stopping_criteria_are_stored_as_json_and_pickled(name: str) -> None:
    criterion, made, expected = CASES[name]
    again = from_json(json.loads(json.dumps(to_json(criterion))))
    assert again == criterion and hash(again) == hash(criterion) and repr(again) == repr(criterion)
    assert pickle.loads(pickle.dumps(criterion)) == criterion
    assert stops(again, made) == expected


def test_two_trainings_with_one_criterion_share_no_state() -> None:
    criterion = EarlyStopping(2)
    first, second = criterion.start(1), criterion.start(1)
    for value in (1.0, 2.0):
        criterion.judge(first, {"loss": np.array([value])})
    assert second == criterion.start(1) != first
    assert not criterion.judge(second, {"loss": np.array([9.0])}).any()


def test_a_model_of_a_population_stops_as_it_would_alone() -> None:
    rng = np.random.default_rng(0)
    losses = rng.normal(size=(60, 7)).cumsum(axis=0)
    for criterion in (EarlyStopping(4), EarlyStopping(3, minimum_change=0.5), LossTolerance(0.3, 2)):
        together = stops(criterion, records(loss=losses.tolist()))
        alone = [stops(criterion, records(loss=losses[:, k].tolist()))[0] for k in range(7)]
        assert together == alone
        assert len(set(alone)) > 3


@pytest.mark.parametrize(
    ("criterion", "code", "reason"),
    [
        (EarlyStopping(), "EarlyStopping()", "EarlyStopping(patience=10)"),
        (EarlyStopping(5), "EarlyStopping(5)", "EarlyStopping(patience=5)"),
        (
            EarlyStopping(5, monitor="r2", mode="max"),
            "EarlyStopping(5, monitor='r2', mode='max')",
            "EarlyStopping(patience=5, monitor='r2', mode='max')",
        ),
        (GradientTolerance(1e-3), "GradientTolerance(0.001)", "GradientTolerance(tolerance=0.001)"),
        (
            LossTolerance(0.1, relative=True),
            "LossTolerance(0.1, relative=True)",
            "LossTolerance(tolerance=0.1, relative=True)",
        ),
        (TimeLimit(60), "TimeLimit(60.0)", "TimeLimit(seconds=60.0)"),
    ],
)
def test_a_criterion_prints_as_code_and_gives_its_reason(criterion: Stopping, code: str, reason: str) -> None:
    assert repr(criterion) == code
    assert criterion.reason == reason


NAMES = ("loss", "accuracy", "seconds")


@pytest.mark.parametrize(
    ("criterion", "missing"),
    [
        (EarlyStopping(monitor="validation_loss"), "validation_loss"),
        (EarlyStopping(monitor="acuracy"), "acuracy"),
        (GradientTolerance(1.0), "gradient_norm"),
    ],
)
def test_a_criterion_refuses_to_monitor_what_is_not_recorded(criterion: Stopping, missing: str) -> None:
    message = exactly(
        f"{type(criterion).__name__}: expected one of the recorded names loss, accuracy, seconds, got '{missing}'; "
        "monitor one of these, or pass validation= or metrics= so that it is recorded"
    )
    with pytest.raises(ConfigurationError, match=message):
        criterion.check(NAMES)
    with pytest.raises(ConfigurationError, match=message):
        criterion.judge(criterion.start(1), dict.fromkeys(NAMES, np.zeros(1)))


@pytest.mark.parametrize("criterion", [EarlyStopping(), EarlyStopping(monitor="accuracy"), TimeLimit(1)])
def test_a_criterion_may_monitor_what_is_recorded(criterion: Stopping) -> None:
    criterion.check(NAMES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(0), r"^EarlyStopping patience: expected a whole number >= 1, got 0; "),
        (lambda: EarlyStopping(2.5), r"^EarlyStopping patience: expected a whole number >= 1, got 2.5; "),  # type: ignore[arg-type]
        (lambda: EarlyStopping(minimum_change=-1), r"^EarlyStopping minimum_change: .* 0 <= value, got -1; "),
        (lambda: EarlyStopping(mode="up"), r"^EarlyStopping mode: expected one of 'auto', 'min', 'max', got 'up'; "),
        (lambda: EarlyStopping(monitor=""), r"^EarlyStopping monitor: expected a recorded name .*, got ''; leave"),
        (lambda: EarlyStopping(monitor=3), r"^EarlyStopping monitor: expected a recorded name .*, got 3; leave"),  # type: ignore[arg-type]
        (lambda: GradientTolerance(-1), r"^GradientTolerance tolerance: expected .* 0 <= value, got -1; "),
        (lambda: GradientTolerance(NAN), r"^GradientTolerance tolerance: expected .* 0 <= value, got nan; "),
        (lambda: LossTolerance(-1), r"^LossTolerance tolerance: expected .* 0 <= value, got -1; "),
        (lambda: LossTolerance(1, 0), r"^LossTolerance patience: expected a whole number >= 1, got 0; "),
        (lambda: LossTolerance(1, relative=2), r"^LossTolerance relative: expected one of True, False, got 2; "),  # type: ignore[arg-type]
        (lambda: TimeLimit(0), r"^TimeLimit seconds: expected .* 0 < value, got 0; "),
        (lambda: improvement("loss", "best"), r"^mode: expected one of 'auto', 'min', 'max', got 'best'; "),
    ],
)
def test_stopping_criteria_refuse_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "mode", "maximise"),
    [
        ("loss", "auto", False), ("validation_loss", "auto", False), ("accuracy", "auto", True), ("r2", "auto", True),
        ("validation_r2", "auto", True), ("mse", "auto", False), ("mse", "max", True), ("accuracy", "min", False),
    ],
)  # fmt: skip
def test_whether_more_or_less_is_better_depends_on_name_and_mode(name: str, mode: str, maximise: bool) -> None:
    rule = improvement(name, mode)
    assert (rule.name, rule.maximise, rule.worst) == (name, maximise, -INF if maximise else INF)
    new = np.array([1.0, 2.0, 3.0, NAN, INF, -INF, 2.0, 2.0, 2.0])
    best = np.array([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, NAN, rule.worst, NAN])
    expected = [not maximise, False, maximise, False, False, False, True, True, True]
    assert rule.better(new, best).tolist() == expected
    assert rule.better(new, best, 1.0).tolist() == [False] * 6 + [True] * 3


def test_the_validation_loss_is_monitored_by_default_if_there_is_one() -> None:
    assert monitored(["loss", "seconds"]) == "loss"
    assert monitored(["loss", "validation_loss"]) == "validation_loss"
    assert monitored(["loss", "validation_loss"], "r2") == "r2"


def test_stopping_may_be_one_criterion_or_several() -> None:
    one, other = EarlyStopping(), TimeLimit(1)
    assert as_criteria(None) == ()
    assert as_criteria(one) == (one,)
    assert as_criteria([one, other]) == (one, other)
    assert as_criteria(c for c in (one, other)) == (one, other)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            EarlyStopping,
            r"^stopping: expected criteria .*, got <class .*>; write EarlyStopping\(\), an instance$",
        ),
        ([EarlyStopping(), 5], r"^stopping: expected criteria such as .*, got 5; pass one, or a list of them$"),
    ],
)
def test_values_that_are_not_stopping_criteria_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        as_criteria(given)


def test_a_user_defined_criterion_needs_two_methods() -> None:
    class Half(Stopping, abstract=True):
        pass

    with pytest.raises(NotImplementedError, match="Half needs a monitored method"):
        Half().monitored(["loss"])
    with pytest.raises(NotImplementedError, match="Half needs a judge method"):
        Half().judge({}, {})


def test_the_reason_for_stopping_says_if_the_monitored_value_was_never_a_number() -> None:
    """The area under the curve of a validation set of one class is NaN in every epoch."""
    X = np.arange(12.0).reshape(6, 2)
    net = gn.Network([gn.Dense(1)], 2, device="cpu")
    history = net.fit(
        X, np.arange(6) % 2, loss=gn.BinaryCrossEntropy(), optimizer=gn.SGD(0.01), validation=(X, np.zeros(6)),
        metrics=["auc"], stopping=gn.EarlyStopping(2, monitor="validation_auc"), epochs=5,
    )  # fmt: skip
    assert history.stopped == "EarlyStopping(patience=2, monitor='validation_auc'): validation_auc is not a number"
    assert history.epochs == 2


def test_only_the_reason_of_a_model_without_numbers_says_so() -> None:
    criterion = EarlyStopping(1)
    state, reasons = criterion.start(2), []
    for record in records(loss=[[1, NAN], [1, NAN]]):
        criterion.judge(state, record)
        reasons = [criterion.reason_for(k, state, record) for k in range(2)]
    assert reasons == ["EarlyStopping(patience=1)", "EarlyStopping(patience=1): loss is not a number"]
