"""Penalties, clipping and limits: their gradients, one step of each, populations, cost, errors. S12 is here."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpunn import optimizers as o
from gpunn import regularization as r
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.errors import ConfigurationError
from gpunn.optimizers.base import OptimizerFrame
from gpunn.parameters import ParameterStore
from gpunn.value import from_json, to_json
from tests.optimizers.runs import SHAPES, flat, new_store, write

PENALTIES = [r.L2(0.3), r.HalfL2(0.3), r.L1(0.3)]
ALL = [*PENALTIES, r.MaxNorm(0.7), r.ClipNorm(0.5), r.ClipValue(0.2)]
THREE = (0.3, 0.0, 1.5)
DECAYING = np.concatenate([np.full(np.prod(shape), not name.endswith("b")) for name, shape in SHAPES.items()])


def prepared(backend: Any, models: int | None = None, dtype: str = "float64", seed: int = 7) -> ParameterStore:
    """A store with gradients: those of member k are those of the network of seed + k."""
    store = new_store(backend, dtype, models, seed)
    for name, shape in SHAPES.items():
        draws = [np.random.default_rng([seed + k, len(name)]).normal(size=shape) for k in range(models or 1)]
        write(backend, np.stack(draws) if models else draws[0], store.gradient_views[name])
    return store


def gradients(backend: Any, store: ParameterStore) -> np.ndarray:
    lead = () if store.models is None else (store.models,)
    views = [backend.to_host(store.gradient_views[n]).reshape(*lead, -1) for n in SHAPES]
    return np.concatenate(views, axis=-1)


def penalty_of(backend: Any, store: ParameterStore, *parts: r.Regularization) -> np.ndarray:
    out = backend.zeros(() if store.models is None else (store.models,), store.dtype)
    r.Constraints(backend, store, list(parts)).penalty(out)
    host: np.ndarray = backend.to_host(out)
    return host


def apply(backend: Any, store: ParameterStore, part: r.Regularization) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and weights after both hooks."""
    constraints = r.Constraints(backend, store, part)
    constraints.before()
    constraints.after()
    return gradients(backend, store), flat(backend, store)


# S12: weight decay


def test_a_step_with_an_l2_penalty_is_that_of_the_notes(backend: Any) -> None:
    """W ← W - η (∂L/∂W + 2 λ W), the notes' (6.63) from the penalty λ ‖W‖² of (6.60); biases do not decay."""
    rate, strength = 0.1, 0.3
    store = prepared(backend)
    W, g = flat(backend, store), gradients(backend, store)
    t = OptimizerFrame(backend, store, o.SGD(rate))
    r.Constraints(backend, store, r.L2(strength)).before()
    o.SGD(rate).update(t)
    np.testing.assert_allclose(flat(backend, store), W - rate * (g + 2 * strength * W * DECAYING), rtol=1e-14)


@pytest.mark.parametrize("name", ["L2", "HalfL2", "weight_decay", "decoupled"])
def test_every_kind_of_weight_decay_of_the_notes_can_be_chosen(name: str) -> None:
    """λ‖W‖² is twice ½λ‖W‖², which is `weight_decay`; with plain steps the decoupled kind is the same again."""
    backend, rate, strength = NumpyBackend(), 0.1, 0.3
    kinds: dict[str, tuple[o.Optimizer, Any]] = {
        "L2": (o.SGD(rate), r.L2(strength / 2)),
        "HalfL2": (o.SGD(rate), r.HalfL2(strength)),
        "weight_decay": (o.SGD(rate, weight_decay=strength), None),
        "decoupled": (o.AdamW(rate, weight_decay=strength), None),
    }
    optimizer, penalty = kinds[name]
    store = prepared(backend)
    W, g = flat(backend, store), gradients(backend, store)
    t = OptimizerFrame(backend, store, optimizer)
    r.Constraints(backend, store, penalty).before()
    optimizer.update(t)
    step = g / (np.abs(g) + 1e-8) if name == "decoupled" else g  # Adam's first step, which knows no λ
    np.testing.assert_allclose(flat(backend, store), W - rate * (step + strength * W * DECAYING), rtol=1e-12)


# What each does


@pytest.mark.parametrize("part", PENALTIES, ids=str)
def test_a_penalty_adds_its_exact_gradient(part: r.Penalty) -> None:
    backend = NumpyBackend()
    store = prepared(backend)
    before = gradients(backend, store)
    r.Constraints(backend, store, part).before()
    added = gradients(backend, store) - before
    numeric, h = [], 1e-6
    for name in SHAPES:
        view = store.views[name]
        for index in np.ndindex(view.shape):
            value = view[index]
            view[index] = value + h
            above = penalty_of(backend, store, part)
            view[index] = value - h
            numeric.append(float(above - penalty_of(backend, store, part)) / (2 * h))
            view[index] = value
    np.testing.assert_allclose(added, numeric, atol=1e-8)


