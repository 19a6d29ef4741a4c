"""What is kept for a compiled formula and its shapes contains none of the arrays that it was given."""

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.numba import loops as numba_loops
from gpunn.backends.cpu.numba.loops import LoopFormulas
from gpunn.backends.cpu.tiles import TiledFormulas, Tiles
from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import Formula
from gpunn.optimizers.adam import adam_scalars

TILE = 64  # elements
SMALL, LARGE, BATCH = (4, 10), (40, 10), (3, 40, 10)
KINDS: dict[str, Any] = {
    "tiles": lambda: TiledFormulas(TILE),
    "patient loops": lambda: LoopFormulas(True, TILE),
    "loops at once": lambda: LoopFormulas(False, TILE),
}


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """An array dies with the last reference to it: a cycle would keep it for a while."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def full(*shape: int, dtype: Any = np.float32) -> Any:
    return np.full(shape, 0.5, dtype)


def row_and_column(shape: tuple[int, ...]) -> tuple[Any, ...]:
    return full(*shape), full(1, shape[-1]), full(shape[-2], 1)


def in_place() -> tuple[Formula, tuple[Any, ...], tuple[Any, ...]]:
    X = full(*LARGE)
    return formulas.scaled_product, (X, full(*LARGE), 0.1), (X,)


# Each makes its arrays anew, and nothing else holds them.
CASES: dict[str, Callable[[], tuple[Formula, tuple[Any, ...], tuple[Any, ...]]]] = {
    "one operation": lambda: (formulas.add, (full(*SMALL), full(*SMALL)), (full(*SMALL),)),
    "one tile": lambda: (formulas.scale_shift, row_and_column(SMALL), (full(*SMALL),)),
    "many tiles": lambda: (formulas.scale_shift, row_and_column(LARGE), (full(*LARGE),)),
    "flat tiles": lambda: (formulas.scaled_product, (full(*LARGE), full(*LARGE), 0.1), (full(*LARGE),)),
    "tiles of views": lambda: (formulas.scale_shift, row_and_column(BATCH), (full(3, 80, 10)[:, ::2],)),
    "in place": in_place,
    "exp": lambda: (formulas.log_softmax_gradient, (full(*LARGE), full(*LARGE), full(40, 1)), (full(*LARGE),)),
    "two outputs": lambda: (formulas.normal_pair, (full(*SMALL), full(*SMALL)), (full(*SMALL), full(*SMALL))),
    "numbers": lambda: (
        adam_scalars, (full(1), full(1, dtype="f8"), 0.9, 0.999, 1e-8, False), (full(1), full(1)),
    ),
}  # fmt: skip
SEVERAL_TILES = {"many tiles", "flat tiles", "tiles of views", "in place", "exp"}


def still_alive(call: Any, make: Any) -> list[tuple[int, ...]]:
    """The shapes of the arrays that are still alive after the calls, though this function holds none of them."""
    arrays = make()
    watched = [weakref.ref(a) for a in arrays if isinstance(a, np.ndarray)]
    assert watched
    with np.errstate(all="ignore"):
        for _ in range(4):
            call(*arrays)
    del arrays
    return [array.shape for ref in watched if (array := ref()) is not None]


def kept_by(pool: TiledFormulas, name: str) -> list[tuple[int, ...]]:
    ops = NumpyBackend(pool)

    def call(formula: Formula, count: int, *arrays: Any) -> None:
        ops.elementwise(formula, arrays[:count], arrays[count:])

    def make() -> tuple[Any, ...]:
        formula, inputs, outputs = CASES[name]()
        return formula, len(inputs), *inputs, *outputs

    return still_alive(call, make)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_a_compiled_formula_keeps_no_array_that_it_was_given(name: str, kind: str) -> None:
    pool = KINDS[kind]()
    assert kept_by(pool, name) == []
    kernels = {**pool.tiles._kernels, **pool._kernels}.values()
    assert kernels  # for which something is kept
    if pool.tiles is pool:
        assert any(isinstance(kernel, Tiles) for kernel in kernels) == (name in SEVERAL_TILES)


@pytest.mark.parametrize("name", ["one tile", "many tiles", "in place"])
def test_a_compiled_loop_that_replaces_tiles_keeps_no_array(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    original = LoopFormulas._compiled

    def watched(self: LoopFormulas, *arguments: Any) -> Any:
        compiled.append(None)
        return original(self, *arguments)

    monkeypatch.setattr(LoopFormulas, "_compiled", watched)
    for limit in ("LOOK", "COMPILING", "FETCHING", "LOADING"):
        monkeypatch.setattr(numba_loops, limit, 1e-3)
    assert kept_by(LoopFormulas(tile=TILE), name) == []
    assert len(compiled) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_loops_along_rows_keep_no_array(kind: str) -> None:
    ops = NumpyBackend(KINDS[kind]())

    def call(Z: Any, target: Any, loss: Any, dZ: Any) -> None:
        ops.softmax_cross_entropy(Z, target, 0.0, None, 0.1, loss=loss, dZ=dZ)

    assert still_alive(call, lambda: (full(*LARGE), np.zeros(40, np.int64), full(40, 1), full(*LARGE))) == []
