"""At what rate do the matrix products of a step run alone, and what share of the step is that?

    python -m benchmarks.products

Large square products, then the very products of a step: their rate, the whole step's, and the share of its time that
they would take at the rate measured alone, in the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import GRID, LARGE_ON_CUDA, SMALL_ON_CUDA, Case
from benchmarks.command import alone
from benchmarks.harness import (
    NOT_INSTALLED,
    Calls,
    MissingPeerError,
    Row,
    Setting,
    Subject,
    alternate,
    failure,
    say,
)
from benchmarks.peers import ours
from gpunn.backends import get_backend
from gpunn.backends.base import Backend

Product = Callable[[Any, Any, Any], Any]
ALONE, STEP = "products alone", "step"


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
    case = f"{size} x {size} x {size} {dtype}"
    try:
        function = all_products(ops, dtype, [(size, size, size)])
        figures, errors = alternate({ALONE: Calls(function, ops.synchronize)}, setting.turns, setting.seconds)
    except MissingPeerError as error:
        return Row("products", case, ALONE, unit(ops), note=str(error))
    except Exception as error:
        return Row("products", case, ALONE, unit(ops), note=failure(error))
    return Row("products", case, ALONE, unit(ops), rates(ops, 2 * size**3, figures[ALONE]), errors.get(ALONE, ""))


def share(ops: Backend, case: Case, setting: Setting, best: float) -> list[Row]:
    """The rates of a step's products alone and of the step, in turns."""
    try:
        function = all_products(ops, case.dtype, case.products)
        subjects: dict[str, Subject] = {ALONE: Calls(function, ops.synchronize), STEP: ours.Steps(case, ops)}
        figures, errors = alternate(subjects, setting.turns, setting.seconds)
    except Exception as error:
        note = failure(error)
        return [Row("products", str(case), name, unit(ops), note=note) for name in (ALONE, STEP)]
    rows = [
        Row("products", str(case), name, unit(ops), rates(ops, case.flops, figures[name]), errors.get(name, ""))
        for name in subjects
    ]
    alone_row, step_row = rows
    if alone_row.runs and step_row.runs and not errors:
        step_row.details["of the step's time at the products' rate"] = f"{step_row.median / alone_row.median:.0%}"
        if best:
            step_row.details["at the best square rate"] = f"{step_row.median / best:.0%}"
    return rows


def unit(ops: Backend) -> str:
    return "TFLOP/s" if ours.kind_of(ops) == "cuda" else "GFLOP/s"


def rates(ops: Backend, flops: int, seconds: list[float]) -> list[float]:
    scale = 1e12 if unit(ops) == "TFLOP/s" else 1e9
    return [flops / figure / scale for figure in seconds]


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
    from gpunn.backends.gemm import Gemm, load_cublaslt

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
