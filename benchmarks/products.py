"""At what rate do the matrix products of a step run alone, and what share of the step is that?

    python -m benchmarks.products

Large square products, then the very products of a step: their rate, the whole step's, and the share of its time that
they would take at the rate measured alone, in the same run. On the CPU PyTorch does them too: it brings a BLAS of its
own, and NumPy's is not as fast on every processor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.cases import GRID, LARGE_ON_CUDA, SMALL_ON_CUDA, Case
from benchmarks.command import alone
from benchmarks.harness import NOT_INSTALLED, Calls, MissingPeerError, Row, Setting, Subject, compared, say
from benchmarks.peers import competing, ours
from gpunn.backends import get_backend
from gpunn.backends.reference.backend import Backend

Product = Callable[[Any, Any, Any], Any]
ALONE, STEP, TORCH = "products alone", "step", "torch's products"


def sizes(kind: str, quick: bool) -> tuple[int, ...]:
    if quick:
        return (256,)
    return (4096, 8192) if kind == "cuda" else (1024, 2048, 4096)


def step_cases(kind: str, quick: bool) -> list[Case]:
    """The grid's nets whose steps are mostly products."""
    if quick:
        return [GRID[1]]
    return [GRID[3], GRID[5], *([SMALL_ON_CUDA, LARGE_ON_CUDA] if kind == "cuda" else [])]


def run(setting: Setting) -> list[Row]:
    ops = setting.device if isinstance(setting.device, Backend) else get_backend(setting.device)
    kind = ours.kind_of(ops)
    rows = []
    for dtype in ("float32", *(("tf32", "bfloat16") if kind == "cuda" else ())):
        for size in sizes(kind, setting.quick):
            say(f"products: {size} {dtype}")
            rows.append(square(ops, dtype, size, setting))
    best = max((row.median for row in rows if row.runs and row.case.endswith("float32")), default=0.0)
    best_half = max((row.median for row in rows if row.runs and row.case.endswith("bfloat16")), default=0.0)
    for case in step_cases(kind, setting.quick):
        say(f"products: {case}")
        rows += share(ops, case, setting, best if case.dtype == "float32" else best_half)
    return rows


def square(ops: Backend, dtype: str, size: int, setting: Setting) -> Row:
    """The rate of one product of two square matrices."""

    def product() -> Subject:
        return Calls(all_products(ops, dtype, [(size, size, size)]), ops.synchronize)

    case = f"{size} x {size} x {size} {dtype}"
    return rates(ops, 2 * size**3, compared("products", case, {ALONE: product}, setting))[0]


def share(ops: Backend, case: Case, setting: Setting, best: float) -> list[Row]:
    """The rates of a step's products alone, of the step, and of PyTorch's products, in turns."""
    makers: dict[str, Callable[[], Subject]] = {
        ALONE: lambda: Calls(all_products(ops, case.dtype, case.products), ops.synchronize),
        STEP: lambda: ours.Steps(case, ops),
    }
    if ours.kind_of(ops) == "cpu":
        makers[TORCH] = lambda: Calls(competing("torch", "torch_peer").products(case.products))
    rows = rates(ops, case.flops, compared("products", str(case), makers, setting))
    alone_row, step_row = rows[:2]
    if alone_row.runs and step_row.runs:
        step_row.details["of the step's time at the products' rate"] = f"{step_row.median / alone_row.median:.0%}"
        if best:
            step_row.details["at the best square rate"] = f"{step_row.median / best:.0%}"
    return rows


def unit(ops: Backend) -> str:
    return "TFLOP/s" if ours.kind_of(ops) == "cuda" else "GFLOP/s"


def rates(ops: Backend, flops: int, rows: list[Row]) -> list[Row]:
    """What took so many microseconds for so many operations, at its rate."""
    scale = 1e6 if unit(ops) == "TFLOP/s" else 1e3
    return [replace(row, unit=unit(ops), runs=[flops / run / scale for run in row.runs]) for row in rows]


def all_products(ops: Backend, dtype: str, shapes: list[tuple[int, int, int]]) -> Callable[[], None]:
    """Products of these (m, k, n) one after the other, of normal numbers: zeros multiply faster on a GPU."""
    product = product_of(ops, dtype)
    rng = np.random.default_rng(0)
    name = "float32" if dtype == "tf32" else dtype
    made: dict[tuple[int, int], Any] = {}

    def matrix(shape: tuple[int, int]) -> Any:
        if shape not in made:
            made[shape] = ops.from_host(rng.standard_normal(shape, np.float32).astype(numpy_dtype(name)))
        return made[shape]

    results: dict[tuple[int, int], Any] = {(m, n): ops.empty((m, n), numpy_dtype(name)) for m, _, n in shapes}
    operands = [(matrix((m, k)), matrix((k, n)), results[m, n]) for m, k, n in shapes]

    def function() -> None:
        for A, B, out in operands:
            product(A, B, out)

    return function


def product_of(ops: Backend, dtype: str) -> Product:
    """The backend's own product; for TF32, which nobody gets without asking, one that was made to allow it."""
    if dtype != "tf32":
        return ops.matmul
    from gpunn.backends.cuda.gemm import Gemm, load_cublaslt

    cublaslt = load_cublaslt()
    if cublaslt is None:
        raise MissingPeerError(f"{NOT_INSTALLED}: nvmath-python, which brings cuBLASLt")
    return Gemm(ops.xp, cublaslt, tf32=True)


def numpy_dtype(name: str) -> Any:
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as error:
            raise MissingPeerError(f"{NOT_INSTALLED}: {error}") from error
        return ml_dtypes.bfloat16
    return np.dtype(name)


if __name__ == "__main__":
    alone("products")
