"""Every operation on every backend, compared with the reference in float64."""

from typing import Any

import numpy as np
import pytest

from gpunn.backends.formula import formulas
from gpunn.backends.operation import OPERATIONS
from gpunn.backends.reference.backend import Backend
from gpunn.backends.reference.normalization import Norm, Statistics
from gpunn.errors import ArrayTypeError
from gpunn.types import COLUMNS, ROWS
from tests.backends.calls import FAMILIES, MATRICES, POPULATIONS, SHAPES, Call, Out, Placed, calls, random
from tests.backends.comparison import TOLERANCE, assert_close, check

DTYPES = tuple(TOLERANCE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", [*FAMILIES, "means"])
def test_an_operation_agrees_with_the_reference(backend: Any, family: str, shape: tuple[int, ...], dtype: str) -> None:
    for call in calls(family, shape):
        check(backend, call, dtype)


@pytest.mark.parametrize("shape", POPULATIONS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_operations_take_models_that_lie_in_one_buffer_with_gaps(
    backend: Any, family: str, shape: tuple[int, ...]
) -> None:
    for call in calls(family, shape):
        check(backend, call, "float32", strided=True)


def test_every_operation_is_tested() -> None:
    called = {call.name for family in [*FAMILIES, "means"] for call in calls(family, (2, 5, 4))}
    drawn = {"random_words", "random_bits", "random_uniform", "random_normal", "permutation"}
    assert called | drawn == set(OPERATIONS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [ROWS, COLUMNS])
def test_normalization_of_thousands_of_rows_agrees_with_the_reference(backend: Any, axis: int, dtype: str) -> None:
    """At this size CUDA takes several launches instead of one."""
    for call in calls("normalization", (2500, 5)):
        if call.arguments["norm"].axis == axis:
            check(backend, call, dtype)


def test_the_total_of_many_elements_agrees_with_the_reference(backend: Any) -> None:
    rng = np.random.default_rng(1)
    for shape in ((300, 100), (2, 300, 100)):
        check(backend, Call("total", {"X": random(rng, *shape), "scale": 1 / 7, "out": Out(shape[:-2])}), "float32")


def test_float32_sums_of_many_equal_numbers_keep_their_digits(backend: Any) -> None:
    """One running sum in float32 would lose three digits."""
    X = backend.from_host(np.full((20000, 2), 0.1, np.float32))
    out, total = backend.zeros((1, 2), "float32"), backend.zeros((), "float32")
    backend.sum(X, COLUMNS, out=out)
    backend.total(X, 1.0, out=total)
    if backend.name == "cuda":  # NumPy keeps one running sum for each column
        np.testing.assert_allclose(backend.to_host(out), 2000, rtol=3e-6)
    np.testing.assert_allclose(backend.to_host(total), 4000, rtol=3e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 40)], ids=str)
def test_softmax_and_cross_entropy_of_extreme_logits_agree_with_the_reference(
    backend: Any, shape: tuple[int, ...], dtype: str
) -> None:
    rng = np.random.default_rng(2)
    Z = np.where(rng.random(shape) < 0.5, 1e4, -1e4)
    labels = rng.integers(0, shape[-1], shape[:-1])
    rows = (*shape[:-1], 1)
    for name in ("softmax", "log_softmax"):
        check(backend, Call(name, {"Z": Z, "out": Out(shape)}), dtype)
    for smoothing in (0.0, 0.1):
        call = Call(
            "softmax_cross_entropy",
            {
                "Z": Z,
                "target": labels,
                "smoothing": smoothing,
                "weight": None,
                "scale": 1.0,
                "loss": Out(rows),
                "dZ": Out(shape),
            },
        )
        check(backend, call, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [ROWS, COLUMNS])
