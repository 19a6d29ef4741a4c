"""The progress line, on simulated terminals."""

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from gpunn.errors import ConfigurationError
from gpunn.training.progress import Progress, bar, describe
from tests.training.stage import at

RECORD = {
    "loss": np.array([0.123456]), "accuracy": np.array([0.9]), "validation_loss": np.array([0.5]),
    "gradient_norm": np.array([1.0]), "rate": np.array([1e-3]), "seconds": np.array([30.0]),
    "examples_per_second": np.array([1e6]),
}  # fmt: skip


def shown(show: bool | None, terminal: bool, epochs: int = 3, width: int = 200) -> str:
    """What is written during a training of three epochs."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, force_jupyter=False)
    progress = Progress(show, epochs=epochs, console=console)
    progress.on_start(at(0))
    for epoch in range(1, 4):
        record = {**RECORD, "seconds": np.array([30.0 * epoch])}
        progress.on_epoch(at(epoch), record)
    progress.on_end(at(3))
    progress.on_end(at(3))
    return file.getvalue()


def test_the_progress_line_shows_epoch_figures_and_time_left() -> None:
    line = "epoch 3/20  validation_loss 0.5  loss 0.1235  accuracy 0.9  2:50 left  rate 0.001"
    assert describe(3, 20, RECORD) == line
    assert describe(3, None, RECORD) == line.replace("/20", "").replace("  2:50 left", "")
    assert "left" not in describe(20, 20, RECORD)


@pytest.mark.parametrize(("epoch", "done"), [(0, 0), (1, 0), (10, 8), (19, 15), (20, 16), (21, 16)])
def test_the_progress_bar_shows_the_fraction_done(epoch: int, done: int) -> None:
    assert bar(epoch, 20) == "[" + "#" * done + "." * (16 - done) + "] "


def test_the_progress_line_of_a_population_shows_medians_and_best_models() -> None:
    record = {
        "loss": np.array([1.0, 2.0, 3.0]), "accuracy": np.array([0.25, 0.5, 0.75]), "rate": np.full(3, 0.1),
        "mse": np.array([1.0, np.nan, 3.0]), "seconds": np.full(3, 1.0), "mae": np.array([np.nan] * 3),
    }  # fmt: skip
    expected = "epoch 1/2  loss 2 (best 1)  accuracy 0.5 (best 0.75)  mse 2 (best 1)  mae nan  0:01 left  rate 0.1"
    assert describe(1, 2, record) == expected
    assert "rate 0.1 to 0.3" in describe(1, 2, {"rate": np.array([0.3, 0.1, 0.2])})


@pytest.mark.parametrize(
    ("seconds", "clock"), [(0.2, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (7325, "2:02:05")]
)
def test_the_progress_line_shows_the_time_left(seconds: float, clock: str) -> None:
    assert describe(1, 2, {"seconds": np.array([seconds])}) == f"epoch 1/2  {clock} left"


@pytest.mark.parametrize(("show", "terminal"), [(None, False), (False, False), (False, True)])
def test_progress_is_silent_if_not_asked_for_or_not_on_a_terminal(show: bool | None, terminal: bool) -> None:
    assert shown(show, terminal) == ""


def test_progress_to_a_file_is_one_line_for_each_epoch() -> None:
    lines = shown(True, terminal=False).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert lines[0].startswith("epoch 1/3  validation_loss 0.5  loss")
    assert len(shown(True, terminal=False, width=20).splitlines()) == 3  # not folded


@pytest.mark.parametrize("show", [None, True])
def test_progress_on_a_terminal_is_one_line(show: bool | None) -> None:
    text = shown(show, terminal=True)
    assert text.count("\n") == 1
    assert text.rindex("##] epoch 3/3") > text.index("..] epoch 1/3")  # the last is drawn however fast epochs are
    assert "\x1b[?25l" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


def test_progress_on_a_narrow_terminal_is_one_line() -> None:
    text = shown(True, terminal=True, width=30)
    assert text.count("\n") == 1 and "…" in text


NARROW = {
    80: "epoch 12/200  validation_loss 0.5312  loss 0.1235  validation_accuracy 0.9412  …",
    60: "epoch 12/200  validation_loss 0.5312  loss 0.1235  validati…",
    40: "epoch 12/200  validation_loss 0.5312  l…",
}


@pytest.mark.parametrize("width", NARROW)
def test_the_validation_loss_is_the_last_part_of_the_progress_line_to_be_cut(width: int) -> None:
    record = {
        "loss": np.array([0.123456]), "accuracy": np.array([0.9612]), "validation_loss": np.array([0.5312]),
        "validation_accuracy": np.array([0.9412]), "rate": np.array([1e-3]), "seconds": np.array([30.0]),
    }  # fmt: skip
    file = io.StringIO()
    progress = Progress(True, epochs=200, console=Console(file=file, force_terminal=True, width=width))
    progress.on_start(at(0))
    progress.on_epoch(at(12), record)
    progress.on_end(at(12))
    assert NARROW[width] in file.getvalue()


def test_the_progress_bar_is_shown_if_the_whole_line_has_room() -> None:
    line = "epoch 1/3  validation_loss 0.5  loss 0.1235  accuracy 0.9  1:00 left  rate 0.001"
    assert f"] {line}" in shown(True, terminal=True, width=len(bar(1, 3)) + len(line))
    narrow = shown(True, terminal=True, width=len(bar(1, 3)) + len(line) - 1)
    assert line in narrow and "] epoch" not in narrow  # nor in the last epoch, whose line is shorter


def test_the_progress_line_is_not_drawn_in_every_fast_epoch() -> None:
    file = io.StringIO()
    progress = Progress(True, console=Console(file=file, force_terminal=True, width=80))
    progress.on_start(at(0))
    for epoch in range(1, 2001):
        progress.on_epoch(at(epoch), RECORD)
    progress.on_end(at(2000))
    assert "epoch 2000 " in file.getvalue() and file.getvalue().count("epoch") < 200


def test_progress_may_end_without_having_started() -> None:
    Progress(True, console=Console(file=io.StringIO(), force_terminal=True)).on_end(at(0))


def test_one_progress_object_serves_two_trainings() -> None:
    file = io.StringIO()
    progress = Progress(True, console=Console(file=file, force_terminal=True, width=200))
    for _ in range(2):
        progress.on_start(at(0))
        progress.on_epoch(at(1), RECORD)
        progress.on_end(at(1))
    assert file.getvalue().count("\n") == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "expected"), [(Terminal(), True), (io.StringIO(), False), (None, False)])
def test_progress_is_shown_by_default_if_stderr_is_a_terminal(
    stream: Any, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert Progress().shown is expected
    assert Progress(True).shown and not Progress(False).shown


def test_progress_is_written_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(True, epochs=2)
    progress.on_start(at(0))
    progress.on_epoch(at(1), RECORD)
    progress.on_end(at(1))
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("epoch 1/2  validation_loss 0.5  loss 0.1235  ")


def test_rich_is_imported_only_when_progress_is_shown() -> None:
    program = (
        "import sys\nfrom types import SimpleNamespace as N\nimport gpunn\n"
        "from gpunn.training.progress import Progress\np = Progress(epochs=2)\n"
        "p.on_start(N(epoch=0))\np.on_epoch(N(epoch=1), {})\np.on_end(N(epoch=1))\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'rich']\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, stderr=subprocess.PIPE)


def test_progress_refuses_a_show_that_is_not_a_bool_or_none() -> None:
    with pytest.raises(ConfigurationError, match=r"^progress: expected one of None, True, False, got 'yes'; "):
        Progress("yes")  # type: ignore[arg-type]
