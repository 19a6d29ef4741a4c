"""The command as a whole: its help, exit codes, errors of one line, and a quick start."""

import errno
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gpunn as gn
from gpunn import errors
from gpunn.cli import command, gpunn
from gpunn.cli.exits import EXITS, exit_code
from gpunn.errors import GpunnError
from tests.cli.stage import ROOT, call, document, process

KINDS = sorted(
    (cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, GpunnError)),
    key=lambda cls: cls.__name__,
)
ORDER = ("train", "evaluate", "predict", "inspect", "benchmark", "doctor")
HEAVY = ("cupy", "matplotlib", "numba", "pandas", "pyarrow", "rich", "sklearn", "torch")


def example(name: str) -> str:
    """The one line under Example in a sub-command's help."""
    found = re.findall(r"^  Example:\n    (gpunn .+)$", call(name, "--help").stdout, re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def test_the_help_of_every_command_has_an_example() -> None:
    assert sorted(ORDER) == sorted(gpunn.commands)
    assert "gpunn train digits" in call("--help").stdout


def test_the_examples_of_the_help_run_and_digits_pass_97_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["gpunn.cli.doctor"], "gpus", lambda: ())  # what is wrong with this machine's GPU
    for name in ORDER:
        _, *arguments = shlex.split(example(name))
        call(*arguments)
    assert document("inspect", "runs/digits")["record"]["result"]["held_out"]["accuracy"] > 0.97
    assert len(Path("digits.csv").read_text().splitlines()) == 1 + 1797
    assert {path.name for path in Path("runs/digits").iterdir()} >= {
        "model.gpunn", "checkpoint.gpunn", "history.csv", "history.json", "run.json",
    }  # fmt: skip


def test_the_option_version_prints_the_version() -> None:
    assert call("--version").stdout == f"gpunn, version {gn.__version__}\n"


def test_help_names_every_exit_code() -> None:
    text = call("--help").stdout
    for code, meaning in EXITS.items():
        assert re.search(rf"^ +{code} +{re.escape(meaning)}$", text, re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_has_a_documented_exit_code(kind: type[GpunnError]) -> None:
    code = exit_code(kind("here", expected="a", got="b", fix="c"))
    assert code in EXITS and code > 1


def test_kinds_of_errors_have_different_exit_codes() -> None:
    codes = [exit_code(kind("here", expected="a", got="b", fix="c")) for kind in KINDS]
    assert len(set(codes)) == 5  # usage, data, files, devices, missing libraries


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "nowhere.csv"], 3, r"nowhere\.csv.*expected a file to read"),
        (["train", "digits", "--hidden", "a"], 2, r"--hidden: expected widths"),
        (["train", "digits", "--device", "cuda:99"], 5, r'device "cuda'),
        (["train", "digits", "--device", "tpu"], 2, r'expected "auto", "cpu"'),
        (["inspect", "nowhere"], 4, r"nowhere.*: expected"),
        (["predict", "nowhere", "digits", "-o", "x.txt"], 2, r"--output: expected a name that ends in"),
    ],
)
def test_an_error_of_the_command_is_one_line(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments, code=code)
    assert re.match(rf"gpunn: .*{message}", result.stderr)
    assert result.stderr.count("\n") == 1 and result.stdout == ""
    assert not list(tmp_path.iterdir())
    told = document(*arguments, code=code)["error"]
    assert set(told) == {"kind", "where", "expected", "got", "fix"}
    assert issubclass(getattr(errors, told["kind"]), GpunnError)


@pytest.mark.parametrize("arguments", [["train"], ["train", "digits", "--epochs", "0"], ["fly"], ["train", "--fly"]])
def test_usage_errors_exit_with_2_and_name_the_help(arguments: list[str]) -> None:
    told = call(*arguments, code=2)
    assert "Error: " in told.stderr and told.stdout == ""
    error = document(*arguments, code=2)["error"]
    assert error["kind"] == "ConfigurationError" and f"Error: {error['got']}" in told.stderr
    assert error["where"].startswith("gpunn") and error["fix"] == f"see {error['where']} --help"


