"""Products of many models are shared among threads, with the same bits, and whatever goes wrong is seen."""

import threading
import warnings
from typing import Any

import numpy as np
import pytest

from gpunn.backends import team
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.backends.team import Team


@pytest.fixture(autouse=True)
def everything_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunn.backends.numpy_backend.LEAST", 0)


@pytest.fixture
def who(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that multiplied; each waits until all have begun."""
    seen: list[str] = []
    original, begun = np.matmul, threading.Barrier(2, timeout=20)
    own = threading.local()

    def matmul(*arguments: Any) -> Any:
        if not hasattr(own, "begun"):
            own.begun = True
            begun.wait()
        seen.append(threading.current_thread().name)
        return original(*arguments)

    monkeypatch.setattr(team.np, "matmul", matmul)
    return seen


def operands(models: int = 9, dtype: str = "float32") -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((models, 5, 7)).astype(dtype), rng.standard_normal((models, 7, 3)).astype(dtype)


@pytest.mark.parametrize("models", [1, 2, 3, 9, 64])
@pytest.mark.parametrize("helpers", [1, 3])
@pytest.mark.parametrize("shared", ["", "A", "B"])
def test_the_bits_are_the_same(models: int, helpers: int, shared: str) -> None:
    ops = NumpyBackend()
    A, B = operands(models)
    A, B = (A[0] if shared == "A" else A), (B[0] if shared == "B" else B)
    for left, right in ((A, B), (B.mT, A.mT)):
        wanted, out = (np.full((models, left.shape[-2], right.shape[-1]), np.nan, "f4") for _ in range(2))
        ops.matmul(left, right, out=wanted)
        with ops.sharing_products(helpers + 1):
            assert ops.matmul(left, right, out=out) is out
        np.testing.assert_array_equal(out, wanted)


def test_helpers_help(who: list[str]) -> None:
    A, B = operands()
    ops, out = NumpyBackend(), np.empty((9, 5, 3), "f4")
    with ops.sharing_products(2):
        ops.matmul(A, B, out=out)
    assert "MainThread" in who and any(name.startswith("gpunn") for name in who)
    np.testing.assert_allclose(out, A @ B, rtol=1e-5)


def test_a_helper_that_does_not_come_is_not_waited_for() -> None:
    A, B = operands()
    own, gate = Team(1), threading.Event()
    try:
        own.pool.submit(gate.wait, 20)
        out = own.matmul(A, B, np.empty((9, 5, 3), "f4"))
        assert not gate.is_set()
        np.testing.assert_allclose(out, A @ B, rtol=1e-5)
    finally:
        gate.set()
        own.close()


def test_an_error_of_a_helper_is_raised(who: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    counting = team.np.matmul

    def failing(*arguments: Any) -> Any:
        counting(*arguments)
        if threading.current_thread().name.startswith("gpunn"):
            raise MemoryError("in a helper")

    monkeypatch.setattr(team.np, "matmul", failing)
    ops = NumpyBackend()
    with ops.sharing_products(2), pytest.raises(MemoryError, match="in a helper"):
        ops.matmul(*operands(), out=np.empty((9, 5, 3), "f4"))


def test_infinities_are_as_quiet_as_the_caller_wants(who: list[str]) -> None:
    A, B = operands()
    A[:], B[:] = 1e30, 1e30
    ops, out = NumpyBackend(), np.empty((9, 5, 3), "f4")
    with warnings.catch_warnings(), ops.sharing_products(2), ops.quiet():
        warnings.simplefilter("error")
        ops.matmul(A, B, out=out)
    assert np.isinf(out).all() and len(set(who)) == 2


def test_a_team_belongs_to_its_thread_and_ends() -> None:
    ops, (A, B) = NumpyBackend(), operands()
    before = threading.active_count()
    with ops.sharing_products(2):
        with ops.sharing_products(3):
            ops.matmul(A, B, out=np.empty((9, 5, 3), "f4"))
        elsewhere: list[Any] = []
        other = threading.Thread(target=lambda: elsewhere.append(ops._pool.team))
        other.start()
        other.join()
        ops.matmul(A, B, out=np.empty((9, 5, 3), "f4"))
        assert elsewhere == [None] and ops._pool.team is not None
    assert ops._pool.team is None and threading.active_count() == before
