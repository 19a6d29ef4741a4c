"""Every product that ``gpunn.backends.cuda.gemm`` asks cuBLASLt for, computed by a model of the library on the host."""

import gc
import importlib
from typing import Any

import numpy as np
import pytest

from gpunn.backends.cuda.gemm import COMPUTE_32F_FAST_TF32, load_cublaslt
from gpunn.backends.cuda.gemm_plan import plan_product
from gpunn.errors import DeviceError
from tests.backends.gemm_device import BFLOAT16, PAIRS, Device, aligned, random_operand, random_view
from tests.strict.cublaslt import cuBLASLtError


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.mark.parametrize(("dtype", "result"), PAIRS, ids=str)
@pytest.mark.parametrize("seed", range(20))
def test_cublaslt_products_equal_numpy_and_write_no_other_memory(
    seed: int, dtype: Any, result: Any, device: Device
) -> None:
    rng = np.random.default_rng([seed, *map(ord, f"{dtype}{result}")])
    for _ in range(60):
        sizes = [1 if rng.random() < 0.25 else int(rng.integers(1, 10)) for _ in range(3)]
        rows, inner, columns = sizes
        population = [None, 1, 2, 5][rng.integers(4)]
        A = random_operand(rng, rows, inner, population, dtype)
        B = random_operand(rng, inner, columns, population, dtype)
        memory, out = random_view(rng, rows, columns, population, result, lambda shape: np.full(shape, np.nan))
        expected_memory = memory.copy()
        offset = (out.ctypes.data - memory.ctypes.data) // memory.itemsize
        expected = np.lib.stride_tricks.as_strided(expected_memory.ravel()[offset:], out.shape, out.strides)
        expected[...] = A.astype("float64") @ B.astype("float64")

        device(A, B, out)
        np.testing.assert_array_equal(memory.astype("float64"), expected_memory.astype("float64"))


def test_half_precision_products_are_summed_in_float32_and_rounded_once(device: Device) -> None:
    rng = np.random.default_rng(0)
    for dtype, bits in ((BFLOAT16, 8), ("float16", 11)):
        A, B = (rng.integers(-9, 10, shape).astype(dtype) for shape in ((3, 5000), (5000, 4)))
        A[:, ::7] = 63
        out, wide = np.empty((3, 4), dtype), np.empty((3, 4), "float32")
        expected = A.astype("float64") @ B.astype("float64")
        device(A, B, wide)
        np.testing.assert_array_equal(wide, expected)
        device(A, B, out)
        np.testing.assert_allclose(out.astype("float64"), expected, rtol=2.0**-bits)  # half a unit of its last place
        assert np.any(out.astype("float64") != expected)


@pytest.mark.parametrize(("rows", "inner", "columns"), [(0, 3, 2), (3, 0, 2), (3, 2, 0)])
def test_empty_products_are_zero_and_do_not_call_cublaslt(rows: int, inner: int, columns: int, device: Device) -> None:
    A, B, out = np.ones((rows, inner)), np.ones((inner, columns)), np.full((rows, columns), 7.0)
    device(A, B, out)
    np.testing.assert_array_equal(out, 0.0)
    assert device.lt.matmul_calls == 0


def test_row_major_operands_are_multiplied_without_transposition() -> None:
    A, B, out = np.ones((5, 3)), np.ones((3, 4)), np.ones((5, 4))
    product = plan_product(A, B, out)
    assert (product.m, product.n, product.k) == (4, 5, 3)
    assert (product.transa, product.transb, product.swapped) == (False, False, True)
    assert (product.lda, product.ldb, product.ldc) == (4, 3, 4)
    assert str(product) == "1 x (5, 3) @ (3, 4) in float64"
    assert {product: "found"}[plan_product(A.copy(), B, out)] == "found"


def test_transposed_views_of_backpropagation_are_multiplied_without_a_copy() -> None:
    X, dZ, W = np.ones((8, 3)), np.ones((8, 4)), np.ones((3, 4))
    weight_gradient = plan_product(X.mT, dZ, np.empty((3, 4)))
    assert (weight_gradient.transa, weight_gradient.transb) == (False, True)
    input_gradient = plan_product(dZ, W.mT, np.empty((8, 3)))
    assert (input_gradient.transa, input_gradient.transb) == (True, False)


def test_the_leading_dimension_of_a_contiguous_vector_is_its_length() -> None:
    X, w, out = np.ones((8, 3)), np.ones((3, 1)), np.ones((8, 1))
    product = plan_product(X, w, out)
    assert (product.m, product.n, product.lda, product.ldb, product.ldc) == (8, 1, 3, 3, 8)
    strided_by_rows = plan_product(X, np.ones((3, 5))[:, 2:3], out)
    assert (strided_by_rows.transb, strided_by_rows.ldb) == (True, 5)