def test_penalties_have_the_values_of_their_formulas(backend: Any) -> None:
    store = prepared(backend)
    W = flat(backend, store)[DECAYING]
    expected = {r.L2(0.3): 0.3 * (W @ W), r.HalfL2(0.3): 0.15 * (W @ W), r.L1(0.3): 0.3 * np.abs(W).sum()}
    for part, value in expected.items():
        assert penalty_of(backend, store, part) == pytest.approx(value, rel=1e-14)
    several = penalty_of(backend, store, *expected, r.MaxNorm(1.0), r.ClipNorm(1.0))
    assert several == pytest.approx(sum(expected.values()), rel=1e-14)


def test_an_l1_penalty_does_not_move_weights_that_are_zero(backend: Any) -> None:
    store = prepared(backend)
    write(backend, np.zeros((5, 3)), store.views["0.W"])
    before = gradients(backend, store)
    after, _ = apply(backend, store, r.L1(0.3))
    np.testing.assert_array_equal(after[:15], before[:15])
    np.testing.assert_allclose(np.abs(after - before)[18:], 0.3, rtol=1e-14)


def test_max_norm_shortens_only_columns_beyond_the_limit(backend: Any) -> None:
    """Columns beyond the limit get its length, the others keep their bits; biases have no limit."""
    store = prepared(backend)
    before = {name: backend.to_host(view) for name, view in store.views.items()}
    lengths = {name: np.linalg.norm(before[name], axis=0) for name in ("0.W", "1.W")}
    limit = float(np.median(np.concatenate(list(lengths.values())))) * 0.999
    apply(backend, store, r.MaxNorm(limit))
    assert 0 < sum((norms > limit).sum() for norms in lengths.values()) < 7
    for name, norms in lengths.items():
        after, long = backend.to_host(store.views[name]), norms > limit
        np.testing.assert_array_equal(after[:, ~long], before[name][:, ~long])
        np.testing.assert_allclose(after[:, long], (before[name] * limit / norms)[:, long], rtol=1e-14)
    np.testing.assert_array_equal(backend.to_host(store.views["0.b"]), before["0.b"])


def test_clip_norm_shortens_only_gradients_beyond_the_limit(backend: Any) -> None:
    store = prepared(backend)
    before = gradients(backend, store)
    norm = float(np.linalg.norm(before))
    same, _ = apply(backend, store, r.ClipNorm(1.01 * norm))
    np.testing.assert_array_equal(same, before)
    after, _ = apply(backend, store, r.ClipNorm(0.5))
    np.testing.assert_allclose(after, before * 0.5 / norm, rtol=1e-14)


def test_clip_value_limits_each_number_of_a_gradient(backend: Any) -> None:
    store = prepared(backend)
    before = gradients(backend, store)
    after, _ = apply(backend, store, r.ClipValue(0.2))
    np.testing.assert_array_equal(after, np.clip(before, -0.2, 0.2))


def test_penalties_and_limits_act_in_the_order_of_their_list() -> None:
    backend = NumpyBackend()
    first, second, third = (prepared(backend) for _ in range(3))
    before = gradients(backend, first)
    W, length = flat(backend, first) * DECAYING, np.linalg.norm
    r.Constraints(backend, first, [r.HalfL2(0.3), r.ClipNorm(0.5)]).before()
    total = before + 0.3 * W
    np.testing.assert_allclose(gradients(backend, first), total * 0.5 / length(total), rtol=1e-13)
    r.Constraints(backend, second, [r.ClipNorm(0.5), r.HalfL2(0.3)]).before()
    np.testing.assert_allclose(gradients(backend, second), before * 0.5 / length(before) + 0.3 * W, rtol=1e-13)
    r.Constraints(backend, third, r.HalfL2(0.3), clip_norm=0.5, clip_value=0.4).before()
    clipped = np.clip(total, -0.4, 0.4)
    np.testing.assert_allclose(gradients(backend, third), clipped * 0.5 / length(clipped), rtol=1e-13)


def test_no_regularization_does_nothing() -> None:
    backend = NumpyBackend()
    store = prepared(backend)
    for none in (None, [], [None]):
        assert r.Constraints(backend, store, none).frames == ()
    bare = ParameterStore({}, {}, backend, "float64", (0,), None)
    constraints = r.Constraints(backend, bare, [r.L2(0.1), r.MaxNorm(1.0)])
    constraints.before()
    constraints.after()
    out = np.zeros(())
    constraints.penalty(out)
    assert out == 0.0


