"""Whatever goes wrong with curves.png, the run is complete and one line says what went wrong."""

import errno
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import gpunn as gn
from gpunn.cli.runs import RunFolder
from tests.cli.stage import QUICK, call, document, process

pytest.importorskip("matplotlib")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def history() -> gn.History:
    made = gn.History()
    made.append({"loss": [1.0]})
    return made


@pytest.mark.parametrize(
    "variables",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"MPLCONFIGDIR": "/dev/null/config"},
    ],
    ids=["notebook", "config"],
)
def test_train_draws_its_curves_whatever_backend_matplotlib_is_set_to(
    variables: dict[str, str], tmp_path: Path
) -> None:
    before = f"import os\nos.environ |= {variables}"
    done = process("train", "moons", "--out", "a", *QUICK, cwd=tmp_path, before=before)
    assert done.returncode == 0 and "held-out accuracy" in done.stdout
    assert "Traceback" not in done.stderr and "no curves.png" not in done.stderr
    assert (tmp_path / "a/curves.png").read_bytes().startswith(b"\x89PNG")


def broken(error: BaseException) -> Any:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no fonts\nat all"), "RuntimeError: no fonts at all"),
        (MemoryError(), "MemoryError:"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_train_ends_well_if_its_curves_cannot_be_drawn(
    error: BaseException, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gn.History, "plot", broken(error))
    result = call("train", "moons", "--out", tmp_path / "a", *QUICK)
    assert result.stderr.strip() == f"gpunn: no curves.png: {told}".strip()
    assert "held-out accuracy" in result.stdout
    assert document("inspect", tmp_path / "a")["record"]["status"] == "finished"


def test_train_ends_well_if_the_disk_has_no_room_for_its_curves(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old picture is unchanged, and no part of a new one is left."""
    (folder.path / "curves.png").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", broken(OSError(errno.ENOSPC, "No space left on device")))
    (note,) = folder.draw(history())
    assert note.startswith("no curves.png: ") and "got No space left on device" in note
    assert [path.name for path in folder.path.iterdir()] == ["curves.png"]
    assert (folder.path / "curves.png").read_bytes() == b"old"


def test_train_ends_well_with_a_broken_matplotlib(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", ModuleType("matplotlib.figure"))
    (note,) = folder.draw(history())
    assert note.startswith("no curves.png: AttributeError: ")