@pytest.mark.parametrize("outside", [False, True])
def test_normalization_of_constants_gives_zeros(backend: Any, axis: int, outside: bool, dtype: str) -> None:
    kept = (1, 4) if axis == COLUMNS else (6, 1)
    norm = Norm(axis, True, 1e-5, outside)
    statistics = Statistics(*(backend.zeros(kept, dtype) for _ in range(5)))
    out = backend.zeros((6, 4), dtype)
    backend.normalize(backend.from_host(np.full((6, 4), 3.0, dtype)), norm, statistics, out=out)
    np.testing.assert_array_equal(backend.to_host(out), 0)
    sums = {name: backend.zeros((1, 4), dtype) for name in ("dG", "dB")}
    dX = backend.zeros((6, 4), dtype)
    dZ = backend.from_host(np.random.default_rng(3).standard_normal((6, 4)).astype(dtype))
    backend.normalize_gradient(dZ, out, None, norm, statistics, **sums, out=dX)
    assert np.isfinite(backend.to_host(dX)).all()


@pytest.mark.parametrize("axis", [ROWS, COLUMNS])
def test_normalization_about_a_large_mean_loses_no_digits(backend: Any, axis: int) -> None:
    """E[x²] - E[x]² would lose all digits, and a mean summed in float32 would be wrong by a hundredth."""
    X = (1e5 + np.random.default_rng(4).standard_normal((256, 300))).astype(np.float32).astype(np.float64)
    kept = (1, 300) if axis == COLUMNS else (256, 1)
    statistics: Any = Statistics(Out(kept), Out(kept), Out(kept))
    norm = Norm(axis, True, 1e-5, False)
    check(backend, Call("normalize", {"X": X, "norm": norm, "statistics": statistics, "out": Out(X.shape)}), "float32")


IN_PLACE = (("softmax", "Z"), ("log_softmax", "Z"), ("softmax_gradient", "dA"), ("softmax_gradient", "A"),
            ("log_softmax_gradient", "dA"))  # fmt: skip


@pytest.mark.parametrize(("name", "shared"), IN_PLACE)
def test_softmax_operations_may_write_over_their_argument(backend: Any, name: str, shared: str) -> None:
    if backend.name == "cpu" and name == "softmax_gradient" and shared == "A":
        pytest.skip("nothing asks the CPU for it")
    call = next(call for call in calls("rows", (3, 33, 10)) if call.name == name)
    expected = Placed(Backend(), call, "float64")
    expected.run()
    placed = Placed(backend, call, "float64")
    placed.arguments["out"] = placed.arguments[shared]
    placed.run()
    assert_close(backend.to_host(placed.arguments[shared]), expected.results()[0], "float64")


