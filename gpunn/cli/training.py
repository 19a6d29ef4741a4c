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
from gpunn.cli.report import evaluation
from gpunn.cli.runs import RunFolder
from gpunn.data import BUILT_IN, Preprocessing, Table, read
from gpunn.data.splitting import split
from gpunn.data.targets import Classes, fit_target
from gpunn.errors import CheckpointError, ConfigurationError
from gpunn.losses import Loss
from gpunn.optimizers import Optimizer
from gpunn.training.callbacks import Run
from gpunn.training.standing import NOT_FINITE

RUNNING, FINISHED, STOPPED, TERMINATED, FAILED = "running", "finished", "interrupted", "terminated", "failed"
CHECKPOINTS = 10  # written in a training that goes to its end


class FolderCallback(gn.Callback):
    """Writes the record when the training starts, keeps the history for a training that ends by an exception, and
    stops a training whose folder is gone."""

    def __init__(self, folder: RunFolder, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record
        self.history: gn.History | None = None

    def on_start(self, run: Run) -> None:
        self.folder.write(self.record)
        self.history = run.history

    def on_epoch(self, run: Run, record: Mapping[str, Any]) -> None:
        self.folder.require()


@dataclass
class TableTraining:
    """A network, its data and its optimizer, made of the options of `gpunn train`; `run` trains and writes."""

    settings: dict[str, Any]  # all with a value
    network: gn.Network
    held_out: Table
    sets: tuple[Any, Any, Any, Any]  # X and y to train on, and the held-out X and y
    optimizer: Optimizer
    record: dict[str, Any]

    @classmethod
    def prepare(cls, settings: dict[str, Any], device: str, memory: int | None = None) -> Self:
        """Read, split and encode the data, and make a network for them."""
        s = dict(settings)
        names = s["target"] or None
        kinds = dict.fromkeys(s["categorical"], "categorical")
        table = read(s["data"], target=names[0] if names and len(names) == 1 else names, kinds=kinds, memory=memory)
        s["target"] = [table.target_name] if isinstance(table.target_name, str) else list(table.target_name or ())
        train, held_out, preprocessing = _split_data(table, s, memory)
        rows = train.rows
        s["batch_size"] = s["batch_size"] or recipe.default_batch_size(rows)  # the option is None or above 0
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
            encode(rows_of_table, network.dtype)
            for rows_of_table in (train, held_out)
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
            "network": {"layers": [repr(layer) for layer in layers], "parameters": parameter_count(network)},
            "device": network.ops.device,
            "versions": versions(),
        }  # fmt: skip
        return cls(s, network, held_out, tuple(sets), optimizer, record)  # type: ignore[arg-type]  # four sets

    def run(self, folder: RunFolder, *, resume: bool, quiet: bool) -> list[str]:
        """Train, and write the files of the run, however training ends; returns notes for the user."""
        self.record = {"status": RUNNING, "run": str(folder.path), **self.record}
        callback = FolderCallback(folder, self.record)
        if resume:  # if the data are refused, the run stays as it was
            self._check_data(folder)
        else:
            folder.write(self.record)
        go_on = f"to go on: gpunn train --resume --out {shlex.quote(str(folder.path))}"
        try:
            history = self._fit(folder, callback, resume=resume, quiet=quiet)
            reason = history.stopped
            status = STOPPED if reason == STOPPED else FAILED if reason.startswith(NOT_FINITE) else FINISHED
            self._keep(folder, status, history)
        except SystemExit:
            if resume and callback.history is None:
                raise
            self._keep(folder, TERMINATED, callback.history)
            return [f"{TERMINATED}; {go_on}"]  # without curves: SIGTERM leaves little time
        except KeyboardInterrupt:  # the second Ctrl-C ends the training at once
            self._note_end(folder, STOPPED)
            raise KeyboardInterrupt(f"{STOPPED}; {go_on}") from None
        except BaseException:
            if not resume or callback.history is not None:
                self._note_end(folder, FAILED)
            raise
        notes = {
            FAILED: [f"training failed: {reason}; the best weights so far are kept"],
            STOPPED: [f"{STOPPED}; {go_on}"],
        }
        return [*notes.get(status, []), *folder.draw(history)]

    def _fit(self, folder: RunFolder, callback: FolderCallback, *, resume: bool, quiet: bool) -> gn.History:
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
            validation=(*held_out, self._held_out_row_weights),
            class_weight=self._class_weights,
            metrics=[metric],
            stopping=gn.EarlyStopping(s["patience"]),
            callbacks=[callback],
            checkpoint=folder.checkpoint,
            every=max(1, s["epochs"] // CHECKPOINTS),
            resume=folder.checkpoint if resume and os.path.lexists(folder.checkpoint) else None,
            progress=False if quiet else None,
        )

    def _note_end(self, folder: RunFolder, status: str) -> None:
        """Write the status into the record; an error here must not hide why the training ended."""
        with suppress(CheckpointError):
            folder.write({**self.record, "status": status})

    def _keep(self, folder: RunFolder, status: str, history: gn.History | None) -> None:
        """Write the best weights, the history and the results."""
        folder.require()
        self.network.loss = self.preprocessing.loss  # without smoothing, which is for training only
        self.network.save(folder.model)
        self.record["status"] = status
        if history is not None:
            folder.write_history(history)
            self.record["result"] = {
                "stopped": history.stopped,
                "epochs": history.epochs,
                "best_epoch": history.best_epoch,
                "seconds": float(history["seconds"][-1]) if history.epochs else 0.0,
                "held_out": self._loss_as_trained() | evaluation(self.network, self.held_out),
            }
        folder.write(self.record)

    @property
    def _objective(self) -> tuple[Loss, str]:
        """The loss that is minimised, and the metric to show beside it."""
        return recipe.loss_of(self.preprocessing.classes is not None, self.settings["smoothing"])

    @property
    def _class_weights(self) -> dict[int, float] | None:
        """Weights by class number, counted in the training rows; None unless --class-weight is balanced."""
        return recipe.balanced(self.sets[1].tolist()) if self.settings["class_weight"] == "balanced" else None

    @property
    def _held_out_row_weights(self) -> list[float] | None:
        """A weight for each held-out row, as in training: the best epoch is the best by what is minimised."""
        by_class = self._class_weights
        return None if by_class is None else [by_class[c] for c in self.sets[3].tolist()]

    def _loss_as_trained(self) -> dict[str, float]:
        """The held-out loss of the history, if smoothing or class weights make it differ from the plain one."""
        if not self.settings["smoothing"] and self._class_weights is None:
            return {}
        X, y = self.sets[2:]
        results = self.network.evaluate(X, y, loss=self._objective[0], sample_weight=self._held_out_row_weights)
        return {"loss_as_trained": results["loss"]}

    @property
    def preprocessing(self) -> Preprocessing:
        found = self.network.preprocessing
        assert isinstance(found, Preprocessing)
        return found

    def _check_data(self, folder: RunFolder) -> None:
        """Refuse to go on with data that differ from those at the start."""
        before, now = folder.read()["data"]["sha256"], self.record["data"]["sha256"]
        if before != now:
            raise CheckpointError(
                str(folder.path),
                expected=f"the data that the run began with, {before[:12]}",
                got=now[:12],
                fix="bring the data back as they were, or train anew with another --out",
            )


