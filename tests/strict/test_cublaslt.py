"""The model of cuBLASLt against the binding it stands for, and the mistakes it must not let pass."""

import ctypes
import importlib
import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpunn.backends.cuda import gemm
from tests.strict.cublaslt import (
    COMPUTE_TYPES,
    DESC_TYPES,
    HOST_TYPES,
    LAYOUT_TYPES,
    PREFERENCE_TYPES,
    CublasLt,
    MatmulDescAttribute,
    MatmulPreferenceAttribute,
    MatrixLayoutAttribute,
    cuBLASLtError,
    make_cublaslt,
)
from tests.strict.epilogues import Epilogue


@pytest.fixture
def binding() -> Any:
    try:
        return importlib.import_module("nvmath.bindings.cublasLt")
    except ImportError as error:
        pytest.skip(f"nvmath-python cannot be imported: {error}")


def test_the_model_has_the_bindings_functions_and_numbers(binding: Any) -> None:
    model = make_cublaslt()
    functions = [name for name, _ in inspect.getmembers(model, inspect.ismethod) if not name.startswith("_")]
    assert len(functions) == 13
    for name in functions:
        ours, theirs = (list(inspect.signature(getattr(module, name)).parameters) for module in (model, binding))
        assert ours == theirs, name
    for types, name, dtype_of in (
        (DESC_TYPES, "MatmulDescAttribute", binding.get_matmul_desc_attribute_dtype),
        (LAYOUT_TYPES, "MatrixLayoutAttribute", binding.get_matrix_layout_attribute_dtype),
        (PREFERENCE_TYPES, "MatmulPreferenceAttribute", binding.get_matmul_preference_attribute_dtype),
    ):
        for attribute, dtype in types.items():
            assert getattr(binding, name)[attribute.name] == attribute
            assert dtype_of(attribute) == dtype, attribute
    assert {e.name: int(e) for e in binding.Epilogue} == {e.name: int(e) for e in Epilogue}
    for name in ("matmul_algo_dtype", "matmul_heuristic_result_dtype"):
        assert getattr(model, name) == getattr(binding, name)


@pytest.mark.usefixtures("binding")
def test_the_numbers_of_cuda_are_the_bindings() -> None:
    cublas = importlib.import_module("nvmath.bindings.cublas")
    data_types = importlib.import_module("nvmath.internal.typemaps").cudaDataType
    for name in ("CUDA_R_16F", "CUDA_R_16BF", "CUDA_R_32F", "CUDA_R_64F"):
        assert getattr(gemm, name) == data_types[name]
    for name in ("COMPUTE_32F", "COMPUTE_64F", "COMPUTE_32F_FAST_TF32"):
        assert getattr(gemm, name) == cublas.ComputeType[name]
    assert cublas.Operation.T == gemm.OPERATION_T
    assert set(COMPUTE_TYPES) <= {int(number) for number in cublas.ComputeType}
    assert set(HOST_TYPES) <= {int(number) for number in data_types}


class Session:
    """One 2 x 2 product, posed by hand with everything in its place; a test then puts one thing out of it."""

    def __init__(self) -> None:
        self.capturing = False
        self.lt: CublasLt = make_cublaslt(capturing=lambda: self.capturing)
        self.matrices = np.zeros((3, 32), "float32")  # further apart than 64 bytes
        start = -self.matrices.ctypes.data % 16 // 4
        self.A, self.B, self.D = (row[start : start + 4] for row in self.matrices)
        self.A[...], self.B[...] = (1, 2, 3, 4), (5, 6, 7, 8)
        self.scalars, self.workspace = np.array([2, 3], "float32"), np.zeros(64, "uint64")
        self.results, self.count = np.zeros(1, self.lt.matmul_heuristic_result_dtype), np.zeros(1, "int32")
        self.handle, self.preference = self.lt.create(), self.lt.matmul_preference_create()
        self.operation = self.lt.matmul_desc_create(68, 0)
        self.layouts = [self.lt.matrix_layout_create(0, 2, 2, 2) for _ in range(4)]
        for attribute in list(MatmulPreferenceAttribute)[1:]:
            self.set("matmul_preference", self.preference, attribute, ctypes.c_uint32(16))
        self.set("matmul_preference", self.preference, MatmulPreferenceAttribute(1), ctypes.c_uint64(512))
        self.workspace_bytes, self.shift = 512, 0

    def set(self, kind: str, target: int, attribute: int, value: Any) -> None:
        setter = getattr(self.lt, f"{kind}_set_attribute")
        setter(target, attribute, ctypes.addressof(value), ctypes.sizeof(value))

    def choose(self) -> None:
        a, b, c, d = self.layouts
        problem = (self.handle, self.operation, a, b, c, d, self.preference)
        self.lt.matmul_algo_get_heuristic(*problem, 1, self.results.ctypes.data, self.count.ctypes.data)

    def multiply(self) -> None:
        a, b, d = (X.ctypes.data + self.shift for X in (self.A, self.B, self.D))
        alpha, first, second, third, fourth = self.scalars.ctypes.data, *self.layouts
        operands = (alpha, a, first, b, second, alpha + 4, d, third, d, fourth)
        scratch = (self.results.ctypes.data, self.workspace.ctypes.data, self.workspace_bytes, 0)
        self.lt.matmul(self.handle, self.operation, *operands, *scratch)


