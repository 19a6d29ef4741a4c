"""What the tests of the command share: calling it, and a training that takes a moment."""

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

from click.testing import CliRunner, Result

from gpunn.cli import gpunn

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--device", "cpu", "--hidden", "8", "--epochs", "6", "--batch-size", "100", "--quiet")


def call(*arguments: Any, code: int = 0) -> Result:
    """The command in this process; it must end with this code, and other exceptions than its own are the test's."""
    result = CliRunner().invoke(gpunn, [str(a) for a in arguments], catch_exceptions=False, prog_name="gpunn")
    assert result.exit_code == code, f"{result.exit_code}\n{result.output}"
    return result


def document(*arguments: Any, code: int = 0) -> Any:
    """What it prints with --json, which is one document and nothing else."""
    return json.loads(call(*arguments, "--json", code=code).stdout)


def process(*arguments: Any, cwd: Path, before: str = "", stdout: Any = PIPE) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, which first runs the text `before`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{before}\nfrom gpunn.cli import main\nmain()", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, stdout=stdout, stderr=PIPE, text=True, check=False)
