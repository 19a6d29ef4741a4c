"""Schedules: their values compared with formulas and with PyTorch, sums, tables, plateaus, errors."""

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpunn import schedules as s
from gpunn.errors import ConfigurationError
from gpunn.value import from_json, to_json

ALL: list[s.Schedule] = [
    s.Constant(0.1), s.Sequence((0.3, 0.2, 0.1)), s.InverseTime(0.5, 0.1), s.Power(0.5, 0.7), s.Exponential(0.5, 0.9),
    s.StepDecay(0.5, 3), s.Cosine(0.5, 10, 0.1), s.Warmup(5, s.Cosine(0.5, 10)), s.OneCycle(0.5, 20, anneal="linear"),
]  # fmt: skip


def values(schedule: Callable[[int], float], count: int) -> list[float]:
    return [schedule(t) for t in range(count)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (s.Constant(0.1), [0.1] * 5),
        (s.Sequence([0.3, 0.2, 0.1]), [0.3, 0.2, 0.1]),
        (s.Sequence(0.5), [0.5]),
        (s.InverseTime(0.6, 0.5), [0.6, 0.4, 0.3, 0.24]),
        (s.InverseTime(0.6), [0.6, 0.3, 0.2, 0.15]),
        (s.Power(0.6), [0.6, 0.3, 0.2, 0.15]),
        (s.Power(0.6, 0.5), [0.6, 0.6 / math.sqrt(2), 0.6 / math.sqrt(3), 0.3]),
        (s.Exponential(0.8, 0.5), [0.8, 0.4, 0.2, 0.1]),
        (s.StepDecay(0.8, 2, 0.5), [0.8, 0.8, 0.4, 0.4, 0.2]),
        (s.Cosine(0.8, 4, 0.4), [0.8, 0.6 + 0.2 / math.sqrt(2), 0.6, 0.6 - 0.2 / math.sqrt(2), 0.4, 0.4, 0.4]),
        (s.Warmup(4, 0.8), [0.0, 0.2, 0.4, 0.6, 0.8, 0.8]),
        (s.Warmup(2, s.Exponential(0.8, 0.5), start_factor=0.5), [0.4, 0.6, 0.8, 0.4, 0.2]),
        (s.Warmup(2, lambda t: 0.6 - 0.1 * t), [0.0, 0.3, 0.6, 0.5]),
        (s.OneCycle(1.0, 10, 0.5, "linear", 10.0, 10.0), [0.1, 0.325, 0.55, 0.775, 1.0]),
        (s.OneCycle(1.0, 4, 0.25, "linear", 10.0, 10.0), [1.0, 0.67, 0.34, 0.01, 0.01]),
        (s.OneCycle(1.0, 4, 0.0, "linear", 2.0, 2.0), [0.8125, 0.625, 0.4375, 0.25]),
        (s.OneCycle(1.0, 4, 1.0, "linear", 2.0, 2.0), [0.5, 0.5 + 0.5 / 3, 0.5 + 1.0 / 3, 1.0, 0.25, 0.25]),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],  # the same in every process
)
def test_a_schedule_gives_the_rates_of_its_formula(schedule: s.Schedule, expected: list[float]) -> None:
    np.testing.assert_allclose(values(schedule, len(expected)), expected, rtol=1e-14, atol=1e-16)


STEPS = 40
LIKE_PYTORCH: dict[str, tuple[s.Schedule, Callable[[Any, Any], Any]]] = {
    "ExponentialLR": (s.Exponential(0.5, 0.9), lambda lr, opt: lr.ExponentialLR(opt, 0.9)),
    "StepLR": (s.StepDecay(0.5, 7, 0.3), lambda lr, opt: lr.StepLR(opt, 7, 0.3)),
    "CosineAnnealingLR": (s.Cosine(0.5, STEPS, 0.1), lambda lr, opt: lr.CosineAnnealingLR(opt, STEPS, 0.1)),
    "OneCycleLR": (s.OneCycle(0.5, STEPS), lambda lr, opt: lr.OneCycleLR(opt, 0.5, STEPS)),
    "OneCycleLR linear": (
        s.OneCycle(0.5, STEPS, 0.45, "linear", 10.0, 100.0),
        lambda lr, opt: lr.OneCycleLR(opt, 0.5, STEPS, None, None, 0.45, "linear", True, 0.85, 0.95, 10.0, 100.0),
    ),
    "LinearLR and CosineAnnealingLR": (
        s.Warmup(10, s.Cosine(0.5, STEPS), start_factor=0.25),
        lambda lr, opt: lr.SequentialLR(
            opt, [lr.LinearLR(opt, 0.25, 1.0, 10), lr.CosineAnnealingLR(opt, STEPS)], milestones=[10]
        ),
    ),
    "LambdaLR": (s.InverseTime(0.5, 0.3), lambda lr, opt: lr.LambdaLR(opt, lambda t: 1 / (1 + 0.3 * t))),
}