@pytest.fixture
def session() -> Session:
    return Session()


def test_alpha_and_beta_and_columns(session: Session) -> None:
    session.D[...] = 1
    session.choose()
    session.multiply()
    # By columns A is [[1, 3], [2, 4]] and B is [[5, 7], [6, 8]].
    np.testing.assert_array_equal(session.D, [2 * 23 + 3, 2 * 34 + 3, 2 * 31 + 3, 2 * 46 + 3])


LAYOUT, DESC = MatrixLayoutAttribute, MatmulDescAttribute
WRONG_PROBLEMS = {
    "ld below rows": ("matrix_layout", LAYOUT.LD, ctypes.c_int64(1), "layout of A: 2 x 2, ld 1"),
    "row order": ("matrix_layout", LAYOUT.ORDER, ctypes.c_int32(1), "layout of A: .* order 1"),
    "negative stride": ("matrix_layout", LAYOUT.STRIDED_BATCH_OFFSET, ctypes.c_int64(-1), "layout of A: .* stride -1"),
    "empty": ("matrix_layout", LAYOUT.ROWS, ctypes.c_uint64(0), "layout of A: 0 x 2"),
    "inner size": ("matrix_layout", LAYOUT.COLS, ctypes.c_uint64(3), "layouts do not agree"),
    "batch": ("matrix_layout", LAYOUT.BATCH_COUNT, ctypes.c_int32(2), "layouts do not agree"),
    "type": (
        "matrix_layout",
        LAYOUT.TYPE,
        ctypes.c_uint32(1),
        "compute type 68, scale type 0, float64",
    ),
    "compute type": ("matmul_desc", DESC.COMPUTE_TYPE, ctypes.c_int32(70), "NOT_SUPPORTED.* compute type 70"),
    "scale type": ("matmul_desc", DESC.SCALE_TYPE, ctypes.c_int32(1), "NOT_SUPPORTED.* scale type 1"),
    "device scalars": ("matmul_desc", DESC.POINTER_MODE, ctypes.c_int32(1), "NOT_SUPPORTED.* host scalars"),
    "wrong size": ("matrix_layout", LAYOUT.BATCH_COUNT, ctypes.c_int64(1), "attribute 5 is int32, got 8 bytes"),
    "unknown": ("matmul_desc", 99, ctypes.c_int32(1), "INVALID_VALUE.* matmul_desc attribute 99"),
}


@pytest.mark.parametrize("case", WRONG_PROBLEMS)
def test_a_wrong_problem_is_refused(case: str, session: Session) -> None:
    kind, attribute, value, message = WRONG_PROBLEMS[case]
    target = session.operation if kind == "matmul_desc" else session.layouts[0]

    def pose() -> None:
        session.set(kind, target, attribute, value)
        session.choose()

    with pytest.raises(cuBLASLtError, match=message):
        pose()


def test_members_of_the_result_may_not_share_memory(session: Session) -> None:
    for layout in session.layouts:
        session.set("matrix_layout", layout, LAYOUT.BATCH_COUNT, ctypes.c_int32(2))
    with pytest.raises(cuBLASLtError, match="members of D share memory"):
        session.choose()


def test_tf32_is_for_float32(session: Session) -> None:
    for layout in session.layouts:
        session.set("matrix_layout", layout, LAYOUT.TYPE, ctypes.c_uint32(2))
    session.choose()
    session.set("matmul_desc", session.operation, DESC.COMPUTE_TYPE, ctypes.c_int32(77))
    with pytest.raises(cuBLASLtError, match="TF32 with float16"):
        session.choose()


def test_heuristics_are_refused_during_a_capture_and_without_room(session: Session) -> None:
    session.capturing = True
    with pytest.raises(cuBLASLtError, match="heuristics were asked while the stream is capturing"):
        session.choose()
    session.capturing, session.count = False, SimpleNamespace(ctypes=SimpleNamespace(data=0))  # type: ignore[assignment]
    with pytest.raises(cuBLASLtError, match="no room for a result"):
        session.choose()