def test_an_elementwise_formula_may_exchange_its_inputs_in_place(backend: Any) -> None:
    rng = np.random.default_rng(5)
    u, v = rng.random((2, 40, 7))
    a, b = backend.from_host(u), backend.from_host(v)
    backend.elementwise(formulas.normal_pair, (a, b), (b, a))
    expected = formulas.normal_pair(Backend().math, u, v)
    assert_close(backend.to_host(b), expected[0], "float64")
    assert_close(backend.to_host(a), expected[1], "float64")


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matrix_products_take_transposed_views(backend: Any, shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(6)
    A, B = random(rng, *shape), random(rng, *shape)
    left, right = (backend.from_host(X, dtype) for X in (A, B))
    for first, second, expected in ((left.mT, right, A.mT @ B), (left, right.mT, A @ B.mT)):
        out = backend.zeros(expected.shape, dtype)
        assert backend.matmul(first, second, out=out) is out
        assert_close(backend.to_host(out), expected, dtype)


def test_an_operand_without_a_population_axis_serves_every_model(backend: Any) -> None:
    rng = np.random.default_rng(7)
    X, W = random(rng, 6, 4), random(rng, 3, 4, 5)
    check(backend, Call("matmul", {"A": X, "B": W, "out": Out((3, 6, 5))}), "float32")
    for rows in (6, 300):
        Z, target = random(rng, 3, rows, 4), rng.integers(0, 4, rows)
        call = {"Z": Z, "target": target, "scale": 1.0, "loss": Out((3, rows, 1)), "dZ": Out(Z.shape)}
        for smoothing in (0.0, 0.1):
            options = {"smoothing": smoothing, "weight": np.abs(random(rng, rows, 1))}
            check(backend, Call("softmax_cross_entropy", call | options), "float32")
        options = {"smoothing": 0.1, "weight": None, "target": random(rng, rows, 4)}
        check(backend, Call("softmax_cross_entropy", call | options), "float32")


def test_transposed_and_broadcast_operands_give_the_right_sums(backend: Any) -> None:
    """CUDA leaves transposed and broadcast operands and sums of other dtypes to CuPy."""
    rng = np.random.default_rng(8)
    X = random(rng, 9, 6)
    device, out = backend.from_host(X), backend.zeros((6, 1), "float64")
    backend.sum(device.mT, ROWS, out=out)
    assert_close(backend.to_host(out), X.sum(axis=0)[:, None], "float64")
    scattered = backend.zeros((6, 9), "float64")
    backend.log_softmax_gradient(device.mT, device.mT, out=scattered)
    expected = Backend().log_softmax_gradient(X.T, X.T, out=np.empty((6, 9)))
    assert_close(backend.to_host(scattered), expected, "float64")
    count = backend.zeros((), "float64")
    backend.total(backend.from_host(X > 0), 1.0, out=count)
    assert backend.to_host(count) == (X > 0).sum()


def test_operations_take_part_of_a_buffer_as_the_last_batch_does(backend: Any) -> None:
    rng = np.random.default_rng(9)
    X = random(rng, 3, 10, 4)
    part, out = backend.from_host(X)[:, :6], backend.zeros((3, 8, 4), "float64")[:, :6]
    backend.softmax(part, out=out)
    assert_close(backend.to_host(out), Backend().softmax(X[:, :6], out=np.empty((3, 6, 4))), "float64")
    half = backend.from_host(X)[..., :2]  # rows with a gap between them
    sums = backend.zeros((3, 1, 2), "float64")
    assert_close(backend.to_host(backend.sum(half, COLUMNS, out=sums)), X[..., :2].sum(1, keepdims=True), "float64")
    total = backend.zeros((3,), "float64")
    assert_close(backend.to_host(backend.total(half, 1.0, out=total)), X[..., :2].sum((1, 2)), "float64")


@pytest.mark.parametrize("source", ["float16", "float32", "float64", "uint8", "int64", "int32", "bool"])
@pytest.mark.parametrize("index", ["int64", "int32"])
def test_gather_converts_every_dtype_to_float32(backend: Any, source: str, index: str) -> None:
    data = np.array([[0, 1, 2], [250, 3.5, 1e-7], [65504, 7, 6e-5]], np.float64)
    host = (data > 2) if source == "bool" else np.clip(data, 0, 250 if source == "uint8" else None).astype(source)
    out = backend.zeros((4, 3), "float32")
    backend.gather(backend.from_host(host), backend.from_host(np.array([2, 0, 1, 2], index)), out=out)
    np.testing.assert_array_equal(backend.to_host(out), host[[2, 0, 1, 2]].astype(np.float32))


def test_gather_reads_every_float16_number_exactly(backend: Any) -> None:
    host = np.arange(2**16, dtype=np.uint16).view(np.float16)[:, None]
    out = backend.zeros(host.shape, "float32")
    backend.gather(backend.from_host(host), backend.from_host(np.arange(2**16)), out=out)
    np.testing.assert_array_equal(backend.to_host(out), host.astype(np.float32))


def test_the_gradient_of_lookup_adds_repeated_rows_and_clears_unused_rows(backend: Any) -> None:
    out = backend.from_host(np.full((4, 2), 9.0))
    d = backend.from_host(np.arange(12.0).reshape(6, 2))
    backend.lookup_gradient(d, backend.from_host(np.array([1, 1, 3, 1, 3, 0])), out=out)
    np.testing.assert_array_equal(backend.to_host(out), [[10, 11], [8, 11], [0, 0], [12, 14]])


def test_lookup_takes_indices_of_sequences(backend: Any) -> None:
    rng = np.random.default_rng(10)
    indices = rng.integers(0, 5, (7, 3))
    for models in ((), (2,)):
        table, d = random(rng, *models, 5, 4), random(rng, *models, 7, 3, 4)
        check(backend, Call("lookup", {"table": table, "indices": indices, "out": Out(d.shape)}), "float64")
        check(backend, Call("lookup_gradient", {"d": d, "indices": indices, "out": Out(table.shape)}), "float64")


# Memory


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4)], ids=str)
def test_arrays_are_copied_to_a_device_and_back_unchanged(backend: Any, shape: tuple[int, ...]) -> None:
    host = np.random.default_rng(11).standard_normal(shape)
    for dtype in (None, "float32", "float64"):
        array = backend.from_host(np.asarray(host), dtype)
        assert array.dtype == (dtype or "float64")
        assert array.shape == shape
        assert backend.owns(array)
        back = backend.to_host(array)
        assert type(back) is np.ndarray
        np.testing.assert_array_equal(back, np.asarray(host, array.dtype))


