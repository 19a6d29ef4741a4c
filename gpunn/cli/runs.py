"""The folder of a run: the trained network, a checkpoint to go on from, the history and the settings."""

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
MAY_BE_NULL = {"task", "rate"}  # settings that the data or the optimizer decide, unless they are given
# The values, by task, of settings that older runs did not record; labels of classes were always smoothed then.
VALUES_OF_OLD_RUNS = {
    "classification": {"smoothing": 0.05, "class_weight": "none"},
    "regression": {"smoothing": 0.0, "class_weight": "none"},
    "multi-output regression": {"smoothing": 0.0, "class_weight": "none"},
}


@dataclass(frozen=True)
class RunFolder:
    """The folder with everything about one training."""

    path: Path
    lock: Lock | None = None  # of the training that writes there; reading needs no lock

    def require(self) -> None:
        """Refuse to write to a folder that does not belong to this training any more."""
        if self.lock is not None:
            self.lock.require()

    def release(self) -> None:
        """Allow other trainings in this folder."""
        if self.lock is not None:
            self.lock.release()

    @property
    def model(self) -> Path:
        """The best weights, with the preprocessing of their data."""
        return self.path / "model.gpunn"

    @property
    def checkpoint(self) -> Path:
        """All that a training needs to go on."""
        return self.path / "checkpoint.gpunn"

    @property
    def record(self) -> Path:
        """Settings, versions, device and results."""
        return self.path / "run.json"

    @property
    def has_run(self) -> bool:
        return any(map(os.path.lexists, (self.model, self.checkpoint, self.record)))

    def write(self, record: dict[str, Any]) -> None:
        self.require()
        text = json.dumps({"format": FORMAT, **plain(record)}, indent=2, allow_nan=False) + "\n"
        write_file(self.record, text.encode())

    def read(self) -> dict[str, Any]:
        """The record; refuses a file that `write` did not write."""
        try:
            record = json.loads(files.read_text(self.record))
            if record["format"] != FORMAT or not isinstance(record["settings"], dict):
                raise ValueError(f"format {record['format']!r}")
            if not isinstance(record["data"]["sha256"], str):
                raise ValueError("no digest of the data")
            # A lone surrogate cannot be printed, except one that stands for a byte of a file's name.
            json.dumps(record, ensure_ascii=False).encode(errors="surrogateescape")
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise self._unreadable("the record of a run", f"{type(error).__name__}: {error}"[:200]) from error
        return dict(record)

    def settings(self, context: click.Context, options: Sequence[click.Parameter]) -> dict[str, Any]:
        """The recorded value of each of these options; refuses other names, and values that no option gives."""
        known = {str(option.name): option for option in options}
        record = self.read()
        settings = VALUES_OF_OLD_RUNS.get(str(record["data"].get("task")), {}) | record["settings"]
        if settings.keys() != known.keys():
            odd = sorted(settings.keys() ^ known.keys())
            raise self._unreadable("the settings of this version's runs", f"a difference in {', '.join(odd)}"[:200])
        return {name: self._setting(context, known[name], value) for name, value in settings.items()}

    def _setting(self, context: click.Context, option: click.Parameter, value: Any) -> Any:
        """A recorded value, if the option would give it unchanged."""
        if value is None and option.name in MAY_BE_NULL:
            return None
        try:
            given = None if value is None else plain(option.type_cast_value(context, value))
        except (click.UsageError, TypeError, ValueError, AttributeError, ArithmeticError):
            given = None
        if given is None or given != value or isinstance(given, bool) != isinstance(value, bool):
            raise self._unreadable("what the options of gpunn train give", f"{option.name} {value!r}"[:200])
        return given

    def _unreadable(self, expected: str, got: str) -> CheckpointError:
        return CheckpointError(
            str(self.record), expected=expected, got=got, fix="name the folder that gpunn train --out wrote"
        )

    def write_history(self, history: gn.History) -> None:
        """Write it as JSON, exact to the last digit, and as CSV."""
        self.require()
        write_file(self.path / "history.json", history.to_json().encode())
        table = self.path / "history.csv"
        try:
            history.to_csv(table)
        except OSError as error:
            raise unwritten(table, error) from error

    def draw(self, history: gn.History) -> list[str]:
        """Draw curves.png; if that fails for any reason, the run is complete all the same, and a note is returned."""
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
        """What `write_history` wrote; None without such a file; refuses a file that it did not write."""
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
    """A folder for a new run: `out`, or by default runs/NAME, runs/NAME-2 and so on."""
    if out == "":
        raise ConfigurationError(
            "--out", expected="the name of a folder", got="''", fix="name one, or leave --out away"
        )
    try:
        if out is not None:
            files.make_folder(out)
            folder = locked("--out", Path(out))
            if folder.has_run:
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
    """The folder, locked for one training until `release`."""
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

    A network in a precision that the device does not have, such as bfloat16 on the CPU, computes in float32.
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
