"""Ways to call the command, and options for a short training."""

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
    """Call the command in this process; it must end with this exit code; unexpected exceptions are raised."""
    result = CliRunner().invoke(gpunn, [str(a) for a in arguments], catch_exceptions=False, prog_name="gpunn")
    assert result.exit_code == code, f"{result.exit_code}\n{result.output}"
    return result


def document(*arguments: Any, code: int = 0) -> Any:
    """The document that the command prints with --json; it must print nothing else."""
    return json.loads(call(*arguments, "--json", code=code).stdout)


def process(*arguments: Any, cwd: Path, before: str = "", stdout: Any = PIPE) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, after the Python code `before`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{before}\nfrom gpunn.cli import main\nmain()", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, stdout=stdout, stderr=PIPE, text=True, check=False)