@pytest.mark.parametrize("kind", [type(part) for part in ALL], ids=lambda kind: kind.__name__)
def test_regularization_treats_a_model_of_a_population_as_a_single_network(
    kind: Callable[[Any], r.Regularization], backend: Any
) -> None:
    numbers = tuple(n + 0.1 for n in THREE)
    together = prepared(backend, models=3)
    penalties = penalty_of(backend, together, kind(numbers))
    found = apply(backend, together, kind(numbers))
    for k, number in enumerate(numbers):
        alone = prepared(backend, seed=7 + k)
        assert penalties[k] == pytest.approx(float(penalty_of(backend, alone, kind(number))), rel=1e-13)
        for got, expected in zip(found, apply(backend, alone, kind(number)), strict=True):
            np.testing.assert_allclose(got[k], expected, rtol=1e-13)
    same = prepared(backend, models=3)
    one = apply(backend, same, kind(0.4))
    np.testing.assert_allclose(one[0][0], apply(backend, prepared(backend), kind(0.4))[0], rtol=1e-13)


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("part", ALL, ids=str)
def test_regularization_in_float32_agrees_with_float64(
    part: r.Regularization, models: int | None, backend: Any
) -> None:
    single, double = prepared(backend, models, "float32"), prepared(backend, models)
    for got, expected in zip(apply(backend, single, part), apply(backend, double, part), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("models", [None, 3])
def test_regularization_can_be_captured_in_a_graph(models: int | None, strict: Any) -> None:
    """Nothing is transferred, allocated or waited for; a replay reads the current weights and gradients."""
    store, expected = prepared(strict, models), prepared(strict, models, seed=50)
    numbers: Any = THREE if models else 0.3
    parts = [r.L2(numbers), r.HalfL2(0.1), r.L1(0.1), r.MaxNorm(0.7), r.ClipNorm(0.5), r.ClipValue(0.2)]
    constraints, out = r.Constraints(strict, store, parts), strict.zeros((models,) if models else (), np.float64)

    def step() -> None:
        constraints.before()
        constraints.penalty(out)
        constraints.after()

    step()
    cupy, stream = strict.xp, strict.xp.cuda.Stream(non_blocking=True)
    cupy.counters.reset()
    with stream:
        stream.begin_capture()
        step()
        graph = stream.end_capture()
    counts = cupy.counters.snapshot()
    assert counts["transfers"] == counts["synchronisations"] == counts["allocations"] == 0
    write(strict, strict.to_host(expected.values), store.values)
    write(strict, strict.to_host(expected.gradients), store.gradients)
    graph.launch(stream)
    again = r.Constraints(strict, expected, parts)
    again.before()
    again.after()
    np.testing.assert_array_equal(gradients(strict, store), gradients(strict, expected))
    np.testing.assert_array_equal(flat(strict, store), flat(strict, expected))


@pytest.mark.parametrize("part", [*ALL, r.L2(THREE)], ids=str)
def test_a_penalty_is_stored_as_json_and_printed_as_code(part: r.Regularization) -> None:
    assert from_json(json.loads(json.dumps(to_json(part)))) == part
    assert eval(repr(part), vars(r)) == part


# Errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: r.L2(-1), "L2 strength: expected a number with 0 <= value, got -1"),
        (lambda: r.HalfL2(float("nan")), "HalfL2 strength: expected a number with 0 <= value, got nan"),
        (lambda: r.L1([0.1, "x"]), r"L1 strength\[1\]: expected a number with 0 <= value, got 'x'"),
        (lambda: r.MaxNorm(0), "MaxNorm limit: expected a number with 1e-15 <= value <= 1e\\+15, got 0"),
        (lambda: r.ClipNorm(0), "ClipNorm limit: expected a number with 1e-15 <= value <= 1e\\+15, got 0"),
        (lambda: r.ClipValue(0), "ClipValue limit: expected a number with 0 < value, got 0"),
        (lambda: r.as_list(0.1), "regularization: expected L2, HalfL2, L1, MaxNorm, ClipNorm or ClipValue, or a list"),
        (lambda: r.as_list([r.L2(0.1), "L1"]), "regularization: expected L2.* got 'L1'; see gpunn.regularization"),
    ],
)
def test_penalties_and_limits_refuse_bad_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize("models", [None, 2])
def test_penalties_refuse_another_count_of_numbers_than_of_models(models: int | None) -> None:
    backend = NumpyBackend()
    wanted = f"one number or {models} of them" if models else "one number"
    with pytest.raises(ConfigurationError, match=f"L2 strength: expected {wanted}, got 3; give one for each model"):
        r.Constraints(backend, prepared(backend, models), r.L2(THREE))


def test_a_penalty_frame_names_an_array_that_it_lacks() -> None:
    backend = NumpyBackend()
    (frame,) = r.Constraints(backend, prepared(backend), r.L2(0.1)).frames
    with pytest.raises(AttributeError, match="L2 has no 'limit'"):
        _ = frame.limit
