"""Where compiled loops are stored: only in folders of the user that nobody else may write to."""

import logging
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpunn.backends.cpu.numba import store as loop_store
from gpunn.backends.formula.tracing import elementwise
from tests.conftest import backend_named

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no numbers of users")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which all programs keep their caches."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    loop_store._tell.cache_clear()
    return tmp_path / "cache"


def foreign(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the system say that this folder belongs to another user."""
    look = Path.stat

    def stat_of(self: Path, **options: Any) -> Any:
        found = look(self, **options)
        if self != place:
            return found
        return SimpleNamespace(st_uid=os.geteuid() + 4321, st_mode=found.st_mode)

    monkeypatch.setattr(Path, "stat", stat_of)


def test_new_folders_for_compiled_loops_belong_to_the_user_alone(cache: Path) -> None:
    before = os.umask(0)
    try:
        path = loop_store.store("text")
    finally:
        os.umask(before)
    assert path == loop_store.path_of("text") and loop_store.is_safe() and loop_store.is_stored("text")
    assert [stat.S_IMODE(place.stat().st_mode) for place in (cache, *list(path.parents)[:2])] == [0o700] * 3


@pytest.mark.parametrize("place", ["gpunn/loops", "gpunn"])
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, None], ids=["all", "sticky", "group", "another user"])
def test_compiled_loops_are_not_stored_in_a_folder_that_others_may_write_to(
    place: str, mode: int | None, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = loop_store.store("text")
    assert path is not None
    if mode is None:
        foreign(cache / place, monkeypatch)
        told = f"{cache / place} belongs to another user, number {os.geteuid() + 4321}"
    else:
        (cache / place).chmod(mode)
        told = f"others may write to {cache / place}"
    with caplog.at_level(logging.WARNING, logger="gpunn"):
        for text in ("text", "other"):
            assert loop_store.store(text) is None and not loop_store.is_stored(text)
    assert [record.getMessage() for record in caplog.records] == [
        f"compiled loops are not stored, since {told}: make it yours alone, or set NUMBA_CACHE_DIR"
    ]
    assert [name.name for name in (cache / "gpunn/loops").iterdir()] == [path.name]


def test_compiled_loops_are_not_stored_if_others_may_write_to_numba_cache_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Numba stores its machine code in folders beside that of gpunn."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    assert loop_store.store("text") is not None
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(shared))
    assert loop_store.store("text") is None and not loop_store.is_safe()
    assert f"others may write to {shared}:" in caplog.text


def test_compiled_loops_may_be_stored_in_a_folder_of_root(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop_store.store("text")
    monkeypatch.setattr(os, "geteuid", lambda: cache.stat().st_uid + 1)
    assert loop_store.is_safe() == (cache.stat().st_uid == 0)


def halves(xp: Any, a: Any, b: Any) -> Any:
    return (a - b) * (a + b) * 0.5


def test_loops_are_compiled_without_being_stored_in_an_unsafe_folder(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numba_compiler = pytest.importorskip("gpunn.backends.cpu.numba.compiler")
    (cache / "gpunn/loops").mkdir(parents=True)
    (cache / "gpunn/loops").chmod(0o777)
    wanted: list[bool] = []
    njit = numba_compiler.numba.njit

    def watched(*functions: Any, **options: Any) -> Any:
        wanted.extend([options["cache"]] if "cache" in options else [])  # Numba itself calls it without
        return njit(*functions, **options)

    monkeypatch.setattr(numba_compiler.numba, "njit", watched)
    X, out = np.full((3, 4), 3.0), np.empty((3, 4))
    backend_named("jit").elementwise(elementwise(halves), (X, X[:1] - 1), (out,))
    assert (out == 2.5).all()
    numba_compiler._compiled(halves)
    assert wanted == [False, False] and not list((cache / "gpunn/loops").iterdir())
