"""The folder of a run: the trained network, a checkpoint to go on from, the history, and what was asked for."""

from __future__ import annotations

import io
import json
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import click

import gpunn as gn
from gpunn import checkpoint, files
from gpunn.backends import get_backend
from gpunn.cli.lock import InUse, Lock
from gpunn.cli.output import plain, unwritten, write_file
from gpunn.errors import CheckpointError, ConfigurationError, GpunnError

FORMAT = 1
OPEN = {"task", "rate"}  # settings that a record may leave open: the data or the optimizer decide
# How runs were trained, by task, before these settings were recorded: the labels of classes were always smoothed.
BEFORE = {
    "classification": {"smoothing": 0.05, "class_weight": "none"},
    "regression": {"smoothing": 0.0, "class_weight": "none"},
    "multi-output regression": {"smoothing": 0.0, "class_weight": "none"},
}


@dataclass(frozen=True)
class RunFolder:
    """Where everything about one training lies."""

    path: Path
    lock: Lock | None = None  # of the training that writes there; to read takes none

    def require(self) -> None:
        """Refuse to write to a folder that is no longer this training's."""
        if self.lock is not None:
            self.lock.require()

    def release(self) -> None:
        """Let other trainings have it."""
        if self.lock is not None:
            self.lock.release()

    @property
    def model(self) -> Path:
        """The best weights, with the preprocessing of their data."""
        return self.path / "model.gpunn"

    @property
    def checkpoint(self) -> Path:
        """Where training stands."""
        return self.path / "checkpoint.gpunn"

    @property
    def record(self) -> Path:
        """What was asked for, with which versions, on which device, and what came out."""
        return self.path / "run.json"

    @property
    def taken(self) -> bool:
        return any(map(os.path.lexists, (self.model, self.checkpoint, self.record)))

    def write(self, record: dict[str, Any]) -> None:
        self.require()
        text = json.dumps({"format": FORMAT, **plain(record)}, indent=2, allow_nan=False) + "\n"
        write_file(self.record, text.encode())

    def read(self) -> dict[str, Any]:
        """The record; refuses what `write` did not write."""
        try:
            record = json.loads(files.read_text(self.record))
            if record["format"] != FORMAT or not isinstance(record["settings"], dict):
                raise ValueError(f"format {record['format']!r}")
            if not isinstance(record["data"]["sha256"], str):
                raise ValueError("no digest of the data")
            # half of a character in UTF-16 cannot be shown; a byte of a file's name that is no UTF-8 can
            json.dumps(record, ensure_ascii=False).encode(errors="surrogateescape")
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise self._unreadable("the record of a run", f"{type(error).__name__}: {error}"[:200]) from error
        return dict(record)

    def settings(self, context: click.Context, options: Sequence[click.Parameter]) -> dict[str, Any]:
        """What was asked for, by exactly these options and of the kinds that they give."""
        known = {str(option.name): option for option in options}
        record = self.read()
        settings = BEFORE.get(str(record["data"].get("task")), {}) | record["settings"]
        if settings.keys() != known.keys():
            odd = sorted(settings.keys() ^ known.keys())
            raise self._unreadable("the settings of this version's runs", f"a difference in {', '.join(odd)}"[:200])
        return {name: self._setting(context, known[name], value) for name, value in settings.items()}

    def _setting(self, context: click.Context, option: click.Parameter, value: Any) -> Any:
        """A value that the option would make of itself."""
        if value is None and option.name in OPEN:
            return None
        try:
            made = None if value is None else plain(option.type_cast_value(context, value))
        except (click.UsageError, TypeError, ValueError, AttributeError, ArithmeticError):
            made = None
        if made is None or made != value or isinstance(made, bool) != isinstance(value, bool):
            raise self._unreadable("what the options of gpunn train give", f"{option.name} {value!r}"[:200])
        return made

    def _unreadable(self, expected: str, got: str) -> CheckpointError:
        return CheckpointError(
            str(self.record), expected=expected, got=got, fix="name the folder that gpunn train --out wrote"
        )

    def write_history(self, history: gn.History) -> None:
        """As JSON, to the last digit, and as a table for spreadsheets."""
        self.require()
        write_file(self.path / "history.json", history.to_json().encode())
        table = self.path / "history.csv"
        try:
            history.to_csv(table)
        except OSError as error:
            raise unwritten(table, error) from error

    def draw(self, history: gn.History) -> list[str]:
        """curves.png; returns what is to be said where it cannot be drawn, whatever the reason: the result is there."""
        try:
            picture = io.BytesIO()
            history.plot().savefig(picture, format="png")
            write_file(self.path / "curves.png", picture.getvalue())
        except KeyboardInterrupt:
            return ["no curves.png: interrupted"]
        except Exception as error:
            why = str(error) if isinstance(error, GpunnError) else f"{type(error).__name__}: {error}"
            return [f"no curves.png: {' '.join(why.split())[:300]}"]
        return []

    def history(self) -> gn.History | None:
        """What `write_history` wrote, if it did; refuses anything else of that name."""
        path = self.path / "history.json"
        if not os.path.lexists(path):
            return None
        try:
            return gn.History.from_json(files.read_text(path))
        except CheckpointError as error:
            where, expected, got = f"{path}: {error.where}", error.expected, error.got
        except (OSError, UnicodeDecodeError) as error:
            where, expected, got = str(path), "the history of a run", f"{type(error).__name__}: {error}"[:200]
        fix = "remove it, or copy the run's folder again"
        raise CheckpointError(where, expected=expected, got=got, fix=fix)


