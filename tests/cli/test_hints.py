"""The options that errors about data advise exist in the command and solve the problem."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpunn.data import moons
from tests.cli.stage import QUICK, call, document

CPU = ("--device", "cpu")
X, Y = moons(60).arrays()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(path: str, how: Callable[..., None] = np.savez, **more: Any) -> str:
    columns = {"a": X[:, 0], "b": X[:, 1], "y": Y}
    how(path, **{**columns, **more})
    return path


def test_predict_names_columns_that_training_did_not_have() -> None:
    call("train", save("a.npz"), "--out", "a", *QUICK)
    other = save("b.npz", number=np.arange(60), page=np.arange(60))
    for command in ("evaluate", "predict"):
        plain, told = call(command, "a", "a.npz", *CPU), call(command, "a", other, *CPU)
        assert told.stdout == plain.stdout and plain.stderr == ""
        assert told.stderr == "gpunn: columns that training did not have are not used: 'number', 'page'\n"
        less = call(command, "a", other, "--leave-out", "number", "--leave-out", "page", *CPU)
        assert (less.stdout, less.stderr) == (plain.stdout, "")
        assert "expected a column 'pages'" in call(command, "a", other, "--leave-out", "pages", *CPU, code=3).stderr
    np.savez("c.npz", a=X[:, 0], c=X[:, 1])
    told = call("predict", "a", "c.npz", *CPU, code=3)
    assert "got 'b' missing, beside 'c', which training did not have; rename or add" in told.stderr


def test_train_names_columns_of_the_validation_file_that_are_not_used() -> None:
    told = call("train", save("a.npz"), "--validation", save("b.npz", page=np.arange(60)), "--out", "a", *QUICK)
    assert told.stderr.startswith("gpunn: columns that training did not have are not used: 'page'\n")


def test_the_option_numeric_quantile_takes_numbers_far_from_those_of_training() -> None:
    a = X[:, 0].copy()
    a[0] = 1e300
    other = save("b.npz", a=a)
    for name, more in (("a", ()), ("b", ("--numeric", "quantile"))):
        call("train", save("a.npz"), *more, "--out", name, *QUICK)
    told = call("predict", "a", other, *CPU, code=3).stderr
    assert "got 1e+300; correct it, or fit with numeric='quantile'; in a terminal: train --numeric quantile" in told
    assert len(document("predict", "b", other, *CPU)["predictions"]["y"]) == 60
    assert document("inspect", "b")["preprocessing"]["columns"][0]["column"] == "Quantile"
    call("train", "--resume", "--out", "b", "--quiet", *CPU)


def test_the_option_memory_allows_files_that_grow_when_read(monkeypatch: pytest.MonkeyPatch) -> None:
    save("a.npz", np.savez_compressed, c=np.zeros(60))
    monkeypatch.setattr("gpunn.data.file_sizes.LEAST_LIMIT", 0)
    monkeypatch.setattr("gpunn.data.file_sizes.RATIO", 0)
    more = ("--memory", "10000")
    assert "in a terminal: --memory BYTES" in call("train", "a.npz", "--out", "a", *QUICK, code=3).stderr
    assert "at most 9 bytes" in call("train", "a.npz", "--memory", "9", "--out", "a", *QUICK, code=3).stderr
    call("train", "a.npz", *more, "--out", "a", *QUICK)
    assert "memory" not in document("inspect", "a")["record"]["settings"]
    call("train", "--resume", "--out", "a", *more, "--quiet", *CPU)
    call("train", "moons", "--validation", "a.npz", "--out", "b", *QUICK, code=3)
    for command in ("evaluate", "predict"):
        assert "--memory BYTES" in call(command, "a", "a.npz", *CPU, code=3).stderr
        call(command, "a", "a.npz", *more, *CPU)


def test_the_option_task_makes_many_texts_classes() -> None:
    save("a.npz", y=np.array([f"n{i % 50}" for i in range(60)]))
    told = call("train", "a.npz", "--out", "a", *QUICK, code=3).stderr
    assert 'choose another target, or pass task="classification"; in a terminal: --task classification' in told
    call("train", "a.npz", "--task", "classification", "--out", "a", *QUICK)


def test_the_option_memory_applies_to_the_validation_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    save("a.npz")
    monkeypatch.setattr("gpunn.data.file_sizes.LEAST_LIMIT", 0)
    monkeypatch.setattr("gpunn.data.file_sizes.RATIO", 0)
    call("train", "a.npz", "--validation", "a.npz", "--memory", "10000", "--out", "a", *QUICK)