def _split_data(table: Table, s: dict[str, Any], memory: int | None) -> tuple[Table, Table, Preprocessing]:
    """The rows to train on, the held-out rows, and the preprocessing, which is fitted to the former."""
    share = recipe.share_of(s["validation"])
    # decided by all rows, because a part of them may look like another task
    task = "classification" if isinstance(fit_target(table, s["task"]), Classes) else "regression"
    options: dict[str, Any] = {"task": task, "numeric": s["numeric"], "leave_out": tuple(s["leave_out"])}
    if share is not None:
        train, held_out = split(table, share, seed=s["seed"], task=task)
        return train, held_out, Preprocessing.fit(train, **options)
    preprocessing = Preprocessing.fit(table, **options)
    held_out = preprocessing.read(s["validation"], memory=memory)
    say_unused(preprocessing, held_out)
    return table, held_out, preprocessing


def source_path(source: str) -> str:
    """A built-in name as it is, a file as an absolute path, so that a run can go on from any working folder."""
    return source if source in BUILT_IN else os.path.abspath(source)


def parameter_count(network: gn.Network) -> int:
    """How many numbers the network's parameters have."""
    return sum(math.prod(view.shape) for view in network.parameters.values())


def digest(sets: list[Any]) -> str:
    """A digest of the encoded rows that are trained on and held out."""
    found = hashlib.sha256()
    for array in sets:
        found.update(f"{array.dtype} {array.shape} ".encode())
        found.update(memoryview(array).cast("B"))
    return found.hexdigest()


def versions() -> dict[str, str | None]:
    found = {name: installed(name) for name in ("numpy", "nvmath-python")}
    return {"gpunn": gn.__version__, "python": platform.python_version(), **{n: v for n, v in found.items() if v}}