def new_folder(out: str | None, name: str) -> RunFolder:
    """An empty folder for a new run; without a name of its own runs/NAME, runs/NAME-2 and so on."""
    if out == "":
        raise ConfigurationError(
            "--out", expected="the name of a folder", got="''", fix="name one, or leave --out away"
        )
    try:
        if out is not None:
            files.make_folder(out)
            folder = locked("--out", Path(out))
            if folder.taken:
                folder.release()
                raise ConfigurationError(
                    "--out",
                    expected="a folder without a run",
                    got=out,
                    fix="choose another one, or go on with that run: gpunn train --resume --out " + shlex.quote(out),
                )
            return folder
        for number in count(1):
            path = Path("runs", name if number == 1 else f"{name}-{number}")
            if files.make_folder(path):
                with suppress(InUse):
                    return RunFolder(path, Lock(path))
        raise AssertionError("unreachable")
    except OSError as error:
        raise CheckpointError(
            "--out", expected="a folder that can be made", got=str(error), fix="choose another --out"
        ) from error


def locked(option: str, path: Path) -> RunFolder:
    """The folder for one training, until its `release`."""
    try:
        return RunFolder(path, Lock(path))
    except InUse as error:
        raise ConfigurationError(
            option, expected="a folder that no other training uses", got=f"{path}, which {error} uses",
            fix="wait until that one has ended, or end it; or choose another --out",
        ) from None  # fmt: skip
    except OSError as error:
        raise CheckpointError(
            str(path), expected="a folder that can be written", got=error.strerror or str(error),
            fix="allow it, or choose another --out",
        ) from error  # fmt: skip


def load_network(run: str, device: str) -> gn.Network:
    """The network of a run's folder, or of a file that `Network.save` wrote.

    What was trained in a precision that the device does not have, as bfloat16 is on the CPU, computes in float32.
    """
    path = Path(run)
    if path.is_dir():
        path = RunFolder(path).model
    arrays, meta = checkpoint.read(path)
    ops = get_backend(device)
    try:
        known = meta["network"]["architecture"]["dtype"] in ops.precisions
    except (LookupError, TypeError):
        known = True  # network_of says what is wrong
    return checkpoint.network_of(str(path), arrays, meta, ops, None if known else "float32")