def test_from_host_takes_strided_views(backend: Any) -> None:
    host = np.arange(12.0).reshape(3, 4)
    for view in (host.T, host[::2], host[:, ::-1]):
        np.testing.assert_array_equal(backend.to_host(backend.from_host(view)), view)
        np.testing.assert_array_equal(backend.to_host(backend.from_host(view, "float32")), view)
    small = np.arange(5, dtype=np.uint8)
    assert backend.from_host(small, "float32").dtype == np.float32


def test_new_arrays_are_aligned_to_256_bytes_and_zeros_are_zero(backend: Any) -> None:
    for shape in ((3,), (5, 7)):
        array = backend.empty(shape, "float32")
        address = array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr
        if not hasattr(backend.xp, "machine"):  # the stand-in's memory is the host's
            assert address % 256 == 0
        assert not backend.to_host(backend.zeros(shape, "float32")).any()


def test_a_backend_refuses_arrays_of_another_library(backend: Any) -> None:
    assert not backend.owns([1.0])
    with pytest.raises(ArrayTypeError, match=r"somewhere: expected arrays on .*, got builtins\.list; move it with"):
        backend.require("somewhere", backend.zeros((1,), "float32"), [1.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_all_finite_finds_nan_and_infinity(backend: Any, bad: float) -> None:
    array = np.zeros((3, 4))
    assert backend.all_finite(backend.from_host(array)) is True
    array[1, 2] = bad
    assert backend.all_finite(backend.from_host(array)) is False


def test_copy_converts_the_dtype_and_broadcasts(backend: Any) -> None:
    out = backend.zeros((2, 3), "float32")
    backend.copy(backend.from_host(np.array([1.5, 2.5, 3.5])), out=out)
    np.testing.assert_array_equal(backend.to_host(out), [[1.5, 2.5, 3.5]] * 2)
    backend.synchronize()


def test_operations_are_tested_on_matrices_of_one_element() -> None:
    assert (1, 1) in MATRICES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(8, 9), (300, 400)], ids=["small", "tiled"])
@pytest.mark.parametrize("in_place", [False, True], ids=["apart", "in place"])
def test_dropout_keeps_the_bits_of_numbers_that_it_does_not_drop(
    backend: Any, shape: tuple[int, int], dtype: str, in_place: bool
) -> None:
    """Also NaN, infinities, zeros of both signs and the smallest numbers; dropped numbers become +0."""
    random_numbers = np.random.default_rng(4)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, np.finfo(dtype).smallest_subnormal, 1.5, -2.5], dtype)
    host = random_numbers.choice(odd, shape)
    bits = random_numbers.integers(0, 1 << 16, shape, np.uint16)
    X, threshold = backend.from_host(host), backend.from_host(np.array([[30000]], np.uint16))
    out = X if in_place else backend.empty(shape, dtype)
    one = backend.from_host(np.ones((1, 1), dtype))
    backend.elementwise(formulas.dropout, (X, backend.from_host(bits), threshold, one), (out,))
    got, wanted = backend.to_host(out), np.where(bits >= 30000, host, np.zeros((), dtype))
    np.testing.assert_array_equal(got, wanted)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(wanted)[numbers])
