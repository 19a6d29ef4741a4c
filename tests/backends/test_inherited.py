"""Compiled formulas and their scratch: a later thread takes over those of one that has ended."""

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


def test_a_later_thread_reuses_the_compiled_formula_of_one_that_has_ended() -> None:
    tiles = TiledFormulas()
    first = in_new_thread(lambda: kernel(tiles))
    assert in_new_thread(lambda: kernel(tiles)) is first


def test_two_running_threads_share_no_compiled_formula_and_no_scratch() -> None:
    tiles = TiledFormulas()
    own = kernel(tiles), tiles._scratch
    other = in_new_thread(lambda: (kernel(tiles), tiles._scratch))
    assert own[0] is not other[0] and own[1] is not other[1]
    assert TiledFormulas()._scratch is not other[1]  # nor do two sets of formulas


def test_only_a_few_compiled_formulas_of_ended_threads_are_kept() -> None:
    left: list[object] = []
    held = [Inherited(left, object) for _ in range(2 * MOST)]
    assert not left
    del held
    assert len(left) == MOST
