"""Products fused with a bias, an activation, a gradient or sums, computed by a model of cuBLASLt on the host."""

from typing import Any

import numpy as np
import pytest

from gpunn.backends.cuda import gemm_plan
from gpunn.backends.cuda.gemm_plan import ENDINGS, mask_bytes, plan_product
from tests.backends.gemm_device import PAIRS, Device, aligned, random_operand
from tests.strict.cublaslt import cuBLASLtError
from tests.strict.epilogues import Epilogue, gelu, gelu_derivative


@pytest.fixture
def device() -> Device:
    return Device()


def bits_of(positive: Any, bytes_: int) -> Any:
    """Packed as cuBLASLt packs them: the first number is the lowest bit; rows filled with zeros."""
    packed = np.packbits(positive, axis=-1, bitorder="little")
    return np.concatenate([packed, np.zeros((*packed.shape[:-1], bytes_ - packed.shape[-1]), "uint8")], axis=-1)


class Region:
    """An array in rows with gaps, the memory it lies in, and what it must hold in the end; None: what it held."""

    def __init__(self, rng: Any, shape: tuple[int, ...], dtype: Any, multiple: int = 1) -> None:
        rows, columns = shape[-2:]
        width = -(-columns // multiple) * multiple + multiple * int(rng.integers(3))
        self.memory = aligned((*shape[:-2], rows + int(rng.integers(2)), width), dtype)
        self.memory[...] = rng.integers(0, 256 if self.memory.dtype == np.uint8 else 5, self.memory.shape)
        self.place = (..., slice(rows), slice(columns))
        self.array = self.memory[self.place]
        self.expected: Any = None


class Case:
    """A random product with an ending, and all that it must write, in float64."""

    def __init__(self, rng: Any, ending: str, dtype: Any, result: Any) -> None:
        self.ending, self.result = ending, np.dtype(result)
        rows, inner, self.columns = (1 if rng.random() < 0.15 else int(rng.integers(1, 12)) for _ in range(3))
        if rng.random() < 0.3:
            self.columns = int(rng.choice([8, 16, 127, 128, 129, 200]))
        population = [None, 1, 2, 5][rng.integers(4)]
        lead = () if population is None else (population,)
        self.A = random_operand(rng, rows, inner, population, dtype)
        self.B = random_operand(rng, inner, self.columns, population, dtype)
        self.by_columns = rng.random() < 0.1
        shape = (self.columns, rows) if self.by_columns else (rows, self.columns)
        self.out = Region(rng, (*lead, *shape), result)
        self.vector = self.aux = None
        gradient, written = ending.endswith("gradient"), ending == "column_sums"
        if ending == "bias" or written or rng.random() < 0.5:
            shared = not (gradient or written) and rng.random() < 0.3
            self.vector = Region(rng, (*(() if shared else lead), 1, self.columns), result)
        if gradient or (ending in ("relu", "gelu") and rng.random() < 0.5):
            if ending.startswith("relu"):
                self.aux = Region(rng, (*lead, rows, mask_bytes(self.columns)), "uint8", multiple=16)
            else:
                self.aux = Region(rng, (*lead, rows, self.columns), result, multiple=8 if rng.random() < 0.8 else 1)
        self.expect()

    @property
    def arrays(self) -> tuple[Any, ...]:
        out = self.out.array.mT if self.by_columns else self.out.array
        return self.A, self.B, out, *(None if X is None else X.array for X in (self.vector, self.aux))

    def expect(self) -> None:
        A, B, out, vector, aux = (None if X is None else X.astype("float64") for X in self.arrays)
        values = np.broadcast_to(A @ B, out.shape)
        if self.ending in ("bias", "relu", "gelu") and vector is not None:
            values = values + vector
        if self.ending == "relu":
            if self.aux is not None:
                self.aux.expected = bits_of(values > 0, aux.shape[-1])
            values = np.maximum(values, 0)
        elif self.ending == "gelu":
            if self.aux is not None:
                self.aux.expected = values
            values = gelu(values)
        elif self.ending == "relu_gradient":
            values = values * self.bits()
        elif self.ending == "gelu_gradient":
            values = values * gelu_derivative(aux)
        self.out.expected = values.mT if self.by_columns else values
        if self.vector is not None and self.ending.endswith("gradient"):
            self.vector.expected = values.sum(axis=-2, keepdims=True)
        if self.vector is not None and self.ending == "column_sums":
            self.vector.expected = np.broadcast_to(B.sum(axis=-2, keepdims=True), vector.shape)

    def bits(self) -> Any:
        assert self.aux is not None
        return np.unpackbits(self.aux.array, axis=-1, count=self.columns, bitorder="little")

    def run(self, device: Device) -> bool:
        """Run the product and return whether it was fused; check the result and that no other memory was written."""
        regions = [X for X in (self.out, self.vector, self.aux) if X is not None]
        before = [X.memory.copy() for X in regions]
        fused = device.fused(self.ending, *self.arrays)
        for memory, region in zip(before, regions, strict=True):
            if fused and region.expected is not None:
                got = region.array.astype("float64")
                if self.ending == "relu" and region is self.aux:  # nobody looks at what fills up the rows
                    got = bits_of(self.bits(), got.shape[-1])
                size = float(np.abs(self.out.expected).max(initial=1))
                tolerance = 64 * size * EPSILON[self.result.name] if "gelu" in self.ending else 0
                np.testing.assert_allclose(got, region.expected, rtol=0, atol=tolerance)
                memory[region.place] = region.array
            np.testing.assert_array_equal(region.memory.view("uint8"), memory.view("uint8"))
        if not fused:
            A, B, out, vector, aux = self.arrays
            with pytest.raises(ValueError, match="gemm .*expected"):
                plan_product(A, B, out, self.ending, vector, aux)
        return fused


EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@pytest.mark.parametrize(("dtype", "result"), PAIRS, ids=str)
@pytest.mark.parametrize("ending", ENDINGS)
def test_products_with_fused_endings_equal_numpy_and_write_no_other_memory(
    ending: str, dtype: Any, result: Any, device: Device
) -> None:
    rng = np.random.default_rng([*map(ord, f"{ending}{dtype}{result}")])
    fused = sum(Case(rng, ending, dtype, result).run(device) for _ in range(120))
    assert fused > 40  # the others have an out by columns, one term, or an aux of odd width
    assert len(device.lt.launched) == fused


NUMBERS = (
    ("bias", True, False, Epilogue.BIAS), ("relu", False, False, Epilogue.RELU),
    ("relu", True, False, Epilogue.RELU_BIAS), ("relu", False, True, Epilogue.RELU_AUX),
    ("relu", True, True, Epilogue.RELU_AUX_BIAS), ("gelu", False, False, Epilogue.GELU),
    ("gelu", True, False, Epilogue.GELU_BIAS), ("gelu", False, True, Epilogue.GELU_AUX),
    ("gelu", True, True, Epilogue.GELU_AUX_BIAS), ("relu_gradient", False, True, Epilogue.DRELU),
    ("relu_gradient", True, True, Epilogue.DRELU_BGRAD), ("gelu_gradient", False, True, Epilogue.DGELU),
    ("gelu_gradient", True, True, Epilogue.DGELU_BGRAD), ("column_sums", True, False, Epilogue.BGRADA),
)  # fmt: skip


@pytest.mark.parametrize(("ending", "vector", "aux", "number"), NUMBERS, ids=str)
def test_a_fused_ending_has_its_cublaslt_epilogue_number(ending: str, vector: bool, aux: bool, number: int) -> None:
    A, B, out, v = np.ones((3, 2)), np.ones((2, 8)), np.ones((3, 8)), np.ones((1, 8))
    a = np.ones((3, 16), "uint8") if ending.startswith("relu") else np.ones((3, 8))
    epilogue = plan_product(A, B, out, ending, v if vector else None, a if aux else None).epilogue
    assert epilogue.number == number
    assert epilogue.aux_ld == (0 if not aux else 128 if ending.startswith("relu") else 8)
    assert plan_product(A, B, out).epilogue.number == Epilogue.DEFAULT == gemm_plan.DEFAULT


def test_a_population_gives_bias_and_mask_their_strides() -> None:
    A, B, out = np.ones((5, 3, 2)), np.ones((2, 130)), np.ones((5, 3, 130))
    flat, mask = np.ones((5, 1000)), np.ones((5, 4, 48), "uint8")[:, :3, :32]
    own, shared = flat[:, 64:194].reshape(5, 1, 130), np.ones((1, 130))
    product = plan_product(A, B, out, "relu", own, mask)
    assert product.swapped
    assert (product.m, product.n, product.epilogue.vector_stride) == (130, 3, 1000)
    assert (product.epilogue.aux_ld, product.epilogue.aux_stride) == (48 * 8, 4 * 48 * 8)
    assert plan_product(A, B, out, "relu", shared, mask).epilogue.vector_stride == 0


def test_a_product_of_one_column_with_a_bias_is_planned_by_rows() -> None:
    """Planned by columns, as a product without an ending is, its bias would be added along the wrong axis."""
    A, B, out, b = np.ones((5, 3)), np.ones((3, 1)), np.ones((5, 1)), np.ones((1, 1))
    alone, fused = plan_product(A, B, out), plan_product(A, B, out, "bias", b)
    assert (alone.swapped, alone.m, alone.n, alone.ldc) == (False, 5, 1, 5)
    assert (fused.swapped, fused.m, fused.n, fused.ldc) == (True, 1, 5, 1)


SHAPES = {"A": (4, 3), "B": (3, 8), "out": (4, 8), "vector": (1, 8), "aux": (4, 16)}
REFUSED = {
    "bias without vector": ("bias", {"vector": None}, "gemm bias: expected the arrays .* got neither"),
    "bias with aux": ("bias", {"aux": np.ones((4, 8))}, "gemm bias: .* got vector and aux"),
    "gradient without aux": ("relu_gradient", {"aux": None}, "gemm relu_gradient: .* got vector"),
    "sums without vector": ("column_sums", {"vector": None, "aux": None}, "gemm column_sums: .* got neither"),
    "out by columns": ("relu", {"out": np.ones((8, 4)).T}, "gemm out: expected contiguous rows, for relu, got contig"),
    "one term": ("relu_gradient", {"A": np.ones((4, 1)), "B": np.ones((1, 8))}, "two terms or more, .* got one"),
    "vector of another dtype": ("relu", {"vector": np.ones((1, 8), "float32")}, "vector: expected float64, as out"),
    "vector too short": ("relu", {"vector": np.ones((1, 7))}, r"vector: expected contiguous rows of shape \(1, 8\)"),
    "vector upright": ("relu", {"vector": np.ones((8, 1))}, r"vector: expected contiguous rows .* got \(8, 1\)"),
    "vector with gaps": ("relu", {"vector": np.ones((1, 16))[:, ::2]}, "vector: expected contiguous rows"),
    "vector of a population": ("relu", {"vector": np.ones((2, 1, 8))}, "vector: .* population of None, .* got 2"),
    "mask of another dtype": ("relu", {"aux": np.ones((4, 16), "int8")}, "aux: expected uint8, got int8"),
    "mask too narrow": ("relu", {"aux": np.ones((4, 1), "uint8")}, r"aux: expected contiguous rows of shape \(4, 16\)"),
    "mask rows too close": (
        "relu", {"aux": np.ones((4, 17), "uint8")[:, :16]}, "aux: expected rows at multiples of 128 bits, got 136 from",
    ),
    "argument of another dtype": ("gelu", {"aux": np.ones((4, 8), "float32")}, "aux: expected float64, as out"),
    "argument rows too close": (
        "gelu", {"aux": np.ones((4, 9))[:, :8]}, "aux: expected rows at multiples of 8 elements, got 9 from row to row",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_fused_endings_that_cublaslt_cannot_express_are_refused(case: str, device: Device) -> None:
    ending, changes, message = REFUSED[case]
    arrays: dict[str, Any] = {name: np.ones(shape) for name, shape in SHAPES.items()}
    arrays["aux"] = np.ones((4, 16), "uint8") if ending.startswith("relu") else None
    A, B, out, vector, aux = arrays.values()
    plan_product(A, B, out, ending, vector, aux)
    A, B, out, vector, aux = (arrays | changes).values()
    with pytest.raises(ValueError, match=message):
        plan_product(A, B, out, ending, vector, aux)
    assert not device.fused(ending, A, B, out, vector, aux)
    assert device.lt.heuristic_calls == 0


POPULATION = {"A": (2, 4, 3), "B": (3, 8), "out": (2, 4, 8)}


@pytest.mark.parametrize(
    ("ending", "vector", "aux", "message"),
    [
        ("column_sums", (1, 8), None, "vector: expected a population of 2, since each writes its own, got None"),
        ("relu", (2, 1, 8), (4, 16), "aux: expected a population of 2, since each writes its own, got None"),
        ("relu", (3, 1, 8), None, "vector: expected a population of 2, as out has"),
    ],
)
def test_each_model_needs_its_own_memory_for_what_a_fused_ending_writes(
    ending: str, vector: Any, aux: Any, message: str
) -> None:
    A, B, out = (np.ones(shape) for shape in POPULATION.values())
    with pytest.raises(ValueError, match=message):
        plan_product(A, B, out, ending, np.ones(vector), None if aux is None else np.ones(aux, "uint8"))
    overlapping = np.broadcast_to(np.ones((1, 1, 8)), (2, 1, 8))
    with pytest.raises(ValueError, match="vector: expected elements that do not share memory"):
        plan_product(A, B, out, "column_sums", overlapping)


# Descriptors, algorithms and captures


def biased(columns: int = 8) -> tuple[Any, ...]:
    return (*(aligned((columns, columns)) for _ in range(3)), aligned((1, columns)))


def test_a_fused_product_uses_the_bias_vector_of_the_call(device: Device) -> None:
    A, B, out, first = biased()
    second = aligned((1, 8), value=5.0)
    for vector, expected in ((first, 9), (second, 13), (first, 9)):
        assert device.fused("bias", A, B, out, vector)
        np.testing.assert_array_equal(out, expected)
    assert device.lt.heuristic_calls == 1
    masks = [aligned((8, 16), "uint8", value) for value in (0, 255)]
    for mask, expected in ((masks[0], 0), (masks[1], 8), (masks[0], 0)):
        assert device.fused("relu_gradient", A, B, out, None, mask)
        np.testing.assert_array_equal(out, expected)
    assert device.lt.heuristic_calls == 2


def test_a_refused_fused_ending_is_tried_once_and_products_without_one_still_work(device: Device) -> None:
    A, B, out, vector = biased()
    device.lt.refused.add(Epilogue.BIAS)
    out[...] = 7
    for _ in range(3):
        assert not device.fused("bias", A, B, out, vector)
    np.testing.assert_array_equal(out, 7)
    assert device.lt.heuristic_calls == 1
    assert device.lt.live == 1  # the handle
    assert device.fused("relu", A, B, out, vector)
    device(A, B, out)
    assert device.lt.launched == [Epilogue.RELU_BIAS, Epilogue.DEFAULT]


def test_an_error_status_of_the_heuristics_refuses_a_fused_ending(device: Device) -> None:
    A, B, out, vector = biased()

    def unsupported(*_: Any) -> None:
        raise cuBLASLtError(15, "as the library answers")

    device.lt.matmul_algo_get_heuristic = unsupported
    assert not device.fused("bias", A, B, out, vector)
    with pytest.raises(RuntimeError, match="no algorithm"):
        device(A, B, out)


def test_a_captured_fused_product_replays_on_the_current_content_of_its_buffers(device: Device) -> None:
    A, B, out, vector = biased()
    other = aligned((1, 8), value=100.0)
    device.capturing = True
    with pytest.raises(RuntimeError, match=r"is new while the stream is capturing; run the product once before"):
        device.fused("bias", A, B, out, vector)
    assert not device.fused("bias", A, B, out.T, vector)  # settled without the library
    device.capturing = False
    device.fused("bias", A, B, out, vector)
    device.capturing = True
    assert device.fused("bias", A, B, out, vector)
    device.capturing = False
    device.fused("bias", A, B, out, other)
    vector[...] = 3
    device.recorded[0]()
    np.testing.assert_array_equal(out, 11)


def test_an_empty_product_is_not_fused_with_an_ending(device: Device) -> None:
    assert not device.fused("bias", np.ones((3, 0)), np.ones((0, 2)), np.ones((3, 2)), np.ones((1, 2)))
    assert not device.fused("bias", np.ones((0, 3)), np.ones((3, 2)), np.ones((0, 2)), np.ones((1, 2)))