@pytest.mark.parametrize("name", LIKE_PYTORCH)
def test_a_schedule_agrees_with_that_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `peers`)")
    schedule, make = LIKE_PYTORCH[name]
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(torch.optim.lr_scheduler, theirs)
        found = []
        for _ in range(STEPS):
            found.append(theirs.param_groups[0]["lr"])
            theirs.step()
            if len(found) < STEPS:
                scheduler.step()
    np.testing.assert_allclose(values(schedule, STEPS), found, rtol=1e-12)


@pytest.mark.parametrize("t", [1000, 100_000])
@pytest.mark.parametrize("schedule", [s.InverseTime(0.5, 0.2), s.Power(0.5), s.Power(0.5, 0.75), s.Power(0.5, 0.51)])
def test_schedules_that_claim_the_theorem_satisfy_its_sums(schedule: s.Schedule, t: int) -> None:
    """S9: Ση = ∞ and Ση² < ∞. From t to 2t the sum grows by at least a constant, that of squares by less and less."""
    rates = s.table(schedule, t, t)[:, 0]
    squares = rates**2
    assert rates.sum() >= 0.499 * math.log(2) * min(1.0, 1 / getattr(schedule, "decay", 1.0))
    following = s.table(schedule, 2 * t, 2 * t)[:, 0]
    assert (following**2).sum() < 0.999 * squares.sum()  # a geometric series over the doublings
    assert following.sum() > 0.999 * rates.sum()


@pytest.mark.parametrize(
    ("schedule", "diverges", "squares_converge"),
    [
        (s.Constant(0.1), True, False),
        (s.Power(0.5, 0.5), True, False),
        (s.Power(0.5, 1.1), False, True),
        (s.Exponential(0.5, 0.99), False, True),
    ],
    ids=str,
)
def test_schedules_that_break_the_sums_of_the_theorem_do_not_claim_them(
    schedule: s.Schedule, diverges: bool, squares_converge: bool
) -> None:
    a, b = s.table(schedule, 10_000, 10_000)[:, 0], s.table(schedule, 20_000, 20_000)[:, 0]
    assert (b.sum() > 0.999 * a.sum() > 0.0) == diverges
    assert ((b**2).sum() < 0.999 * (a**2).sum() or (b**2).sum() == 0.0) == squares_converge
    assert "Satisfies" not in (type(schedule).__doc__ or "") or isinstance(schedule, s.Power)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_a_schedule_is_stored_as_json_and_printed_as_code(schedule: s.Schedule) -> None:
    assert from_json(json.loads(json.dumps(to_json(schedule)))) == schedule
    assert eval(repr(schedule), vars(s)) == schedule


def test_table_lists_the_rates_of_steps_and_models() -> None:
    found = s.table(s.Exponential(0.8, 0.5), 1, 3)
    assert found.dtype == np.float64 and found.tolist() == [[0.4], [0.2], [0.1]]
    assert s.table(0.5, 7, 2).tolist() == [[0.5], [0.5]]
    assert s.table(0.5, 0, 1, 3).tolist() == [[0.5, 0.5, 0.5]]
    mixed = (0.5, s.Exponential(0.8, 0.5), lambda t: 0.1 * t)
    assert s.table(mixed, 1, 2, 3).tolist() == [[0.5, 0.4, 0.1], [0.5, 0.2, 0.2]]
    assert s.table(mixed, 1, 0, 3).shape == (0, 3)
    asked = []
    s.table(lambda t: asked.append(t) or 1.0, 5, 3)
    assert asked == [5, 6, 7]


