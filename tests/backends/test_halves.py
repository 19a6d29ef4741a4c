"""Operations in half precision compute and add in float32; compared with the reference in float64 on the same
numbers."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from gpunn.backends.cuda.formulas import elementwise_source
from gpunn.backends.cuda.launch import IrregularOperandError
from gpunn.backends.formula import formulas
from gpunn.backends.reference.backend import Backend
from gpunn.backends.reference.normalization import Norm, Statistics
from gpunn.types import COLUMNS, ROWS
from tests.backends.calls import POPULATIONS, SHAPES, Call, Out, Placed, calls, each_of, random
from tests.backends.every_operation import everything, everything_inputs
from tests.conftest import backend_named
from tests.halves import ROUNDING, every, floats_around

HALVES = tuple(ROUNDING)
# What a network keeps in half precision, by operation; everything else is float32.
HALF: dict[str, tuple[str, ...]] = {
    "softmax": ("Z", "out"),
    "log_softmax": ("Z", "out"),
    "softmax_gradient": ("dA", "A", "out"),
    "log_softmax_gradient": ("dA", "A", "out"),
    "softmax_cross_entropy": ("Z", "dZ"),
    "correct": ("A", "y"),
    "row_error": ("A", "y"),
    "sum": ("X",),
    "sum_product": ("X", "Y"),
    "total": ("X",),
    "normalize": ("X", "out"),
    "normalize_gradient": ("dZ", "Xhat", "out"),
    "gather": ("source", "out"),
    "batch": ("source", "out"),
    "lookup": ("table", "out"),
    "lookup_gradient": ("d",),
    "scale_shift": ("X", "out"),
    "activation_gradient": ("dA", "kept", "out"),
    "copy": ("source", "out"),
    "elementwise": ("inputs", "outputs"),
}


@pytest.fixture(params=["strict", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> Any:
    """The CUDA backend: no other one has half precision."""
    return backend_named(request.param)


def rounded(value: Any, half: str) -> Any:
    """The numbers rounded to half precision, as float64."""
    if isinstance(value, tuple):
        return each_of(value, lambda part: rounded(part, half))
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return value.astype(half).astype(np.float64)
    return value


def assert_rounded(actual: np.ndarray, expected: np.ndarray, what: str = "") -> None:
    """Equal up to the rounding of float32, relative to the largest element, and one rounding to the dtype."""
    size = max(1.0, float(np.abs(expected).max(initial=0)))
    assert actual.shape == expected.shape
    np.testing.assert_allclose(
        actual.astype(np.float64), expected, rtol=ROUNDING.get(actual.dtype.name, 0), atol=1e-5 * size, err_msg=what
    )


def check(device: Any, call: Call, half: str, names: tuple[str, ...] | None = None, strided: bool = False) -> None:
    """Run the call with the arrays of these names in half precision, and compare all that it writes."""
    names = HALF[call.name] if names is None else names
    arguments = {k: rounded(v, half) if k in names else v for k, v in call.arguments.items()}
    same = Call(call.name, arguments)
    expected = Placed(Backend(), same, "float64")
    actual = Placed(device, same, "float32", strided, dict.fromkeys(names, half))
    expected.run()
    actual.run()
    for got, wanted in zip(actual.results(), expected.results(), strict=True):
        assert_rounded(got, wanted, call.name)


def half_calls(family: str, shape: tuple[int, ...]) -> Iterator[Call]:
    """The calls that do not keep an intermediate result in half precision, which would round twice."""
    return (c for c in calls(family, shape) if c.name in HALF and not isinstance(c.arguments.get("Z"), Out))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", ["rows", "scores", "sums", "normalization", "indices", "products"])
def test_a_half_precision_operation_agrees_with_the_reference(
    device: Any, family: str, shape: tuple[int, ...], half: str
) -> None:
    for call in half_calls(family, shape):
        check(device, call, half)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("shape", POPULATIONS, ids=str)
@pytest.mark.parametrize("family", ["rows", "sums", "normalization", "indices"])
def test_half_precision_models_may_lie_in_one_buffer_with_gaps(
    device: Any, family: str, shape: tuple[int, ...], half: str
) -> None:
    for call in half_calls(family, shape):
        check(device, call, half, strided=True)


@pytest.mark.parametrize("family", ["rows", "scores", "sums", "normalization", "indices"])
def test_the_order_of_cuda_threads_changes_no_half_precision_result(strict: Any, family: str) -> None:
    results = []
    before = strict.xp.fiber_order
    for order in ("forward", "reverse"):
        strict.xp.fiber_order = order
        for call in half_calls(family, (3, 33, 10)):
            placed = Placed(strict, call, "float32", dtypes=dict.fromkeys(HALF[call.name], "bfloat16"))
            placed.run()
            results.append((order, placed.results()))
    strict.xp.fiber_order = before
    forward, reverse = ([r for o, r in results if o == order] for order in ("forward", "reverse"))
    assert len(forward) == len(reverse) > 1
    for one, other in zip(forward, reverse, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("family", ["rows", "scores", "indices"])
def test_operands_of_one_operation_may_differ_in_precision(device: Any, family: str) -> None:
    seen = set()
    for call in half_calls(family, (33, 10)):
        kinds = tuple(getattr(v, "dtype", None) for v in call.arguments.values())
        if family == "rows" or (call.name, kinds) not in seen:
            seen.add((call.name, kinds))
            if call.name == "lookup":
                continue  # a table and what is looked up in it are of one dtype
            names = HALF[call.name]
            for chosen in product((False, True), repeat=len(names)):
                some = tuple(name for name, yes in zip(names, chosen, strict=True) if yes)
                check(device, call, "bfloat16", names=some)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("axis", [ROWS, COLUMNS])
def test_normalization_of_thousands_of_half_precision_rows_agrees_with_the_reference(
    device: Any, axis: int, half: str
) -> None:
    """At this size CUDA takes several launches instead of one."""
    for shape in ((2500, 5), (2, 2500, 5)):
        for call in calls("normalization", shape):
            if call.arguments["norm"].axis == axis:
                check(device, call, half)


@pytest.mark.parametrize("rows", [256, 2500])
@pytest.mark.parametrize("axis", [ROWS, COLUMNS])
def test_the_variance_of_half_precision_numbers_is_not_rounded(device: Any, axis: int, rows: int) -> None:
    """Differences of 1/8 around 60: kept in half precision, they would be off by a hundredth."""
    X = 60 + np.random.default_rng(4).integers(-60, 60, (rows, 40)) / 32 + 0.0
    kept = (1, 40) if axis == COLUMNS else (rows, 1)
    statistics: Any = Statistics(Out(kept), Out(kept), Out(kept))
    norm = Norm(axis, True, 1e-5, False)
    check(device, Call("normalize", {"X": X, "norm": norm, "statistics": statistics, "out": Out(X.shape)}), "float16")


def test_sums_of_float16_may_exceed_the_range_of_float16(device: Any) -> None:
    X = np.full((4096, 20), 1000.0)
    for name, others in (("sum", {}), ("sum_product", {"Y": X})):
        for axis, kept in ((ROWS, (4096, 1)), (COLUMNS, (1, 20))):
            check(device, Call(name, {"X": X, **others, "axis": axis, "out": Out(kept)}), "float16")
    check(device, Call("total", {"X": X, "scale": 1.0, "out": Out(())}), "float16")
    statistics: Any = Statistics(Out((1, 20)), Out((1, 20)), Out((1, 20)))
    norm = Norm(COLUMNS, False, 1e-5, False)
    check(device, Call("normalize", {"X": X, "norm": norm, "statistics": statistics, "out": Out(X.shape)}), "float16")


def test_sums_of_half_precision_numbers_are_rounded_once(device: Any) -> None:
    """Partial sums of several launches are not rounded: 256 rows add up to 257, which bfloat16 cannot hold."""
    host = np.ones((6400, 4))
    host[::256] = 2
    X, out, total = device.from_host(host, "bfloat16"), device.zeros((1, 4), "bfloat16"), device.zeros((), "bfloat16")
    device.sum(X, COLUMNS, out=out)
    device.total(X, 1.0, out=total)
    assert device.to_host(out).tolist() == [[6432] * 4]  # 6425
    assert device.to_host(total) == 25728  # 25700


def test_squares_of_float32_numbers_are_added_in_float64(device: Any) -> None:
    """The check for finite gradients needs it: the square of 1e30 overflows in float32 but not in float64."""
    g = device.from_host(np.full((2, 700), 1e30, np.float32))
    out, total = device.zeros((2, 1), "float64"), device.zeros((), "float64")
    device.sum_product(g, g, ROWS, out=out)
    np.testing.assert_allclose(device.to_host(out), 7e62, rtol=1e-6)
    device.total(out, 1.0, out=total)
    np.testing.assert_allclose(device.to_host(total), 1.4e63, rtol=1e-6)


# Numbers


@pytest.mark.parametrize("half", HALVES)
def test_every_half_precision_number_is_read_exactly(device: Any, half: str) -> None:
    host = every(half)[:, None]
    out = device.zeros(host.shape, "float32")
    device.gather(device.from_host(host), device.from_host(np.arange(2**16)), out=out)
    np.testing.assert_array_equal(device.to_host(out), host.astype(np.float32))
    device.copy(device.from_host(host), out=out)
    np.testing.assert_array_equal(device.to_host(out), host.astype(np.float32))


@pytest.mark.parametrize("half", HALVES)
def test_float32_numbers_are_rounded_to_the_nearest_half_precision_number(device: Any, half: str) -> None:
    """Ties are rounded to the even number, also by CuPy's own conversions in elementwise formulas and copies.

    CuPy compiles with -ftz=true: arithmetic on float32 takes subnormal numbers for 0, which bfloat16 has too.
    """
    floats = floats_around(half)
    number = ~np.isnan(floats)
    normal = number & ((np.abs(floats) >= np.finfo(np.float32).tiny) | (floats == 0))
    with np.errstate(over="ignore"):
        expected = floats.astype(half).view(np.uint16)
    source, out = device.from_host(floats[:, None]), device.zeros((len(floats), 1), half)
    one = device.from_host(np.ones((1, 1), np.float32))
    for write, exact in (
        (lambda: device.gather(source, device.from_host(np.arange(len(floats))), out=out), number),
        (lambda: device.elementwise(formulas.multiply, (source, one), (out,)), normal),
        (lambda: device.copy(source, out=out), number),
    ):
        out.fill(7)
        write()
        written = device.to_host(out)[:, 0]
        np.testing.assert_array_equal(written.view(np.uint16)[exact], expected[exact])
        assert np.isnan(written[~number].astype(np.float32)).all()


@pytest.mark.parametrize(("source", "target"), [("float16", "bfloat16"), ("bfloat16", "float16")])
def test_float16_and_bfloat16_are_converted_to_each_other(device: Any, source: str, target: str) -> None:
    host = np.random.default_rng(31).standard_normal((40, 3)).astype(source)
    for write in ("copy", "gather"):
        out = device.zeros(host.shape, target)
        if write == "copy":
            device.copy(device.from_host(host), out=out)
        else:
            device.gather(device.from_host(host), device.from_host(np.arange(40)), out=out)
        np.testing.assert_array_equal(device.to_host(out), host.astype(np.float32).astype(target))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("source", ["uint8", "int64", "bool", "float64"])
def test_gather_scales_data_into_half_precision(device: Any, source: str, half: str) -> None:
    host = np.array([[0, 1, 2], [250, 3.5, 77], [131, 7, 255]])
    host = host > 2 if source == "bool" else host.astype(source)
    out = device.zeros((4, 3), half)
    device.gather(device.from_host(host), device.from_host(np.array([2, 0, 1, 2])), out=out, scale=1 / 255)
    expected = host[[2, 0, 1, 2]] / 255
    np.testing.assert_allclose(device.to_host(out).astype(np.float64), expected, rtol=1.001 * ROUNDING[half])


@pytest.mark.parametrize("half", HALVES)
def test_half_precision_arrays_are_copied_unchanged_and_checked_for_finite_numbers(device: Any, half: str) -> None:
    host = np.random.default_rng(32).standard_normal((3, 4)).astype(np.float32)
    array = device.from_host(host, half)
    assert array.dtype == half and device.owns(array)
    np.testing.assert_array_equal(device.to_host(array), host.astype(half))
    assert device.all_finite(array) is True
    array[1, 2] = np.inf
    assert device.all_finite(array) is False
    assert not device.to_host(device.zeros((3,), half)).astype(np.float32).any()


@pytest.mark.parametrize("half", HALVES)
def test_random_normal_numbers_are_rounded_when_written_in_half_precision(device: Any, half: str) -> None:
    key, step = device.from_host(np.array([3, 5], np.uint64)), device.zeros((1,), "uint64")
    wide, narrow = device.zeros((33, 7), "float64"), device.zeros((33, 7), half)
    device.random_normal(key, step, out=wide)
    device.random_normal(key, step, out=narrow)
    expected = device.to_host(wide).astype(np.float32).astype(half)
    np.testing.assert_array_equal(device.to_host(narrow).astype(np.float32), expected.astype(np.float32))


# Elementwise formulas


@pytest.mark.parametrize("half", HALVES)
def test_an_elementwise_formula_of_half_precision_arrays_computes_in_float32(device: Any, half: str) -> None:
    """The result equals, bit for bit, that for float32 arrays of the same numbers, rounded when it is written."""
    x, y, bits = everything_inputs()
    x, y = rounded(x, half), rounded(y, half)
    inputs = tuple(device.from_host(a, "float32") for a in (x, y)), tuple(device.from_host(a, half) for a in (x, y))
    kinds = ("float32", half, half, "bool", "float32")
    results = []
    for (a, b), dtypes in zip(inputs, (("float32", "float32", "float32", "bool", "float32"), kinds), strict=True):
        outputs = tuple(device.zeros(x.shape, dtype) for dtype in dtypes)
        device.elementwise(everything, (a, b, device.from_host(bits), 1.25), outputs)
        results.append([device.to_host(out) for out in outputs])
    for wide, narrow in zip(*results, strict=True):
        np.testing.assert_array_equal(narrow, wide.astype(narrow.dtype))


@pytest.mark.parametrize("half", HALVES)
def test_an_elementwise_formula_may_mix_half_precision_with_float32(device: Any, half: str) -> None:
    rng = np.random.default_rng(33)
    X, G, B = rounded(random(rng, 9, 5), half), random(rng, 1, 5), random(rng, 1, 5)
    inputs = device.from_host(X, half), device.from_host(G, "float32"), device.from_host(B, "float32")
    for kind in (half, "float32"):
        out = device.zeros((9, 5), kind)
        device.elementwise(formulas.scale_shift, inputs, (out,))
        assert_rounded(device.to_host(out), X * G + B)


def test_the_kernel_of_a_half_precision_formula_has_no_double() -> None:
    x, y, bits = (np.ones(1, d) for d in ("bfloat16", "float16", "uint16"))
    outputs = tuple(np.ones(1, d) for d in ("bfloat16", "float16", "float32", "bool", "bfloat16"))
    reads, writes, body = elementwise_source(everything, (x, y, bits, 1.25), outputs)
    assert reads == "bfloat16 x0, float16 x1, uint16 x2"
    assert writes == "bfloat16 y0, float16 y1, float32 y2, bool y3, bfloat16 y4"
    assert "double" not in body and "float16" not in body
    assert "const float a0 = x0;" in body and "const float a1 = x1;" in body


def test_cupy_has_kernels_for_bfloat16_and_float16() -> None:
    """The stand-in for CUDA relies on it."""
    cupy = pytest.importorskip("cupy")
    kernel = cupy.ElementwiseKernel("bfloat16 x, float16 y", "bfloat16 z", "z = x", "f")
    assert [p.ctype for p in kernel.params[:3]] == ["bfloat16", "float16", "bfloat16"]
    for function in (cupy._core.elementwise_copy, cupy.isfinite):
        assert {"e", "E"} <= {loop[0] for loop in function.types}  # NumPy's letter for bfloat16 is E
    assert np.dtype("bfloat16").char == "E"


# Refusals


@pytest.mark.parametrize("half", HALVES)
def test_half_precision_operations_without_a_kernel_are_refused(strict: Any, half: str) -> None:
    """The reference would add in half precision."""
    X, out = strict.zeros((4, 3), half), strict.zeros((4, 3), half)
    with pytest.raises(IrregularOperandError, match="softmax in half precision: no kernel for .*float16"):
        strict.softmax(strict.zeros((3, 4), half).mT, out=out)
    with pytest.raises(IrregularOperandError, match="sum in half precision: no kernel for"):
        strict.sum(X.mT, ROWS, out=strict.zeros((3, 1), "float32"))
    with pytest.raises(IrregularOperandError, match="softmax in half precision: no kernel for .*16 with float64"):
        strict.softmax(X, out=strict.zeros((4, 3), "float64"))
    with pytest.raises(
        IrregularOperandError, match="cross_entropy in half precision: no kernel for .*16 .* as float32"
    ):
        labels, loss = strict.zeros((4,), "int64"), strict.zeros((4, 1), half)
        strict.softmax_cross_entropy(X, labels, 0.0, None, 1.0, loss=loss, dZ=out)
