"""One training of the command line: from its settings to the files of a run."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import gpunn as gn
from gpunn.cli import recipe
from gpunn.cli.checks import installed
from gpunn.cli.options import say_unused
from gpunn.cli.report import judge
from gpunn.cli.runs import RunFolder
from gpunn.data import BUILT_IN, Preprocessing, Table, read
from gpunn.data.goals import Classes, fit_goal
from gpunn.data.splitting import split
from gpunn.errors import CheckpointError, ConfigurationError
from gpunn.losses import Loss
from gpunn.optimizers import Optimizer
from gpunn.training.callbacks import Run
from gpunn.training.standing import NOT_FINITE

RUNNING, FINISHED, STOPPED, TERMINATED, FAILED = "running", "finished", "interrupted", "terminated", "failed"
CHECKPOINTS = 10  # written in a training that goes to its end


class Watch(gn.Callback):
    """Keeps the history of a training that may end by an exception, notes that it runs once nothing is refused any
    more, and sees to it that its folder stays."""

    def __init__(self, folder: RunFolder, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record
        self.history: gn.History | None = None

    def on_start(self, run: Run) -> None:
        self.folder.write(self.record)
        self.history = run.history

    def on_epoch(self, run: Run, record: Mapping[str, Any]) -> None:
        self.folder.require()


@dataclass
class Training:
    """What `gpunn train` was asked for, checked and made: `run` trains and writes."""

    settings: dict[str, Any]  # none left open
    network: gn.Network
    held_out: Table
    sets: tuple[Any, Any, Any, Any]  # X and y to train on, and those that are held out
    optimizer: Optimizer
    record: dict[str, Any]

    @classmethod
    def prepare(cls, settings: dict[str, Any], device: str, memory: int | None = None) -> Self:
        """Read, divide and encode the data, and make a network for them."""
        s = dict(settings)
        names = s["target"] or None
        kinds = dict.fromkeys(s["categorical"], "categorical")
        table = read(s["data"], target=names[0] if names and len(names) == 1 else names, kinds=kinds, memory=memory)
        s["target"] = [table.target_name] if isinstance(table.target_name, str) else list(table.target_name or ())
        train, held_out, preprocessing = _divided(table, s, memory)
        rows = train.rows
        s["batch_size"] = s["batch_size"] or recipe.default_batch_size(rows)  # none of them is 0
        s["epochs"] = s["epochs"] or recipe.default_epochs(rows, s["batch_size"])
        s["patience"] = s["patience"] or recipe.default_patience(s["epochs"])
        if s["batch_norm"] and recipe.widths(s["hidden"]) and min(rows, s["batch_size"]) < 2:
            raise ConfigurationError(
                "--batch-norm", expected="batches of two rows or more", got="batches of one",
                fix="use larger batches, or --no-batch-norm",
            )  # fmt: skip
        if preprocessing.classes is None and (s["smoothing"] or s["class_weight"] != "none"):
            raise ConfigurationError(
                "--smoothing" if s["smoothing"] else "--class-weight", expected="a target of classes",
                got="one of numbers", fix="leave it out, or pass --task classification",
            )  # fmt: skip
        steps = s["epochs"] * math.ceil(rows / s["batch_size"])
        optimizer = recipe.make_optimizer(s["optimizer"], s["rate"], steps)
        hidden = recipe.hidden_layers(recipe.widths(s["hidden"]), s["activation"], s["dropout"], s["batch_norm"])
        layers = [*preprocessing.layers(), *hidden, gn.Dense(preprocessing.outputs)]
        network = gn.Network(layers, preprocessing.width, device=device, dtype=s["dtype"], seed=s["seed"])
        network.preprocessing = preprocessing
        sets = [
            encode(part, network.dtype)
            for part in (train, held_out)
            for encode in (preprocessing.inputs, preprocessing.targets)
        ]
        record = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": s,
            "data": {
                "task": preprocessing.task, "target": s["target"], "columns": len(table.columns), "rows": rows,
                "held_out": held_out.rows, "inputs": preprocessing.width, "outputs": preprocessing.outputs,
                "left_out": list(preprocessing.left_out), "sha256": digest(sets),
            },
            "network": {"layers": [repr(layer) for layer in layers], "parameters": count(network)},
            "device": network.ops.device,
            "versions": versions(),
        }  # fmt: skip
        return cls(s, network, held_out, tuple(sets), optimizer, record)  # type: ignore[arg-type]  # of four

    def run(self, folder: RunFolder, *, resume: bool, quiet: bool) -> list[str]:
        """Train, and write the run's files however training ends; returns what is to be said about it."""
        self.record = {"status": RUNNING, "run": str(folder.path), **self.record}
        watch = Watch(folder, self.record)
        if resume:  # what is refused leaves the run as it was
            self._check_data(folder)
        else:
            folder.write(self.record)
        go_on = f"to go on: gpunn train --resume --out {shlex.quote(str(folder.path))}"
        try:
            history = self._fit(folder, watch, resume=resume, quiet=quiet)
            reason = history.stopped
            status = STOPPED if reason == STOPPED else FAILED if reason.startswith(NOT_FINITE) else FINISHED
            self._keep(folder, status, history)
        except SystemExit:
            if resume and watch.history is None:
                raise
            self._keep(folder, TERMINATED, watch.history)
            return [f"{TERMINATED}; {go_on}"]  # whoever ended it does not wait for pictures
        except KeyboardInterrupt:  # the second, which waits for nothing
            self._note_end(folder, STOPPED)
            raise KeyboardInterrupt(f"{STOPPED}; {go_on}") from None
        except BaseException:
            if not resume or watch.history is not None:
                self._note_end(folder, FAILED)
            raise
        notes = {
            FAILED: [f"training failed: {reason}; the best weights so far are kept"],
            STOPPED: [f"{STOPPED}; {go_on}"],
        }
        return [*notes.get(status, []), *folder.draw(history)]

    def _fit(self, folder: RunFolder, watch: Watch, *, resume: bool, quiet: bool) -> gn.History:
        s = self.settings
        X, y, *held_out = self.sets
        loss, metric = self._objective
        return self.network.fit(
            X,
            y,
            loss=loss,
            optimizer=self.optimizer,
            epochs=s["epochs"],
            batch_size=s["batch_size"],
            validation=(*held_out, self._held_out_weights),
            class_weight=self._class_weights,
            metrics=[metric],
            stopping=gn.EarlyStopping(s["patience"]),
            callbacks=[watch],
            checkpoint=folder.checkpoint,
            every=max(1, s["epochs"] // CHECKPOINTS),
            resume=folder.checkpoint if resume and os.path.lexists(folder.checkpoint) else None,
            progress=False if quiet else None,
        )

    def _note_end(self, folder: RunFolder, status: str) -> None:
        """In the record, if it can be written: why the training ended is more important than why that failed."""
        with suppress(CheckpointError):
            folder.write({**self.record, "status": status})

    def _keep(self, folder: RunFolder, status: str, history: gn.History | None) -> None:
        """The best weights, what came out, and how it went."""
        folder.require()
        self.network.loss = self.preprocessing.loss  # smoothing is for training alone
        self.network.save(folder.model)
        self.record["status"] = status
        if history is not None:
            folder.write_history(history)
            self.record["result"] = {
                "stopped": history.stopped,
                "epochs": history.epochs,
                "best_epoch": history.best_epoch,
                "seconds": float(history["seconds"][-1]) if history.epochs else 0.0,
                "held_out": self._loss_as_trained() | judge(self.network, self.held_out),
            }
        folder.write(self.record)

    @property
    def _objective(self) -> tuple[Loss, str]:
        """The loss to train by, and the metric to show beside it."""
        return recipe.loss_of(self.preprocessing.classes is not None, self.settings["smoothing"])

    @property
    def _class_weights(self) -> dict[int, float] | None:
        """By class number, as the rows of training have them; None unless they were asked for."""
        return recipe.balanced(self.sets[1].tolist()) if self.settings["class_weight"] == "balanced" else None

    @property
    def _held_out_weights(self) -> list[float] | None:
        """Rows that are held out weigh as in training: the best weights are those that do best what is trained for."""
        weights = self._class_weights
        return None if weights is None else [weights[c] for c in self.sets[3].tolist()]

    def _loss_as_trained(self) -> dict[str, float]:
        """The held-out loss of the history, where smoothing or class weights make it another than the plain one."""
        if not self.settings["smoothing"] and self._class_weights is None:
            return {}
        X, y, weights = *self.sets[2:], self._held_out_weights
        return {"loss_as_trained": self.network.evaluate(X, y, loss=self._objective[0], sample_weight=weights)["loss"]}

    @property
    def preprocessing(self) -> Preprocessing:
        found = self.network.preprocessing
        assert isinstance(found, Preprocessing)
        return found

    def _check_data(self, folder: RunFolder) -> None:
        """A run goes on with the data it began with."""
        before, now = folder.read()["data"]["sha256"], self.record["data"]["sha256"]
        if before != now:
            raise CheckpointError(
                str(folder.path),
                expected=f"the data that the run began with, {before[:12]}",
                got=now[:12],
                fix="bring the data back as they were, or train anew with another --out",
            )


def _divided(table: Table, s: dict[str, Any], memory: int | None) -> tuple[Table, Table, Preprocessing]:
    """The rows to train on, those that are held out, and the preprocessing, which has seen only the former."""
    share = recipe.share_of(s["validation"])
    # once, by all rows: a part of them might look like another task
    task = "classification" if isinstance(fit_goal(table, s["task"]), Classes) else "regression"
    learn: dict[str, Any] = {"task": task, "numeric": s["numeric"], "leave_out": tuple(s["leave_out"])}
    if share is not None:
        train, held_out = split(table, share, seed=s["seed"], task=task)
        return train, held_out, Preprocessing.fit(train, **learn)
    preprocessing = Preprocessing.fit(table, **learn)
    held_out = preprocessing.read(s["validation"], memory=memory)
    say_unused(preprocessing, held_out)
    return table, held_out, preprocessing


def source_path(source: str) -> str:
    """A built-in name as it is, a file by its whole path, so that a run can go on from any folder."""
    return source if source in BUILT_IN else os.path.abspath(source)


def count(network: gn.Network) -> int:
    """How many parameters there are."""
    return sum(math.prod(view.shape) for view in network.parameters.values())


def digest(sets: list[Any]) -> str:
    """Of all numbers that are trained and judged on."""
    found = hashlib.sha256()
    for array in sets:
        found.update(f"{array.dtype} {array.shape} ".encode())
        found.update(memoryview(array).cast("B"))
    return found.hexdigest()


def versions() -> dict[str, str | None]:
    found = {name: installed(name) for name in ("numpy", "nvmath-python")}
    return {"gpunn": gn.__version__, "python": platform.python_version(), **{n: v for n, v in found.items() if v}}
