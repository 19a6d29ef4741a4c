"""NVRTC compiles the .cu files for every architecture; elementwise formulas become kernels."""

import io
import re
from typing import Any

import numpy as np
import pytest

from gpunn.backends.cuda.formulas import elementwise_source
from gpunn.backends.cuda.kernels import BLOCK, kernel_source
from gpunn.backends.cuda.launch import IrregularOperandError
from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import Formula, elementwise
from gpunn.backends.reference.backend import Backend
from gpunn.types import COLUMNS
from tests.backends.comparison import assert_close
from tests.backends.every_operation import everything, everything_inputs

ARCHITECTURES = (80, 90, 100, 120)
# What a text needs beside T and ACC; "T" is T again.
TYPES: dict[str, dict[str, str]] = {
    "cross_entropy": {"R": "T", "I": "int64"},
    "gather": {"S": "uint8", "I": "int64"},
    "lookup": {"S": "T", "I": "int64"},
    "normalization": {},
    "random": {},
    "scores": {"S": "T", "I": "float64"},
    "softmax": {"S": "T", "R": "T"},
    "reductions": {"S": "float32"},
}
# For half precision also: what is read is half and what is written float32, or the other way round.
MIXED = {
    "softmax": ("S", "R"),
    "cross_entropy": ("R",),
    "scores": ("S",),
    "reductions": ("S",),
    "gather": ("S",),
    "lookup": ("S",),
}


def types_of(name: str, dtype: str, others: str | None = None) -> tuple[tuple[str, str], ...]:
    """The types of a .cu file for results of `dtype`; what may be mixed is read as `others`."""
    own = {symbol: dtype if kind == "T" else kind for symbol, kind in TYPES[name].items()}
    if others is not None:
        own |= dict.fromkeys(MIXED[name], others)
    return (("T", dtype), ("ACC", "float64" if dtype == "float64" else "float32"), *own.items())


@pytest.fixture(scope="module")
def nvrtc() -> Any:
    compiler = pytest.importorskip("cupy").cuda.compiler
    try:
        compiler._NVRTCProgram('extern "C" __global__ void f() {}').compile(("-arch=sm_80",))
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"NVRTC cannot be loaded: {error}")
    return compiler


def compile_with(nvrtc: Any, source: str, architecture: int, *options: str) -> str:
    """What ptxas says about registers, with the option that CuPy adds."""
    log = io.StringIO()
    options = (*options, f"-arch=sm_{architecture}", "-ftz=true", "--ptxas-options=-v")
    nvrtc._NVRTCProgram(source, "kernel.cu", method="cubin").compile(options, log)
    return log.getvalue()


def test_every_cuda_text_is_among_those_tested() -> None:
    from importlib import resources

    files = {
        file.name for file in resources.files("gpunn.backends.cuda.kernels").iterdir() if file.name.endswith(".cu")
    }
    assert files == {f"{name}.cu" for name in TYPES} | {"common.cu"}
    assert f"#define BLOCK {BLOCK}\n" in kernel_source("softmax", ())


def assert_no_spills(nvrtc: Any, source: str, architectures: tuple[int, ...] = ARCHITECTURES) -> None:
    for architecture in architectures:
        log = compile_with(nvrtc, source, architecture)
        spills, registers = re.findall(r"(\d+) bytes spill", log), re.findall(r"Used (\d+) registers", log)
        assert len(spills) >= 2 * len(registers) > 0, log  # sin and cos bring functions of their own
        assert not any(int(n) for n in spills), log
        assert max(int(n) for n in registers) <= 80, log  # three blocks of 256 threads share a file of 65,536


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TYPES)
def test_nvrtc_compiles_a_cuda_text_without_register_spills(nvrtc: Any, name: str, dtype: str) -> None:
    assert_no_spills(nvrtc, kernel_source(name, types_of(name, dtype)))


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", TYPES)
def test_nvrtc_compiles_a_half_precision_cuda_text_without_register_spills(nvrtc: Any, name: str, half: str) -> None:
    assert_no_spills(nvrtc, kernel_source(name, types_of(name, half)))
    if name in MIXED:
        for written, read in (("float32", half), (half, "float32")):
            assert_no_spills(nvrtc, kernel_source(name, types_of(name, written, read)), (90,))