@pytest.mark.parametrize(
    ("rate", "start", "message"),
    [
        (lambda t: 1.0 - t, 0, "rate at step 2: expected a number with 0 <= value, got -1.0"),
        (lambda t: math.nan if t == 3 else 1.0, 1, "rate at step 3: expected a number with 0 <= value, got nan"),
        (lambda t: None, 4, "rate at step 4: expected a number with 0 <= value, got None"),
        (s.Sequence([0.1, 0.2]), 0, r"Sequence: expected a rate for step 2, counted from 0, got 2 rates; list more"),
        (s.Warmup(2, s.Sequence([0.1, 0.2])), 2, "Sequence: expected a rate for step 2, counted from 0, got 2 rates"),
        ((0.1, 0.2), 0, "rate: expected one rate, got 2; give one for each model"),
    ],
)
def test_table_refuses_rates_that_are_not_numbers_from_0(rate: Any, start: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        s.table(rate, start, 3)


def test_table_refuses_rates_for_another_number_of_models() -> None:
    with pytest.raises(ConfigurationError, match="rate: expected one rate or 3 of them, got 2"):
        s.table((0.1, 0.2), 0, 1, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: s.Constant(-1), "Constant rate: expected a number with 0 <= value, got -1"),
        (lambda: s.Sequence([0.1, -0.1]), r"Sequence rates\[1\]: expected a number with 0 <= value, got -0.1"),
        (lambda: s.InverseTime(0.1, 0), "InverseTime decay: expected a number with 0 < value, got 0"),
        (lambda: s.Power(0.1, -1), "Power p: expected a number with 0 <= value, got -1"),
        (lambda: s.Exponential(0.1, 1.1), "Exponential gamma: expected a number with 0 <= value <= 1, got 1.1"),
        (lambda: s.StepDecay(0.1, 0), "StepDecay steps: expected a whole number >= 1, got 0"),
        (lambda: s.Cosine(0.1, 2.5), "Cosine steps: expected a whole number >= 1, got 2.5"),
        (lambda: s.Cosine(0.1, 5, math.inf), "Cosine final: expected a number with 0 <= value, got inf"),
        (lambda: s.Warmup(5, "fast"), "Warmup then: expected a number with 0 <= value, got 'fast'"),
        (lambda: s.Warmup(5, 0.1, 2.0), "Warmup start_factor: expected a number with 0 <= value <= 1, got 2.0"),
        (lambda: s.OneCycle(0.1, 5, anneal="exp"), "OneCycle anneal: expected one of 'cos', 'linear', got 'exp'"),
        (lambda: s.OneCycle(0.1, 5, div_factor=0), "OneCycle div_factor: expected a number with 0 < value, got 0"),
        (lambda: s.ReduceOnPlateau(1.0), "ReduceOnPlateau factor: expected a number with 0 <= value < 1, got 1.0"),
        (lambda: s.ReduceOnPlateau(patience=-1), "ReduceOnPlateau patience: expected a whole number >= 0, got -1"),
        (lambda: s.ReduceOnPlateau(mode="up"), "ReduceOnPlateau mode: expected one of 'min', 'max', got 'up'"),
    ],
)
def test_schedules_refuse_bad_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_a_user_defined_schedule_needs_a_call_method() -> None:
    class Lazy(s.Schedule, abstract=True):
        pass

    with pytest.raises(NotImplementedError, match="Lazy needs a __call__ method"):
        Lazy()(0)


# Plateaus

LOSSES = [5, 4, 4, 4, 4, 3.9999, 3, 3, 3, 3, 3, 3, 3, math.nan, math.nan, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("patience", "cooldown"), [(0, 0), (2, 0), (1, 3), (3, 1)])
def test_reduce_on_plateau_agrees_with_pytorch(patience: int, cooldown: int, sign: float) -> None:
    """For positive values; on negative ones PyTorch's relative threshold works the other way round."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `peers`)")
    mode, watched = ("min", LOSSES) if sign > 0 else ("max", [10.0 - x for x in LOSSES])
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, mode, 0.5, patience, cooldown=cooldown)
    plateau = s.ReduceOnPlateau(0.5, patience, cooldown=cooldown, mode=mode)
    state = plateau.begin()
    for value in watched:
        scheduler.step(value)
        assert plateau.observe(state, value) == [pytest.approx(theirs.param_groups[0]["lr"], rel=1e-6)]
    assert state["factor"][0] < 0.6


def test_reduce_on_plateau_lowers_the_rate_of_each_model_by_itself() -> None:
    plateau = s.ReduceOnPlateau(0.5, patience=1, minimum=0.2)
    state, alone = plateau.begin(2), [plateau.begin(), plateau.begin()]
    for epoch in range(12):
        pair = [1.0 / (epoch + 1), 1.0]
        state = json.loads(json.dumps(state))
        factors = plateau.observe(state, np.array(pair))
        assert factors == [plateau.observe(one, value)[0] for one, value in zip(alone, pair, strict=True)]
    assert state["factor"] == [1.0, 0.2]


def test_reduce_on_plateau_takes_values_below_zero_and_not_finite() -> None:
    """An unchanged value is no improvement, whatever its sign; the state holds no infinity, which JSON lacks."""
    plateau = s.ReduceOnPlateau(0.5, patience=1)
    state = plateau.begin()
    found = [plateau.observe(state, value)[0] for value in (math.inf, -1.0, -1.0, -1.0, -1.0, -2.0)]
    assert found == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5] and state["best"] == [-2.0]
    json.dumps(state, allow_nan=False)


def test_reduce_on_plateau_refuses_another_number_of_models() -> None:
    plateau = s.ReduceOnPlateau()
    with pytest.raises(ConfigurationError, match="ReduceOnPlateau: expected 2 values, one for each model, got 3"):
        plateau.observe(plateau.begin(2), [1.0, 2.0, 3.0])
