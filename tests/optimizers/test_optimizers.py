"""Every optimizer in every form is the same on every backend, alone or in a population, in float32 and in a graph."""

import gc
import json
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpunn import optimizers as o
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.formula.tracing import argument_key
from gpunn.backends.reference.backend import Backend
from gpunn.optimizers.base import OptimizerFrame
from gpunn.schedules import Cosine
from gpunn.value import from_json, to_json
from tests.optimizers.runs import FORMS, SHAPES, before_step, flat, new_store, several, trajectory, write

forms = pytest.mark.parametrize("form", FORMS)


@forms
def test_an_optimizer_takes_the_same_steps_on_every_backend(form: str, backend: Any) -> None:
    found = trajectory(backend, FORMS[form], new_store(backend), 30)
    plain = Backend()
    expected = trajectory(plain, FORMS[form], new_store(plain), 30)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    assert np.abs(found[-1] - found[0]).max() > 0.01


@forms
def test_an_optimizer_treats_a_model_of_a_population_as_a_single_network(form: str, backend: Any) -> None:
    optimizer = several(FORMS[form])
    found = trajectory(backend, optimizer, new_store(backend, models=3), 30)
    for k in range(3):
        alone = trajectory(backend, optimizer.of_model(k), new_store(backend, seed=7 + k), 30)
        np.testing.assert_allclose(found[:, k], alone, rtol=0, atol=1e-12)
    assert np.abs(found[-1, 0] - found[-1, 1]).max() > 0.01


def test_a_model_without_momentum_is_not_damped(backend: Any) -> None:
    """Beside a model with momentum and dampening, one without momentum takes plain steps."""
    optimizer = o.SGD(0.05, momentum=(0.8, 0.0), dampening=0.4)
    found = trajectory(backend, optimizer, new_store(backend, models=2), 10)
    alone = trajectory(backend, o.SGD(0.05), new_store(backend, seed=8), 10)
    np.testing.assert_allclose(found[:, 1], alone, rtol=0, atol=1e-13)


@forms
def test_an_optimizer_with_one_number_for_all_models_serves_a_population(form: str, backend: Any) -> None:
    found = trajectory(backend, FORMS[form], new_store(backend, models=2), 5)
    for k in range(2):
        alone = trajectory(backend, FORMS[form], new_store(backend, seed=7 + k), 5)
        np.testing.assert_allclose(found[:, k], alone, rtol=0, atol=1e-12)


@forms
def test_an_optimizer_in_float32_agrees_with_float64(form: str, backend: Any) -> None:
    """No large array is combined with a float64 number, and a population rounds as its members do."""
    optimizer = several(FORMS[form])
    store, large = new_store(backend, "float32", models=3), []
    run = backend.elementwise

    def watched(formula: Any, inputs: Any, outputs: Any) -> None:
        if outputs[0].size > 3:
            large.append(formula.trace(tuple(argument_key(a) for a in inputs)))
        run(formula, inputs, outputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "elementwise", watched)
        found = trajectory(backend, optimizer, store, 20)
    assert {str(node.dtype) for program in large for node in program.nodes} == {"float32"}
    assert all(moment.dtype == np.float32 for moment in OptimizerFrame(backend, store, optimizer).moments.values())
    for k in range(3):
        alone = trajectory(backend, optimizer.of_model(k), new_store(backend, "float32", seed=7 + k), 20)
        exact = trajectory(backend, optimizer.of_model(k), new_store(backend, seed=7 + k), 20)
        np.testing.assert_allclose(found[:, k], alone, rtol=0, atol=2e-6)
        np.testing.assert_allclose(found[:, k], exact, rtol=0, atol=2e-5)


@forms
def test_a_weight_decay_of_zero_is_none_and_padding_stays_zero(form: str) -> None:
    """A decay of zero for one model, or for all, is none; padding stays 0 even at the smallest ε."""
    backend, optimizer = NumpyBackend(), FORMS[form]
    if "eps" in optimizer.field_rules:
        optimizer = replace(optimizer, eps=1e-30)
    store = new_store(backend, "float32")
    trajectory(backend, optimizer, store, 5)
    holes = np.ones(store.values.shape, bool)
    for name, shape in SHAPES.items():
        start = (store.views[name].ctypes.data - store.values.ctypes.data) // 4
        holes[start : start + int(np.prod(shape))] = False
    assert holes.any() and not store.values[holes].any() and np.isfinite(store.values).all()
    plain = replace(FORMS[form], weight_decay=0.0)
    none = replace(FORMS[form], weight_decay=(0.0, 0.0))
    assert [len(OptimizerFrame(backend, new_store(backend, models=2), p).parts) for p in (plain, none)] == [1, 1]


@pytest.mark.parametrize("form", [form for form, optimizer in FORMS.items() if optimizer.weight_decay])
def test_the_weight_decay_of_an_optimizer_spares_offsets(form: str) -> None:
    backend = NumpyBackend()
    store, same = new_store(backend), new_store(backend)
    trajectory(backend, FORMS[form], store, 5)
    trajectory(backend, replace(FORMS[form], weight_decay=0.0), same, 5)
    np.testing.assert_array_equal(store.views["0.b"], same.views["0.b"])
    assert all(np.abs(store.views[name] - same.views[name]).max() > 1e-4 for name in ("0.W", "1.W"))


