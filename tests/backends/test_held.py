"""What threads leave to one another: compiled formulas and their scratch, one thread at a time."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.backends.cpu.inherited import MOST, Inherited
from gpunn.backends.cpu.tiles import TiledFormulas
from gpunn.backends.formula import formulas


def in_new_thread(function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def kernel(tiles: TiledFormulas) -> Any:
    X = np.ones((3, 4))
    return tiles.kernel(formulas.add, (X, X), (X,))


def test_a_formula_is_not_compiled_again_for_a_thread_that_comes_after() -> None:
    tiles = TiledFormulas()
    first = in_new_thread(lambda: kernel(tiles))
    assert in_new_thread(lambda: kernel(tiles)) is first


def test_threads_at_the_same_time_share_nothing() -> None:
    tiles = TiledFormulas()
    own = kernel(tiles), tiles._scratch
    other = in_new_thread(lambda: (kernel(tiles), tiles._scratch))
    assert own[0] is not other[0] and own[1] is not other[1]
    assert TiledFormulas()._scratch is not other[1]  # nor do two sets of formulas


def test_what_many_threads_leave_is_not_all_kept() -> None:
    left: list[object] = []
    held = [Inherited(left, object) for _ in range(2 * MOST)]
    assert not left
    del held
    assert len(left) == MOST
