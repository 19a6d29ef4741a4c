"""Formulas of single numbers, computed by Python, have the bits of NumPy."""

from typing import Any

import numpy as np
import pytest

from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.scalars import scalar_function
from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import Formula, argument_key, elementwise
from gpunn.backends.reference.backend import Backend
from gpunn.optimizers.adam import adam_scalars, nadam_scalars
from gpunn.training.meters import tally
from gpunn.training.step import after_update


def compiled(formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Any, ...], fallback: Any = None) -> Any:
    traced = formula.trace(tuple(argument_key(a) for a in inputs))
    return scalar_function(traced, inputs, outputs, fallback)


def named(function: Any) -> Formula:
    function.__name__ = "formula"
    return elementwise(function)


def number(value: Any, dtype: str = "float64", shape: tuple[int, ...] = (1,)) -> Any:
    return np.full(shape, value, dtype)


@elementwise
def everything(xp: Any, a: Any, b: Any, mask: Any) -> Any:
    chosen = xp.where((a <= b) & ~mask | (a > 1.0), xp.sqrt(xp.absolute(a)) * b, -a / (b + 0.1))
    return chosen, (a >= b) | xp.not_equal(b, 0.25), a - (b < 2.0), 0.9**b


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("b", [0.0, 0.25, -3.5, 1e300, np.inf, np.nan])
@pytest.mark.parametrize("a", [0.0, -0.0, 0.25, 7.1, -1e300, np.inf, np.nan])
def test_a_formula_of_single_numbers_has_the_bits_of_numpy(a: float, b: float, mask: bool) -> None:
    inputs = number(a), number(b, shape=(1, 1)), number(mask, "bool", ())
    outputs = [number(0.0, dtype, (1, 1)) for dtype in ("float64", "bool", "float64", "float64")]
    wanted = [out.copy() for out in outputs]
    called: list[Any] = []
    function = compiled(everything, inputs, tuple(outputs), lambda *arrays: called.append(arrays))
    with np.errstate(all="ignore"):
        function(*inputs, *outputs)
        Backend().elementwise(everything, inputs, tuple(wanted))
    assert not called
    for got, want in zip(outputs, wanted):
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


CALLS: dict[str, tuple[Formula, tuple[Any, ...], tuple[int, ...]]] = {
    "adam": (adam_scalars, (number(1e-3, "float32"), number(7.0), 0.9, 0.999, 1e-8, False), ()),
    "nadam": (nadam_scalars, (number(1e-3, "float32"), number(7.0), number(0.5), 0.9, 0.999, 1e-8, 4e-3), ()),
    "tally": (tally, (number(3.5), number(-1.0), number(0.1, "float32"), 64.0, number(5, "int64")), (0, 1)),
    "bad": (tally, (number(3.5), number(-1.0), number(np.nan, "float32"), 64.0, number(5, "int64")), (0, 1)),
    "advance": (
        after_update, (number(2**40, "uint64"), number(64, "int64"), number(5, "int64"), number(6.0), 1, 32),
        (0, 1, 2, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_the_scalar_formulas_of_a_training_step_agree_with_the_reference(name: str) -> None:
    """All formulas that a training step computes on single numbers, some of them in place."""
    formula, inputs, over = CALLS[name]
    results = formula(Backend().math, *inputs)
    kinds = ["float32", "float32"] if name == "adam" else [np.asarray(r).dtype for r in results]
    copies = tuple(a.copy() if isinstance(a, np.ndarray) else a for a in inputs)
    outputs = tuple(copies[i] for i in over) or tuple(np.empty(1, kind) for kind in kinds)
    assert compiled(formula, copies, outputs) is not None
    NumpyBackend().elementwise(formula, copies, outputs)
    for got, want in zip(outputs, results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6 if got.dtype == np.float32 else 1e-15)


@pytest.mark.parametrize(("b", "told"), [(0.0, np.inf), (-1.0, -2.0)])
def test_scalar_formulas_that_python_refuses_are_computed_by_numpy(b: float, told: float) -> None:
    out = number(0.0)
    with np.errstate(all="ignore"):
        NumpyBackend().elementwise(named(lambda xp, a, b: a / b), (number(2.0), number(b)), (out,))
        assert out[0] == told
        NumpyBackend().elementwise(named(lambda xp, a: xp.sqrt(a)), (number(b - 1),), (out,))
        assert np.isnan(out[0])
        NumpyBackend().elementwise(named(lambda xp, a: 2.0**a), (number(5000.0),), (out,))
        assert out[0] == np.inf
        NumpyBackend().elementwise(named(lambda xp, a: a**0.5), (number(-1.0),), (out,))
        assert np.isnan(out[0])


def test_a_scalar_formula_reads_all_inputs_before_it_writes() -> None:
    a, b = number(1.0), number(2.0)
    NumpyBackend().elementwise(named(lambda xp, a, b: (b + 0.0, a + 0.0)), (a, b), (a, b))
    assert (a[0], b[0]) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("formula", "inputs", "out"),
    [
        (formulas.add, (number(0.1, "float32"), number(0.2, "float32")), number(0.0, "float32")),
        (formulas.add, (number(0.1), number(0.2, shape=(2,))), number(0.0, shape=(2,))),
        (formulas.add, (number(1, "int32"), number(2, "int32")), number(0, "int32")),
        (formulas.subtract, (number(1, "uint64"), number(2, "uint64")), number(0, "uint64")),
        (named(lambda xp, a: xp.exp(a)), (number(1.0),), number(0.0)),
        (named(lambda xp, a: a < 0.1), (number(0.1, "float32"),), number(False, "bool")),
    ],
    ids=["float32", "two numbers", "int32", "wraps around", "exp", "0.1 of float32"],
)
def test_scalar_formulas_that_python_would_compute_differently_are_left_to_numpy(
    formula: Formula, inputs: Any, out: Any
) -> None:
    assert compiled(formula, inputs, (out,)) is None
    with np.errstate(all="ignore"):
        NumpyBackend().elementwise(formula, inputs, (out,))
        np.testing.assert_array_equal(out, formula(Backend().math, *inputs))


@pytest.mark.parametrize("compare", [lambda xp, a: a == 1.0, lambda xp, a: xp.where(a != a, 0.0, a)])
def test_a_formula_that_compares_with_the_equality_operator_is_refused(compare: Any) -> None:
    """Python would compare the symbols while the formula is traced, and the answer would become a constant."""
    with pytest.raises(TypeError, match=r"compares with xp\.equal\(a, b\) or xp\.not_equal"):
        NumpyBackend().elementwise(named(compare), (number(1.0),), (number(0.0),))
