"""Loops that Numba compiles have the bits of NumPy for every memory layout; when they are compiled."""

import logging
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import backends
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.numba import loops as numba_loops
from gpunn.backends.cpu.numba import store as loop_store
from gpunn.backends.cpu.numba.loops import Loop, LoopFormulas
from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import Formula, argument_key, elementwise
from gpunn.layers.activation import biased_form
from gpunn.layers.pointwise import ReLU
from gpunn.optimizers.adaptive import adagrad
from tests.backends.calls import FAMILIES, POPULATIONS
from tests.backends.calls import calls as calls_of
from tests.backends.comparison import check
from tests.conftest import backend_named

RNG = np.random.default_rng(7)
ODD = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, 3e38, -3e38])
SCALAR, ROW, COLUMN, FULL = (1, 1, 1), (1, 1, 6), (3, 5, 1), (3, 5, 6)


@pytest.fixture
def jit() -> NumpyBackend:
    made: NumpyBackend = backend_named("jit")
    return made


def values(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    """Numbers of both signs; every eighth is NaN, infinite, a zero or another extreme of the format."""
    plain = RNG.standard_normal(shape) * 3
    with np.errstate(over="ignore"):
        return np.where(RNG.random(shape) < 0.125, RNG.choice(ODD, shape), plain).astype(dtype)


def loop_of(formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> Loop | None:
    return Loop.of(formula.trace(tuple(argument_key(a) for a in inputs)), inputs, outputs)


def same_bits(jit: NumpyBackend, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
    """Both write the same; the formula has a loop; and the arrays that are only read stay as they are."""
    assert loop_of(formula, inputs, outputs) is not None
    before = [np.copy(a) for a in (*inputs, *outputs)]
    with np.errstate(all="ignore"):
        NumpyBackend().elementwise(formula, inputs, outputs)
        wanted = [out.copy() for out in outputs]
        for array, old in zip((*inputs, *outputs), before):
            if isinstance(array, np.ndarray):
                array[...] = old
        jit.elementwise(formula, inputs, outputs)
    for out, want in zip(outputs, wanted):
        np.testing.assert_array_equal(out, want)
    for array, old in zip(inputs, before):
        if not any(array is out for out in outputs):
            np.testing.assert_array_equal(array, old)


@elementwise
def everything(xp: Any, a: Any, b: Any, mask: Any) -> Any:
    """A formula of every operation that may stand in a loop."""
    wide = xp.maximum(-a, b) - xp.minimum(a, 0.5) / xp.absolute(b)
    chosen = xp.where((a <= b) & ~mask | (a > 1.0), xp.sqrt(xp.absolute(a)) * b**2, wide + 0.1)
    return chosen, (a >= b) & xp.equal(chosen, chosen) | xp.not_equal(b, 0.25), xp.sign(a) - (b < 2.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("labels", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("shape", [(32, 10), (300, 1), (130, 2), (3, 40, 24)], ids=str)
def test_compiled_cross_entropy_of_few_classes_has_the_bits_of_numpy(
    jit: NumpyBackend, shape: tuple[int, ...], labels: Any, dtype: Any
) -> None:
    target, weight = RNG.integers(0, shape[-1], shape[:-1]).astype(labels), RNG.random((*shape[:-1], 1)).astype(dtype)
    for Z in (RNG.standard_normal(shape).astype(dtype), values(shape, dtype)):
        results = []
        for ops in (NumpyBackend(), jit):
            loss, dZ = np.empty((*shape[:-1], 1), dtype), np.empty(shape, dtype)
            calls: list[Any] = []
            with np.errstate(all="ignore"), ops.recorder.into(calls):
                ops.softmax_cross_entropy(Z, target, 0.0, weight, 1 / 7, loss=loss, dZ=dZ)
            results.append((loss, dZ, len(calls)))
        for got, wanted in zip(results[1][:2], results[0][:2]):
            np.testing.assert_array_equal(got, wanted)
        assert results[1][2] < results[0][2]


def test_a_function_that_stands_in_no_file_is_compiled_without_being_stored() -> None:
    """Numba cannot store the code of a function that stands in no file."""
    numba_compiler = pytest.importorskip("gpunn.backends.cpu.numba.compiler")
    names: dict[str, Any] = {}
    exec("def raised(x):\n    x[0] += 1", names)
    numbers = np.zeros(1)
    numba_compiler._compiled(names["raised"])(numbers)
    assert numbers[0] == 1


def test_compiled_cross_entropy_takes_classes_shared_by_all_models(jit: NumpyBackend) -> None:
    Z, target = RNG.standard_normal((5, 60, 10)).astype(np.float32), RNG.integers(0, 10, 60)
    results = []
    for ops in (NumpyBackend(), jit):
        loss, dZ = np.empty((5, 60, 1), np.float32), np.empty_like(Z)
        ops.softmax_cross_entropy(Z, target, 0.0, None, 1.0, loss=loss, dZ=dZ)
        results.append((loss, dZ))
    for got, wanted in zip(*results):
        np.testing.assert_array_equal(got, wanted)


def test_row_operations_use_numpy_until_a_loop_is_compiled_or_if_numba_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    S, row = np.ones((40, 10), np.float32), np.ones(40, np.float32)
    given = S, np.zeros(40, np.int64), np.float32(1), row
    monkeypatch.delitem(sys.modules, numba_loops.COMPILER, raising=False)
    assert LoopFormulas().row_loops(*given) is None
    monkeypatch.setattr(LoopFormulas, "broken", False)
    monkeypatch.setitem(sys.modules, numba_loops.COMPILER, None)  # importing it fails
    assert LoopFormulas(patient=False).row_loops(*given) is None
    assert LoopFormulas.broken


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("b", [FULL, SCALAR])
@pytest.mark.parametrize("a", [FULL, ROW, COLUMN, (5, 1), (6,)])
def test_a_compiled_formula_of_every_operation_has_the_bits_of_numpy(
    jit: NumpyBackend, a: Any, b: Any, dtype: str
) -> None:
    inputs = values(a, dtype), values(b, dtype), RNG.random(FULL) < 0.5
    outputs = np.empty(FULL, dtype), np.empty(FULL, bool), np.empty(FULL, dtype)
    same_bits(jit, everything, inputs, outputs)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 1), (1, 9), (2, 3, 4, 5), (300, 500)])
def test_a_compiled_loop_has_the_bits_of_numpy_for_arrays_of_any_shape(
    jit: NumpyBackend, shape: tuple[int, ...]
) -> None:
    if shape:
        same_bits(
            jit, formulas.scale_shift, (values(shape), values(shape[-1:]), values((1,))), (np.empty(shape, "f4"),)
        )
    else:
        assert loop_of(formulas.add, (values(()), 1.0), (np.empty((), "f4"),)) is None


def test_a_compiled_loop_takes_weights_that_are_views_of_one_buffer(jit: NumpyBackend) -> None:
    buffer = values((4, 100))
    W, dW = buffer[:, :30].reshape(4, 5, 6), buffer[:, 30:60].reshape(4, 5, 6)
    assert np.shares_memory(W, buffer)
    same_bits(jit, adagrad, (W, dW, (s := np.abs(values((4, 5, 6)))), values((4, 1, 1)), 1e-8, 0.1), (W, s))


def test_a_loop_compiled_for_contiguous_arrays_is_not_used_for_strided_ones(jit: NumpyBackend) -> None:
    """A loop for contiguous rows would read wrong memory of strided arrays."""
    out = np.empty((40, 50), "f4")
    same_bits(jit, formulas.scaled_product, (values((40, 50)), values((40, 50)), 0.5), (out,))
    X, Y = values((40, 100))[:, ::2], values((50, 40)).T
    with jit.quiet():
        jit.elementwise(formulas.scaled_product, (X, Y, 0.5), (out,))
        np.testing.assert_array_equal(out, X * Y * np.float32(0.5))
    assert loop_of(formulas.scaled_product, (X, Y, 0.5), (out,)) is None


def test_an_array_that_a_loop_reads_and_writes_is_one_argument(jit: NumpyBackend) -> None:
    Z, b, other = values((64, 32)), values((1, 32)), values((64, 32))
    relu = biased_form(ReLU().formula)
    inside, outside = loop_of(relu, (Z, b), (Z,)), loop_of(relu, (Z, b), (other,))
    assert inside and outside and len(inside.taken) == 2 and len(outside.taken) == 3
    same_bits(jit, relu, (Z, b), (Z,))
    same_bits(jit, relu, (Z, b), (other,))
    same_bits(jit, formulas.scaled_product, (Z, Z, 2.0), (other,))  # two arguments may also be one array
    same_bits(jit, formulas.scaled_product, (Z, other, 2.0), (np.empty_like(Z),))


@elementwise
def softplus(xp: Any, Z: Any) -> Any:
    return xp.log1p(xp.exp(Z))


@elementwise
def cube(xp: Any, Z: Any) -> Any:
    return Z**3 + Z


@pytest.mark.parametrize("formula", [softplus, cube])
def test_functions_that_libraries_round_differently_are_not_compiled(jit: NumpyBackend, formula: Formula) -> None:
    Z, out = np.linspace(-3, 3, 50, dtype="f4"), np.empty(50, "f4")
    assert loop_of(formula, (Z,), (out,)) is None
    jit.elementwise(formula, (Z,), (out,))
    np.testing.assert_allclose(out, formula(np, Z), rtol=1e-6)


def test_compiled_dropout_has_the_bits_of_numpy(jit: NumpyBackend) -> None:
    bits = RNG.integers(0, 1 << 16, (5, 6), np.uint16)
    same_bits(
        jit,
        formulas.dropout,
        (values((5, 6)), bits, np.array([[40000]], np.uint16), values((1, 1))),
        (np.empty((5, 6), "f4"),),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_operation_on_compiled_loops_agrees_with_the_reference(jit: NumpyBackend, family: str) -> None:
    for call in calls_of(family, POPULATIONS[0]):
        check(jit, call, "float32", strided=True)


@pytest.mark.parametrize("models", [None, 3])
def test_a_training_on_compiled_loops_has_the_bits_of_numpy(
    models: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = gn.Adam(0.01, weight_decay=1e-3)
    X, y = RNG.standard_normal((70, 5)).astype("f4"), RNG.integers(0, 3, 70)
    trained = []
    for name in ("cpu", "jit"):
        monkeypatch.setattr(backends, "_backend", lambda device, name=name: backend_named(name))
        layers = [
            gn.Dense(8, bias=False),
            gn.BatchNorm(activation="relu"),
            gn.Dropout(0.3),
            gn.Dense(6, "leaky_relu"),
            gn.Dense(3),
        ]
        net = gn.Network(layers, inputs=5, models=models, device="cpu")
        history = net.fit(X, y, loss=gn.CrossEntropy(), optimizer=optimizer, epochs=3, batch_size=32)
        trained.append((net.vector.copy(), history["loss"], net.predict(X)))
    for ours, theirs in zip(*trained):
        np.testing.assert_array_equal(ours, theirs)


def test_compiled_loops_allocate_no_memory(jit: NumpyBackend) -> None:
    Z, b = np.ones((64, 64), "f4"), np.zeros((1, 64), "f4")
    relu = biased_form(ReLU().formula)
    for _ in range(3):
        jit.elementwise(relu, (Z, b), (Z,))
    tracemalloc.start()
    try:
        start = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(100):
            jit.elementwise(relu, (Z, b), (Z,))
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now - start < 500 and peak - start < 4000


# When a loop is compiled


def run_and_watch(backend: NumpyBackend, monkeypatch: pytest.MonkeyPatch, calls: int) -> list[int]:
    """The numbers of the calls before which a loop was compiled; checks the result of every call."""
    from gpunn.backends.cpu.numba import compiler as numba_compiler

    compiled: list[int] = []
    done: list[None] = []
    original = numba_compiler.compile_loop

    def watched(source: str, arrays: Any) -> Any:
        compiled.append(len(done))
        return original(source, arrays)

    monkeypatch.setattr(numba_compiler, "compile_loop", watched)
    X, out = values((50, 40)), np.empty((50, 40), "f4")
    while len(done) < calls:
        with backend.quiet():
            backend.elementwise(formulas.scale_shift, (X, X[:1], X[1:2]), (out,))
            np.testing.assert_array_equal(out, X * X[:1] + X[1:2])
        done.append(None)
    return compiled


def test_a_loop_is_compiled_once_numpy_has_taken_as_long_as_compiling_would(
    jit: NumpyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = 2 * (numba_loops.CALL + numba_loops.ELEMENT * 2000)  # of one call
    monkeypatch.setattr(numba_loops, "LOOK", 2 * work)
    monkeypatch.setattr(numba_loops, "FETCHING", 6 * work)
    monkeypatch.setattr(numba_loops, "COMPILING", 10 * work)
    monkeypatch.setattr(numba_loops, "is_stored", lambda source: False)
    assert run_and_watch(NumpyBackend(LoopFormulas()), monkeypatch, 30) == [9]
    monkeypatch.setattr(numba_loops, "is_stored", lambda source: True)
    assert run_and_watch(NumpyBackend(LoopFormulas()), monkeypatch, 30) == [5]
    monkeypatch.setattr(numba_loops, "COMPILER", "not loaded yet")
    monkeypatch.setattr(numba_loops, "LOADING", 20 * work)
    assert run_and_watch(NumpyBackend(LoopFormulas()), monkeypatch, 30) == [19]


def test_a_single_operation_does_not_wait_for_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_loops, "LOOK", 0.1)
    backend = NumpyBackend(LoopFormulas())
    a = values((50, 40))
    with backend.quiet():
        for _ in range(5):
            backend.elementwise(formulas.add, (a, a), (np.empty_like(a),))
    assert backend.formulas.worked == 0.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("patient", [False, True])
def test_a_failing_numba_is_logged_once_and_numpy_goes_on(
    patient: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(source: str, arrays: Any) -> Any:
        raise RuntimeError("no LLVM here")

    pytest.importorskip("numba")
    monkeypatch.setattr("gpunn.backends.cpu.numba.compiler.compile_loop", fail)
    monkeypatch.setattr(LoopFormulas, "broken", False)
    for name in ("LOOK", "FETCHING", "COMPILING", "LOADING"):
        monkeypatch.setattr(numba_loops, name, 1.0)
    backend, X, out = NumpyBackend(LoopFormulas(patient)), np.ones((4, 5), "f4"), np.empty((4, 5), "f4")
    with caplog.at_level(logging.INFO, "gpunn"):
        for _ in range(3):
            backend.elementwise(formulas.scale_shift, (X, X, X), (out,))
            backend.elementwise(formulas.scaled_product, (out, X, 2.0), (out,))
    assert (out == 4).all()
    assert [r.getMessage() for r in caplog.records] == ["formulas stay with NumPy, because Numba fails: no LLVM here"]


@pytest.mark.parametrize(("wanted", "patient"), [(None, True), ("1", False), ("0", None)])
def test_gpunn_jit_decides_whether_loops_are_compiled(
    wanted: str | None, patient: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    if wanted is None:
        monkeypatch.delenv("GPUNN_JIT")
    else:
        monkeypatch.setenv("GPUNN_JIT", wanted)
    made = backends._numba_formulas()
    assert made is None if patient is None else made.patient == patient


def test_the_log_says_if_numba_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("GPUNN_JIT")
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO, "gpunn"):
        assert backends._numba_formulas() is None
    assert "the extra jit, is not installed" in caplog.text


# On disk

PROGRAM = """
import numpy as np
from gpunn.backends.formula import formulas
from gpunn.backends.cpu.numba.compiler import compile_loop
from gpunn.backends.cpu.numba.loops import Loop
X, out = np.full((4, 6), 3.0, "f4"), np.empty((4, 6), "f4")
loop = compile_loop(Loop.of(formulas.scale_shift.trace((X.dtype,) * 3), (X, X, X), (out,)).source, (X, X, X, out))
assert loop(X, X, X, out) and (out == 12).all()
print(sum(loop.stats.cache_hits.values()))
"""


def test_another_process_loads_the_stored_machine_code_of_a_loop(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    told = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert told == ["0\n", "1\n"]


def test_the_text_of_a_loop_is_stored_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not loop_store.is_stored("text")
    path = loop_store.store("text")
    assert path and path.read_text() == "text" and loop_store.is_stored("text") and not loop_store.is_stored("other")
    path.write_text("te")
    assert loop_store.store("text") == path and path.read_text() == "text"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def in_memory(xp: Any, a: Any, b: Any) -> Any:
    return (a - b) * (a + b) * 0.125


def test_without_a_folder_loops_are_compiled_in_memory(
    jit: NumpyBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert loop_store.store("text") is None and not loop_store.is_stored("text")
    X = values((3, 4))
    same_bits(jit, elementwise(in_memory), (X, X[:1]), (np.empty_like(X),))