def test_a_product_needs_an_algorithm_chosen_for_it(session: Session) -> None:
    with pytest.raises(cuBLASLtError, match="the algorithm was chosen for None"):
        session.multiply()
    session.choose()
    session.set("matmul_desc", session.operation, DESC.TRANSA, ctypes.c_int32(1))
    with pytest.raises(
        cuBLASLtError, match=r"the algorithm was chosen for Problem\(compute=68, scale=0, transposed=\(False, False\)"
    ):
        session.multiply()


def test_a_product_needs_its_alignment_its_workspace_and_every_pointer(session: Session) -> None:
    session.choose()
    session.shift = 4
    with pytest.raises(cuBLASLtError, match=r"needs alignments \(16, 16, 16, 16, 0, 0\)"):
        session.multiply()
    session.shift, session.workspace_bytes = 0, 8
    with pytest.raises(cuBLASLtError, match="workspace of 8 bytes"):
        session.multiply()
    session.results = SimpleNamespace(ctypes=SimpleNamespace(data=0))  # type: ignore[assignment]
    with pytest.raises(cuBLASLtError, match="a null pointer"):
        session.multiply()


def test_a_destroyed_or_foreign_descriptor_is_refused(session: Session) -> None:
    session.lt.matmul_desc_destroy(session.operation)
    with pytest.raises(cuBLASLtError, match="is no living matmul_desc"):
        session.lt.matmul_desc_destroy(session.operation)
    with pytest.raises(cuBLASLtError, match="is no living handle"):
        session.lt.destroy(session.layouts[0])


# Epilogues


class Ended(Session):
    """A session whose operation has an epilogue, with a vector and an auxiliary matrix that suit all of them."""

    def __init__(self, epilogue: int) -> None:
        super().__init__()
        self.vector, self.mask = np.array([10, -50], "float32"), np.zeros((2, 16), "uint8")
        self.argument = np.zeros((2, 8), "float32")
        bits = "RELU" in Epilogue(epilogue).name
        aux = self.mask if bits else self.argument
        for attribute, value in (
            (DESC.EPILOGUE, ctypes.c_uint32(epilogue)),
            (DESC.BIAS_POINTER, ctypes.c_int64(self.vector.ctypes.data)),
            (DESC.EPILOGUE_AUX_POINTER, ctypes.c_int64(aux.ctypes.data)),
            (DESC.EPILOGUE_AUX_LD, ctypes.c_int64(128 if bits else 8)),
        ):
            self.set("matmul_desc", self.operation, attribute, value)
        self.scalars[:] = 1, 0

    def run(self) -> Any:
        self.choose()
        self.multiply()
        return self.D.reshape(2, 2).T  # by columns


PRODUCT = np.array([[23.0, 31.0], [34.0, 46.0]])


def test_a_bias_runs_down_the_columns_and_a_mask_has_the_first_row_in_its_lowest_bit() -> None:
    session = Ended(Epilogue.RELU_AUX_BIAS)
    np.testing.assert_array_equal(session.run(), [[33, 41], [0, 0]])
    np.testing.assert_array_equal(session.mask[:, 0], [0b01, 0b01])
    session = Ended(Epilogue.DRELU_BGRAD)
    session.mask[:, 0] = 0b10, 0b11
    np.testing.assert_array_equal(session.run(), [[0, 31], [34, 46]])
    np.testing.assert_array_equal(session.vector, [31, 80])


def test_gradients_of_a_bias_are_sums_over_k() -> None:
    session = Ended(Epilogue.BGRADA)  # A is [[1, 3], [2, 4]], B is [[5, 7], [6, 8]]
    np.testing.assert_array_equal(session.run(), PRODUCT)
    np.testing.assert_array_equal(session.vector, [4, 6])
    session = Ended(Epilogue.BGRADB)
    np.testing.assert_array_equal(session.run(), PRODUCT)
    np.testing.assert_array_equal(session.vector, [11, 15])


def test_gelu_is_the_one_by_tanh_and_keeps_its_argument() -> None:
    session = Ended(Epilogue.GELU_AUX_BIAS)
    session.A[...], session.B[...] = (1, 0, 0, 1), (-9.5, 50.5, -10, 49)
    expected = np.array([[0.5, 0.0], [0.5, -1.0]])
    tangent = np.tanh(np.sqrt(2 / np.pi) * (expected + 0.044715 * expected**3))
    np.testing.assert_allclose(session.run(), 0.5 * expected * (1 + tangent), rtol=1e-6)
    np.testing.assert_array_equal(session.argument[:, :2].T, expected)
    slope = Ended(Epilogue.DGELU)
    slope.argument[:, :2] = (expected + 1e-3).T
    slope.A[...], slope.B[...] = (1, 0, 0, 1), 1
    higher, lower = (0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) for x in
                     (expected + 2e-3, expected))  # fmt: skip
    np.testing.assert_allclose(slope.run(), (higher - lower) / 2e-3, rtol=1e-4)