@pytest.mark.parametrize(("half", "instruction", "since"), [("float16", "f16", 75), ("bfloat16", "bf16", 80)])
def test_half_precision_is_converted_by_an_instruction_of_the_gpu(
    nvrtc: Any, half: str, instruction: str, since: int
) -> None:
    source = kernel_source("gather", types_of("gather", half, "float32"))
    for architecture in (75, 80, 90):
        program = nvrtc._NVRTCProgram(source, "kernel.cu", method="ptx")
        text = program.compile((f"-arch=compute_{architecture}",))[0].decode()
        assert (f"cvt.rn.{instruction}.f32" in text) == (architecture >= since)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_formula_may_use_every_operation(backend: Any, dtype: str) -> None:
    host = everything_inputs()
    expected = everything(Backend().math, *host, 1.25)
    inputs = tuple(backend.from_host(a, dtype if a.dtype == np.float64 else None) for a in host)
    kinds = (dtype, dtype, dtype, "bool", dtype)
    outputs = tuple(backend.zeros(host[0].shape, kind) for kind in kinds)
    backend.elementwise(everything, (*inputs, 1.25), outputs)
    for out, wanted in zip(outputs, expected, strict=True):
        assert_close(backend.to_host(out), wanted, dtype)


@pytest.mark.parametrize("op", ["maximum", "minimum", "sign", "absolute", "exp", "tanh"])
def test_elementwise_operations_keep_nan(backend: Any, op: str) -> None:
    two = op in ("maximum", "minimum")
    formula = Formula((lambda xp, x, y: getattr(xp, op)(x, y)) if two else (lambda xp, x, y: getattr(xp, op)(x)))
    formula.name = f"nan_{op}"
    x, y = np.array([np.nan, 1.0, np.nan]), np.array([1.0, np.nan if two else 1.0, np.nan])
    out = backend.zeros((3,), "float64")
    backend.elementwise(formula, (backend.from_host(x), backend.from_host(y)), (out,))
    np.testing.assert_array_equal(np.isnan(backend.to_host(out)), [True, two, True])


def test_elementwise_formulas_promote_mixed_dtypes_as_numpy_does(backend: Any) -> None:
    rng = np.random.default_rng(21)
    x, y = rng.standard_normal((2, 50)).astype(np.float32)
    wide = backend.zeros((50,), "float64")
    backend.elementwise(formulas.multiply, (backend.from_host(x, "float64"), backend.from_host(y)), (wide,))
    np.testing.assert_array_equal(backend.to_host(wide), x.astype(np.float64) * y)
    counts = np.arange(50, dtype=np.uint8)
    backend.elementwise(formulas.multiply, (backend.from_host(counts), backend.from_host(y)), (wide,))
    np.testing.assert_array_equal(backend.to_host(wide), counts.astype(np.float32) * y)


def test_a_dropout_threshold_of_65536_drops_everything(strict: Any) -> None:
    """65536 does not fit into uint16: the comparison must not wrap it to 0."""
    bits, X = strict.from_host(np.array([0, 65535], np.uint16)), strict.from_host(np.ones(2, np.float32))
    out = strict.zeros((2,), "float32")
    strict.elementwise(formulas.dropout, (X, bits, 65536, 1.0), (out,))
    np.testing.assert_array_equal(strict.to_host(out), [0, 0])