def test_an_operand_shared_by_all_models_has_stride_zero() -> None:
    X, W, out = np.ones((8, 3)), np.ones((5, 3, 4)), np.ones((5, 8, 4))
    product = plan_product(X, W, out)
    assert (product.batch, product.stride_a, product.stride_b, product.stride_c) == (5, 12, 0, 32)
    assert plan_product(np.broadcast_to(X, (5, 8, 3)), W, out) == product


def strided(shape: tuple[int, ...], *strides: int) -> Any:
    return np.lib.stride_tricks.as_strided(np.ones(1000), shape, strides)


MATRIX = np.ones((4, 4))
REFUSED = {
    "inner sizes": (np.ones((4, 3)), MATRIX, MATRIX, r"gemm shapes: expected A \(m, k\).*, got A \(4, 3\), B \(4, 4\)"),
    "out size": (MATRIX, MATRIX, np.ones((4, 5)), r"gemm shapes: .* out \(4, 5\)"),
    "dtypes differ": (
        MATRIX,
        MATRIX,
        np.ones((4, 4), "float32"),
        "one dtype of .*, got A float64, B float64, out float32",
    ),
    "halves of two kinds": (
        np.ones((4, 4), "float16"),
        np.ones((4, 4), "float16"),
        np.ones((4, 4), BFLOAT16),
        "out may be float32 where A and B are half as wide, got A float16, B float16, out bfloat16",
    ),
    "halves to doubles": (
        np.ones((4, 4), BFLOAT16),
        np.ones((4, 4), BFLOAT16),
        MATRIX,
        "got A bfloat16, B bfloat16, out float64",
    ),
    "integers": (*3 * (np.ones((4, 4), int),), "expected one dtype of float64, .*, got A int64"),
    "vector": (np.ones(4), MATRIX, MATRIX, r"gemm A: expected two or three dimensions, got shape \(4,\)"),
    "four axes": (MATRIX, np.ones((1, 1, 4, 4)), MATRIX, "gemm B: expected two or three dimensions"),
    "both axes strided": (
        np.ones((8, 8))[::2, ::2],
        MATRIX,
        MATRIX,
        "gemm A: expected contiguous rows or contiguous columns",
    ),
    "out strided": (
        MATRIX,
        MATRIX,
        np.ones((8, 8))[::2, ::2],
        "gemm out: expected contiguous rows or contiguous columns",
    ),
    "negative": (MATRIX, MATRIX[::-1], MATRIX, "gemm B: expected strides that are multiples of 8 bytes, none negative"),
    "negative population": (np.ones((2, 4, 4))[::-1], MATRIX, np.ones((2, 4, 4)), "gemm A: expected strides"),
    "between elements": (strided((4, 4), 36, 8), MATRIX, MATRIX, "gemm A: expected strides that are multiples of 8"),
    "rows broadcast": (np.broadcast_to(np.ones(4), (4, 4)), MATRIX, MATRIX, "gemm A: expected contiguous rows"),
    "rows overlap": (strided((4, 4), 16, 8), MATRIX, MATRIX, "gemm A: expected contiguous rows .* that do not overlap"),
    "columns overlap": (
        strided((4, 4), 8, 16),
        MATRIX,
        MATRIX,
        "gemm A: expected contiguous rows .* that do not overlap",
    ),
    "populations differ": (
        np.ones((3, 4, 4)),
        MATRIX,
        np.ones((2, 4, 4)),
        "gemm A: expected a population of 2, .* got 3",
    ),
    "population of one": (
        np.ones((1, 4, 4)),
        MATRIX,
        np.ones((2, 4, 4)),
        "gemm A: expected a population of 2, .* got 1",
    ),
    "out without population": (MATRIX, np.ones((2, 4, 4)), MATRIX, "gemm B: expected a population of None"),
    "out broadcast": (
        MATRIX,
        MATRIX,
        np.broadcast_to(MATRIX, (2, 4, 4)),
        "gemm out: expected elements that do not share",
    ),
    "out overlaps": (
        MATRIX,
        MATRIX,
        strided((2, 4, 4), 64, 32, 8),
        "gemm out: expected elements that do not share memory",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_products_that_blas_cannot_express_are_refused(case: str) -> None:
    *arrays, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        plan_product(*arrays)


def test_cublaslt_is_asked_for_an_algorithm_once_for_each_layout_and_alignment(device: Device) -> None:
    A, B, out = (aligned((16, 16)) for _ in range(3))
    for _ in range(3):
        device(A, B, out)
    assert device.lt.heuristic_calls == 1
    device(A.mT, B, out)
    assert device.lt.heuristic_calls == 2
    device(A[1:, :8].mT, B[1:], out[:8])  # 64 bytes further, and smaller
    device(A[2:, :8].mT, B[:14], out[:8])
    assert device.lt.heuristic_calls == 4
    device(*(aligned((16, 16), "float64") for _ in range(3)))
    assert device.lt.heuristic_calls == 5
    assert device.lt.matmul_calls == 7
    assert device.allocations == 1


def test_another_alignment_asks_cublaslt_for_another_algorithm(device: Device) -> None:
    B, out, memory = aligned((4, 4)), aligned((4, 4)), aligned((80,))
    for offset, heuristic_calls in ((0, 1), (1, 2), (4, 3), (8, 3), (2, 4), (3, 4), (64, 4)):
        device(memory[offset : offset + 16].reshape(4, 4), B, out)
        assert device.lt.heuristic_calls == heuristic_calls


def test_a_captured_product_replays_on_the_current_content_of_its_buffers(device: Device) -> None:
    A, B, out = (aligned((4, 4)) for _ in range(3))
    device(A, B, out)
    device.capturing = True
    out[...] = 0
    device(A, B, out)
    device.capturing = False
    assert len(device.recorded) == 1
    assert not out.any()
    for number in (1, 2):
        A[...] = number
        device.recorded[0]()
        np.testing.assert_array_equal(out, 4 * number)


def test_a_product_that_was_never_run_cannot_be_captured(device: Device) -> None:
    A, B, out = (aligned((4, 4)) for _ in range(3))
    device.capturing = True
    with pytest.raises(
        RuntimeError, match=r"1 x \(4, 4\) @ \(4, 4\) in float32.* run the product once before the capture"
    ):
        device(A, B, out)
    assert device.lt.heuristic_calls == 0
    device.capturing = False
    device(A, B, out)
    device.capturing = True
    device(A, B, out)
    assert len(device.recorded) == 1


def test_each_product_runs_on_the_current_stream(device: Device) -> None:
    A, B, out = (aligned((4, 4)) for _ in range(3))
    for pointer in (1234, 99):
        device.stream.ptr = pointer
        device(A, B, out)
        assert device.lt.last_stream == pointer


@pytest.mark.parametrize(("dtype", "result"), PAIRS, ids=str)
def test_tf32_changes_only_float32_products(dtype: Any, result: Any) -> None:
    for tf32 in (False, True):
        device = Device(tf32=tf32)
        device(aligned((4, 4), dtype), aligned((4, 4), dtype), aligned((4, 4), result))
        assert (device.lt.last_compute_type == COMPUTE_32F_FAST_TF32) == (tf32 and dtype == "float32")


def test_the_error_for_a_missing_algorithm_names_the_product_and_frees_everything(device: Device) -> None:
    arrays = [aligned((4, 4)) for _ in range(3)]
    device.lt.has_algorithms = False
    with pytest.raises(RuntimeError, match=r"no algorithm for 1 x \(4, 4\) @ \(4, 4\) in float32"):
        device(*arrays)

    def unsupported(*_: Any) -> None:
        raise cuBLASLtError(15, "as the library answers")

    device.lt.matmul_algo_get_heuristic = unsupported
    with pytest.raises(RuntimeError, match=r"no algorithm for 1 x \(4, 4\).*NOT_SUPPORTED"):
        device(*arrays)
    assert device.lt.live == 1  # the handle


def test_closing_a_gemm_destroys_every_descriptor_once(device: Device) -> None:
    arrays = [aligned((4, 4)) for _ in range(3)]
    device(*arrays)
    assert device.lt.live == 5  # handle, operation, three layouts
    device.gemm.close()
    device.gemm.close()
    assert device.lt.live == 0
    with pytest.raises(RuntimeError, match="expected an open Gemm"):
        device(*arrays)


def test_a_garbage_collected_gemm_destroys_its_descriptors(device: Device) -> None:
    device(*(aligned((4, 4)) for _ in range(3)))
    del device.gemm
    gc.collect()
    assert device.lt.live == 0


def test_load_cublaslt_gives_none_only_if_nvmath_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        def import_module(_: str) -> Any:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        return import_module

    monkeypatch.setattr(importlib, "import_module", missing("nvmath"))
    assert load_cublaslt() is None
    monkeypatch.setattr(importlib, "import_module", missing("cuda.bindings"))
    with pytest.raises(DeviceError, match=r"^device \"cuda\": expected an nvmath-python that can be imported, got Mod"):
        load_cublaslt()