def test_an_error_while_writing_results_exits_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "curves.png")

    monkeypatch.setattr(sys.modules["gpunn.cli.doctor"], "print_table", full)
    told = call("doctor", code=4)
    assert told.stderr == (
        "gpunn: curves.png: expected to write results, got No space left on device; free space, or write elsewhere\n"
    )
    monkeypatch.setattr(sys.modules["gpunn.cli.inspect"], "load_network", full)
    assert document("inspect", "a", code=4)["error"]["kind"] == "CheckpointError"
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as nowhere:
            done = process("doctor", cwd=tmp_path, stdout=nowhere)
        assert done.returncode == 4
        assert done.stderr.startswith("gpunn: stdout: expected to write results, got No space left on device; free")
        assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no such device")
@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("train", "--help")])
def test_an_error_while_writing_the_help_exits_with_4(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with open("/dev/full", "w") as nowhere:
        done = process(*arguments, cwd=tmp_path, stdout=nowhere)
    fix = "free space, or write elsewhere"
    assert done.stderr == f"gpunn: stdout: expected to write results, got No space left on device; {fix}\n"
    assert done.returncode == 4


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_predict_exits_with_4_if_stdout_is_closed(options: tuple[str, ...], tmp_path: Path) -> None:
    """`sys.stdout` is None then; the command reads and computes nothing."""
    done = process("predict", "no run", "no data", *options, cwd=tmp_path, before="import sys; sys.stdout = None")
    fix = "free space, or write elsewhere"
    assert done.stderr == f"gpunn: stdout: expected to write results, got Bad file descriptor; {fix}\n"
    assert done.returncode == 4


def test_a_closed_pipe_on_stdout_is_no_error(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as pipe:
        done = process("doctor", cwd=tmp_path, stdout=pipe)
    assert (done.returncode, done.stderr) == (1, "")


def test_exceptions_that_are_not_gpunns_own_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(sys.modules["gpunn.cli.doctor"], "python", broken)
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        call("doctor")


def test_ctrl_c_ends_a_command_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["gpunn.cli.doctor"], "python", interrupted)
    assert call("doctor", code=130).stderr == "gpunn: interrupted\n"
    assert document("doctor", code=130) == {"status": "interrupted"}


def test_sigterm_ends_a_command_that_does_not_train_with_143(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["gpunn.cli.doctor"], "python", lambda: command._terminate(signal.SIGTERM, None))
    assert call("doctor", code=143).stderr == "gpunn: terminated\n"
    assert document("doctor", code=143) == {"status": "terminated"}


def test_ctrl_c_while_a_command_is_imported_ends_it_with_130(tmp_path: Path) -> None:
    early = (
        "import gpunn, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'gpunn.cli.train':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = process("doctor", cwd=tmp_path, before=early)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_results_go_to_stdout_and_the_exit_code_to_the_shell(tmp_path: Path) -> None:
    done = process("train", "nowhere.csv", "--json", cwd=tmp_path)
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["kind"] == "DataError"
    assert done.stderr.startswith("gpunn: ") and "Traceback" not in done.stderr


def test_starting_the_command_imports_no_optional_library() -> None:
    code = f"import sys; from gpunn.cli import gpunn; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_sigterm_ends_a_command_even_as_the_first_process_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default handler does not end the first process of a container."""
    known = {}
    fake = SimpleNamespace(
        getsignal=lambda number: signal.SIG_DFL,
        signal=known.__setitem__,
        SIGTERM=signal.SIGTERM,
        SIG_DFL=signal.SIG_DFL,
    )
    monkeypatch.setattr(sys.modules["gpunn.cli.command"], "signal", fake)
    monkeypatch.setattr(sys.modules["gpunn.cli.command"], "gpunn", lambda prog_name: 0)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        known[signal.SIGTERM](signal.SIGTERM, None)
    assert ended.value.code == 143