def test_an_optimizer_has_one_part_if_all_parameters_decay() -> None:
    backend = NumpyBackend()
    store = new_store(backend)
    assert [p.W.size for p in OptimizerFrame(backend, store, o.AdamW()).parts] == [
        store.decaying, store.values.size - store.decaying,
    ]  # fmt: skip
    store.parameters = {name: p for name, p in store.parameters.items() if p.decay}
    assert len(OptimizerFrame(backend, store, o.AdamW()).parts) == 1


# Cost


@forms
def test_a_captured_update_replays_with_the_current_rate_and_count(form: str, strict: Any) -> None:
    """Nothing is transferred, allocated or waited for; a replay reads the current gradient, rate and count."""
    optimizer = several(FORMS[form])
    store = new_store(strict, models=3)
    t = OptimizerFrame(strict, store, optimizer)
    expected = trajectory(strict, optimizer, new_store(strict, models=3), 8)
    before_step(strict, t, 0)
    optimizer.update(t)
    cupy, stream = strict.xp, strict.xp.cuda.Stream(non_blocking=True)
    cupy.counters.reset()
    with stream:
        stream.begin_capture()
        optimizer.update(t)
        graph = stream.end_capture()
    counts = cupy.counters.snapshot()
    assert counts["transfers"] == counts["synchronisations"] == counts["allocations"] == 0
    assert counts["launches"] <= 3
    for step in range(1, 8):
        before_step(strict, t, step)
        graph.launch(stream)
        np.testing.assert_allclose(flat(strict, store), expected[step], rtol=0, atol=1e-13)


@forms
def test_an_optimizer_allocates_nothing_in_later_steps(form: str) -> None:
    backend = NumpyBackend()
    store = new_store(backend)
    t = OptimizerFrame(backend, store, FORMS[form])
    before_step(backend, t, 0)

    def steps(count: int) -> int:
        for _ in range(count):
            FORMS[form].update(t)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = steps(10)
        assert steps(200) - before < 1000
    finally:
        tracemalloc.stop()


def test_an_optimizer_has_only_the_moments_that_its_form_needs() -> None:
    backend = NumpyBackend()
    names = {form: set(OptimizerFrame(backend, new_store(backend), x).moments) for form, x in FORMS.items()}
    assert names["SGD"] == set() and names["SGD momentum"] == {"v"} and names["Lion"] == {"m"}
    assert names["RMSprop"] == {"v"} and names["RMSprop both"] == {"v", "m", "b"}
    assert names["Adam"] == {"m", "v"} and names["Adam amsgrad"] == {"m", "v", "largest"}


# State


@forms
def test_an_optimizer_resumes_from_its_state(form: str, backend: Any) -> None:
    optimizer = several(FORMS[form])
    whole = trajectory(backend, optimizer, new_store(backend, models=3), 8)
    store = new_store(backend, models=3)
    t = OptimizerFrame(backend, store, optimizer)
    for step in range(4):
        before_step(backend, t, step)
        optimizer.update(t)
    saved = {name: backend.to_host(array) for name, array in t.state().items()}
    values = backend.to_host(store.values)
    resumed = new_store(backend, models=3)
    u = OptimizerFrame(backend, resumed, optimizer)
    write(backend, values, resumed.values)
    assert set(u.state()) == set(saved)
    for name, array in u.state().items():
        write(backend, saved[name], array)
    assert float(backend.to_host(u.count)[0]) == 4.0
    for step in range(4, 8):
        before_step(backend, u, step)
        optimizer.update(u)
    np.testing.assert_array_equal(flat(backend, resumed), whole[-1])


def test_a_new_optimizer_frame_has_its_rate_count_and_moments(backend: Any) -> None:
    t = OptimizerFrame(backend, new_store(backend, "float32", models=2), o.Adam((0.5, 0.25)))
    assert backend.to_host(t.rate).tolist() == [[0.5], [0.25]] and t.rate.dtype == np.float32
    assert backend.to_host(t.count).tolist() == [1.0] and t.count.dtype == np.float64
    t = OptimizerFrame(backend, new_store(backend), o.Adam(Cosine(0.5, 10)))
    assert backend.to_host(t.rate).tolist() == [0.0]
    t = OptimizerFrame(backend, new_store(backend, models=2), o.Adagrad(initial_accumulator_value=(0.5, 0.25)))
    assert backend.to_host(t.moments["s"]).mean(axis=-1).tolist() == [0.5, 0.25]


@forms
def test_an_optimizer_is_stored_as_json_printed_as_code_and_hashed(form: str) -> None:
    for optimizer in (FORMS[form], several(FORMS[form])):
        assert from_json(json.loads(json.dumps(to_json(optimizer)))) == optimizer
        assert eval(repr(optimizer), {**vars(o), "Power": __import__("gpunn.schedules").schedules.Power}) == optimizer
        assert hash(optimizer) == hash(replace(optimizer))