def test_a_formula_with_another_constant_gets_another_kernel(strict: Any) -> None:
    x, out = strict.from_host(np.array([2.0])), strict.zeros((1,), "float64")
    for constant in (True, 3, 0.5, np.inf, -np.inf, -1e-300):
        strict.elementwise(formulas.multiply, (x, constant), (out,))
        assert strict.to_host(out)[0] == 2.0 * constant
    strict.elementwise(formulas.multiply, (x, np.nan), (out,))
    assert np.isnan(strict.to_host(out)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kernel_of_a_float32_formula_has_no_double(dtype: str) -> None:
    x, y, bits = (np.ones(1, d) for d in (dtype, dtype, "uint16"))
    outputs = tuple(np.ones(1, d) for d in (dtype, dtype, dtype, "bool", dtype))
    reads, writes, body = elementwise_source(everything, (x, y, bits, 1.25), outputs)
    assert reads == f"{dtype} x0, {dtype} x1, uint16 x2"
    assert writes.startswith(f"{dtype} y0, ")
    literals = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?(?:f|ll)?(?![\w.])", body)
    floating = [text for text in literals if "." in text or "e" in text]
    assert floating
    assert all(text.endswith("f") == (dtype == "float32") for text in floating)
    assert ("double" in body) == (dtype == "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nvrtc_compiles_elementwise_formulas_without_register_spills(nvrtc: Any, dtype: str) -> None:
    """The body is tested in a kernel of the test: CuPy's own kernel is private and needs headers of the CUDA
    toolkit."""
    c = {"float32": "float", "float64": "double", "uint16": "unsigned short", "bool": "bool"}
    inputs = tuple(np.ones(1, d) for d in (dtype, dtype, "uint16"))
    outputs = tuple(np.ones(1, d) for d in (dtype, dtype, dtype, "bool", dtype))
    reads, writes, body = elementwise_source(everything, (*inputs, 1.25), outputs)
    parameters = [p.split() for p in f"{reads}, {writes}".split(", ")]
    arguments = ", ".join(f"{c[kind]} *p_{name}" for kind, name in parameters)
    references = " ".join(f"{c[kind]} &{name} = p_{name}[threadIdx.x];" for kind, name in parameters)
    source = f'extern "C" __global__ void f({arguments}) {{ {references}\n{body}\n}}'
    for architecture in ARCHITECTURES:
        log = compile_with(nvrtc, source, architecture)
        assert not any(int(n) for n in re.findall(r"(\d+) bytes spill", log)), log


@elementwise
def exchanged(xp: Any, x: Any, y: Any) -> Any:
    return y, x


def test_an_elementwise_kernel_reads_all_inputs_before_it_writes(strict: Any) -> None:
    x, y = strict.from_host(np.arange(5.0)), strict.from_host(np.arange(5.0, 10.0))
    strict.elementwise(exchanged, (x, y), (x, y))
    np.testing.assert_array_equal(strict.to_host(x), np.arange(5.0, 10.0))
    np.testing.assert_array_equal(strict.to_host(y), np.arange(5.0))


def test_a_cuda_kernel_is_compiled_once(strict: Any) -> None:
    X, out = strict.zeros((4, 3), "float32"), strict.zeros((1, 3), "float32")
    strict.sum(X, COLUMNS, out=out)
    modules, functions = dict(strict.kernels._modules), dict(strict.kernels._functions)
    strict.sum(X, COLUMNS, out=out)
    assert modules == strict.kernels._modules
    assert functions == strict.kernels._functions


# d, indices and out of a lookup gradient: shape and dtype of each.
REFUSED = {
    "dtype": (((2, 3), "float32"), ((2,), "int64"), ((4, 3), "float64")),
    "width": (((2, 3), "float32"), ((2,), "int64"), ((4, 5), "float32")),
    "count": (((2, 3), "float32"), ((3,), "int64"), ((4, 3), "float32")),
    "half": (((2, 3), "float16"), ((2,), "int64"), ((4, 3), "float64")),
    "index": (((2, 3), "float32"), ((2,), "float32"), ((4, 3), "float32")),
    "none": (((0, 3), "float32"), ((0,), "int64"), ((4, 3), "float32")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_operands_without_a_cuda_kernel_are_refused_before_a_launch(strict: Any, case: str) -> None:
    d, indices, out = (strict.zeros(*array) for array in REFUSED[case])
    with pytest.raises(IrregularOperandError, match="no kernel"):
        strict.lookup_gradient(d, indices, out=out)


def test_random_words_need_unsigned_keys_and_contiguous_memory(strict: Any) -> None:
    step, out = strict.zeros((1,), "int64"), strict.zeros((8,), "uint64")
    for key, target in ((strict.zeros((2,), "int64"), out), (strict.zeros((2,), "uint64"), out[::2])):
        with pytest.raises(IrregularOperandError, match="no kernel"):
            strict.random_words(key, step, out=target)


def test_operands_of_wrong_shapes_reach_no_cuda_kernel(strict: Any) -> None:
    Z = strict.zeros((4, 3), "float32")
    with pytest.raises(ValueError, match=r"broadcast|mismatch"):
        strict.softmax_gradient(Z, Z, out=strict.zeros((4, 2), "float32"))
    with pytest.raises(IrregularOperandError, match="70000 models"):
        strict.launch("reductions", "sum_rows", (), (1, 70000))
