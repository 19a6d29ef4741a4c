"""Ctrl-C while the command is imported ends it silently with 130; in other programs it works as usual.

The signal comes from a finder of modules, which makes it come within the import of a library that is named here.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpunn import starting
from gpunn.cli import command

ROOT = Path(__file__).resolve().parents[1]
# Put before everything else that Python runs; `sitecustomize` is what a Python imports as it starts.
INTERRUPT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == os.environ["INTERRUPT_IN"]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""
SCRIPT = (
    "import sys\nfrom gpunn.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"  # as pip writes it
)


def started(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python that gets SIGINT when this module is looked for."""
    (folder / "sitecustomize.py").write_text(INTERRUPT)
    (folder / "gpunn").write_text(SCRIPT)
    (folder / "program.py").write_text("import gpunn\nprint('loaded')\n")
    path = os.pathsep.join([str(folder), str(ROOT), *sys.path[1:]])
    environment = os.environ | {"PYTHONPATH": path, "INTERRUPT_IN": module}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("module", ["gpunn.errors", "numpy", "numpy._core.umath", "click", "gpunn.cli.predict"])
@pytest.mark.parametrize("way", [("gpunn",), ("-m", "gpunn.cli")], ids=["script", "module"])
def test_ctrl_c_while_the_command_is_imported_ends_it_silently_with_130(
    way: tuple[str, ...], module: str, tmp_path: Path
) -> None:
    done = started(tmp_path, module, *way, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_while_the_command_works_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    done = started(tmp_path, "pyarrow", "gpunn", "train", "a.csv")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "gpunn: interrupted\n")


def test_ctrl_c_raises_an_exception_only_while_the_command_works() -> None:
    before = signal.signal(signal.SIGINT, starting.end)
    try:
        with command._interruptible():
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is starting.end
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_a_program_that_imports_gpunn_raises_keyboard_interrupt(tmp_path: Path) -> None:
    done = started(tmp_path, "gpunn.errors", "program.py")
    assert done.returncode == -signal.SIGINT and "KeyboardInterrupt" in done.stderr and done.stdout == ""


def test_an_ignored_ctrl_c_stays_ignored_while_the_command_is_imported(tmp_path: Path) -> None:
    """A shell script runs its background jobs in this way."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = started(tmp_path, "numpy", "gpunn", "--version")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.returncode == 0 and done.stdout.startswith("gpunn, version")


@pytest.mark.parametrize(
    ("arguments", "original", "is_command"),
    [
        (["/usr/bin/gpunn", "train"], ["python", "/usr/bin/gpunn", "train"], True),
        (["gpunn.exe"], ["gpunn.exe"], True),
        (["-m", "train"], ["python", "-m", "gpunn.cli", "train"], True),
        (["-m", "a"], ["python", "-m", "pytest", "a"], False),
        (["/usr/bin/gpunn.py"], ["python", "/usr/bin/gpunn.py"], False),
        (["-c"], ["python", "-c", "import gpunn"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_is_command_knows_the_command_from_other_programs(
    arguments: list[str], original: list[str], is_command: bool
) -> None:
    assert starting.is_command(arguments, original) == is_command