INT64 = ctypes.c_int64
WRONG_ENDINGS = {
    "unknown": (Epilogue.BIAS, DESC.EPILOGUE, ctypes.c_uint32(7), "INVALID_VALUE.*there is no epilogue 7"),
    "no vector": (Epilogue.BIAS, DESC.BIAS_POINTER, INT64(0), "INVALID_VALUE.*BIAS needs a vector, got 0"),
    "negative stride": (Epilogue.BIAS, DESC.BIAS_BATCH_STRIDE, INT64(-1), "BIAS needs a vector, .* stride -1"),
    "other vector": (Epilogue.BIAS, DESC.BIAS_DATA_TYPE, ctypes.c_int32(1), "NOT_SUPPORTED.*vector of float64"),
    "no mask": (Epilogue.RELU_AUX, DESC.EPILOGUE_AUX_POINTER, INT64(0), "INVALID_VALUE.*RELU_AUX: aux at 0"),
    "mask ld": (Epilogue.DRELU, DESC.EPILOGUE_AUX_LD, INT64(64), "INVALID_VALUE.*DRELU: aux at .*, ld 64"),
    "argument ld": (Epilogue.DGELU, DESC.EPILOGUE_AUX_LD, INT64(2), "INVALID_VALUE.*DGELU: aux at .*, ld 2"),
    "mask stride": (Epilogue.DRELU, DESC.EPILOGUE_AUX_BATCH_STRIDE, INT64(64), "DRELU: aux at .*, stride 64"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_ENDINGS)
def test_a_wrong_ending_is_refused(case: str) -> None:
    epilogue, attribute, value, message = WRONG_ENDINGS[case]
    session = Ended(epilogue)
    session.choose()
    session.set("matmul_desc", session.operation, attribute, value)
    with pytest.raises(cuBLASLtError, match=message):
        session.choose()


def test_members_write_to_places_of_their_own() -> None:
    for epilogue, attribute, message in (
        (Epilogue.BGRADA, DESC.BIAS_BATCH_STRIDE, "members share the vector of BGRADA"),
        (Epilogue.RELU_AUX, DESC.EPILOGUE_AUX_BATCH_STRIDE, "members share the aux of RELU_AUX"),
    ):
        session = Ended(epilogue)
        for layout in session.layouts:
            session.set("matrix_layout", layout, LAYOUT.BATCH_COUNT, ctypes.c_int32(2))
            session.set("matrix_layout", layout, LAYOUT.STRIDED_BATCH_OFFSET, INT64(4))
        with pytest.raises(cuBLASLtError, match=message):
            session.choose()
        session.set("matmul_desc", session.operation, attribute, INT64(256))
        session.choose()


def test_a_gradient_of_one_term_and_a_bias_by_rows_are_not_supported() -> None:
    session = Ended(Epilogue.DRELU)
    session.set("matrix_layout", session.layouts[0], LAYOUT.COLS, ctypes.c_uint64(1))
    session.set("matrix_layout", session.layouts[1], LAYOUT.ROWS, ctypes.c_uint64(1))
    with pytest.raises(cuBLASLtError, match="NOT_SUPPORTED.*DRELU of a sum of one term"):
        session.choose()
    session = Ended(Epilogue.BIAS)
    session.set("matrix_layout", session.layouts[3], LAYOUT.ORDER, ctypes.c_int32(1))
    with pytest.raises(cuBLASLtError, match="NOT_SUPPORTED.*epilogue 4 of a D by rows"):
        session.choose()


def test_an_algorithm_counts_on_the_alignment_that_the_vector_had() -> None:
    session = Ended(Epilogue.BIAS)
    room = np.zeros(16, "float32")
    start = -room.ctypes.data % 16 // 4
    session.set("matmul_desc", session.operation, DESC.BIAS_POINTER, INT64(room[start:].ctypes.data))
    session.choose()
    session.set("matmul_desc", session.operation, DESC.BIAS_POINTER, INT64(room[start + 1 :].ctypes.data))
    with pytest.raises(cuBLASLtError, match=r"needs alignments \(16, 16, 16, 16, 16, 0\)"):
        session.multiply()


def test_an_algorithm_can_be_refused_by_epilogue() -> None:
    session = Ended(Epilogue.BIAS)
    session.lt.refused.add(Epilogue.BIAS)
    session.choose()
    assert session.count[0] == 0
