"""`backends/` is `gpunn.backends` in an uninstalled checkout, an editable install, a wheel, and a wheel from an sdist.

Everything is built from a copy of the checkout, installed without the network, and imported by a fresh environment
that sees the dependencies of the running one but not its gpunn.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gpunn as gn

ROOT = Path(__file__).resolve().parents[2]
SITUATIONS = ("checkout", "editable", "wheel", "sdist")
PARTS = ("pyproject.toml", "README.md", "LICENSE", "gpunn", "backends", "tests")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.py[cod]", "*.egg-info", ".*", "build", "dist")

# What a fresh interpreter says about the gpunn that it finds.
PROBE = """
import importlib.util, json, pathlib, sys
elsewhere = importlib.util.find_spec("backends")
import gpunn as gn
import gpunn.backends, gpunn.backends.cuda.kernels
from importlib import resources

folder = pathlib.Path(gpunn.backends.__file__).resolve().parent
sys.path.insert(0, str(folder.parent))
try:
    import backends
except ImportError as error:
    refusal = str(error)
else:
    refusal = None
names = sorted(f.name for f in resources.files("gpunn.backends.cuda.kernels").iterdir() if f.name.endswith(".cu"))
types = (("T", "float32"), ("ACC", "float32"))
kernels = {name: gpunn.backends.cuda.kernels.kernel_source(name.removesuffix(".cu"), types) for name in names}
net = gn.Network([gn.Dense(5, "relu"), gn.Dense(3)], inputs=4, device="cpu", dtype="float64", seed=1)
X = [[0.1, -0.2, 0.3, 0.4], [1.0, 0.5, -0.5, 0.0]]
loss, gradients = net.gradients(X, [0, 2], gn.CrossEntropy())
print(json.dumps({
    "package": str(pathlib.Path(gn.__file__).resolve()), "backends": gpunn.backends.__file__,
    "loaded": sorted(name for name in sys.modules if name.split(".")[0] == "backends"),
    "elsewhere": str(elsewhere and elsewhere.origin), "refusal": refusal, "kernels": kernels,
    "typed": resources.files("gpunn").joinpath("py.typed").is_file(),
    "loss": loss, "gradient": gradients["0.W"].tolist(), "output": net.predict(X).tolist(),
}))
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """The output of a command, run without settings of Python or pip; if it fails, the output is the failure."""
    variables |= {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run(
        command, cwd=cwd, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_tree(source: Path, target: Path) -> Path:
    """The files of a checkout without what builds and tests leave behind; links stay links."""
    target.mkdir()
    for name in PARTS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, symlinks=True, ignore=LEFT_OUT)
        else:
            shutil.copy2(source / name, target / name)
    return target


@dataclass(frozen=True)
class Environment:
    """A fresh virtual environment without pip."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    def install(self, what: Path, *options: str) -> None:
        """By the running pip, from this machine alone."""
        pip = (sys.executable, "-m", "pip", "--isolated", "--python", self.python, "install", "--quiet")
        offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
        run(*pip, *offline, *options, what, cwd=self.folder)


def new_environment(folder: Path) -> Environment:
    """A path file shows it the running environment's packages, whose own path files (an editable gpunn) stay unread."""
    venv.create(folder, symlinks=True, with_pip=False)
    environment = Environment(folder)
    seen = dict.fromkeys(sysconfig.get_paths()[key] for key in ("purelib", "platlib"))
    (environment.packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in seen), encoding="utf-8")
    return environment


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(ROOT, tmp_path_factory.mktemp("checkout") / "gpunn")


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    return build(copy_tree(checkout, folder / "tree"), folder / "dist", "--sdist")[0]


@pytest.fixture(scope="module")
def wheels(checkout: Path, sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel built from a checkout, and the one built from the sdist."""
    folder = tmp_path_factory.mktemp("wheels")
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.0 to 3.11.3 have none
        archive.extractall(folder)
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    return {
        "wheel": build(copy_tree(checkout, folder / "tree"), folder / "of_checkout", "--wheel")[0],
        "sdist": build(unpacked, folder / "of_sdist", "--wheel")[0],
    }


def build(source: Path, target: Path, *options: str) -> list[Path]:
    """What `python -m build` makes of a tree that it may write in: by default an sdist, and a wheel from that."""
    run(sys.executable, "-m", "build", *options, "--no-isolation", "--outdir", target, source, cwd=target.parent)
    return sorted(target.iterdir())


@dataclass(frozen=True)
class Found:
    """Where gpunn should be, and what the probe said."""

    package: Path
    backends: Path
    said: dict[str, Any]


@pytest.fixture(scope="module", params=SITUATIONS)
def found(request: pytest.FixtureRequest, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    situation: str = request.param
    folder = tmp_path_factory.mktemp(situation)
    environment = new_environment(folder / "venv")
    options: list[str] = ["-I"]
    variables: dict[str, str] = {}
    if situation in ("wheel", "sdist"):
        environment.install(request.getfixturevalue("wheels")[situation])
        package, backends = environment.packages / "gpunn", environment.packages / "gpunn" / "backends"
    else:
        tree = copy_tree(checkout, folder / "tree")  # an editable install leaves its metadata beside the sources
        package, backends = tree / "gpunn", tree / "backends"
        if situation == "editable":
            environment.install(tree, "--editable")
        else:
            options, variables = [], {"PYTHONPATH": str(tree)}
    said = json.loads(run(environment.python, *options, "-c", PROBE, cwd=folder, **variables))
    return Found(package.resolve(), backends.resolve(), said)


def test_the_imported_package_is_where_it_should_be(found: Found) -> None:
    assert Path(found.said["package"]) == found.package / "__init__.py"
    assert Path(found.said["backends"]).resolve() == found.backends / "__init__.py"


def test_backends_is_refused_as_a_package_of_its_own(found: Found) -> None:
    assert found.said["refusal"] == "this package is gpunn.backends, not backends; import gpunn.backends"
    assert not found.said["loaded"]


def test_an_installed_gpunn_adds_no_package_called_backends(found: Found) -> None:
    """Except in a checkout that is on the path, where the guard refuses the import."""
    on_the_path = found.backends / "__init__.py"
    in_checkout = found.package.parent / "backends" == found.backends
    assert found.said["elsewhere"] in (("None", str(on_the_path)) if in_checkout else ("None",))


def test_the_cuda_texts_are_part_of_the_installed_package(found: Found, checkout: Path) -> None:
    """Each text follows the common one and is that of the checkout."""
    folder = checkout / "backends" / "cuda" / "kernels"
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.cu")}
    assert texts.keys() == found.said["kernels"].keys()
    for name, loaded in found.said["kernels"].items():
        assert loaded.startswith(texts["common.cu"])
        assert loaded.endswith(texts[name])
    assert found.said["typed"]


def test_an_installed_gpunn_computes_a_gradient(found: Found) -> None:
    net = gn.Network([gn.Dense(5, "relu"), gn.Dense(3)], inputs=4, device="cpu", dtype="float64", seed=1)
    X = [[0.1, -0.2, 0.3, 0.4], [1.0, 0.5, -0.5, 0.0]]
    loss, gradients = net.gradients(X, [0, 2], gn.CrossEntropy())
    assert found.said["loss"] == pytest.approx(loss, rel=1e-12)
    assert found.said["gradient"] == [pytest.approx(row, rel=1e-10, abs=1e-14) for row in gradients["0.W"].tolist()]
    assert found.said["output"] == [pytest.approx(row, rel=1e-10, abs=1e-14) for row in net.predict(X).tolist()]


def test_a_checkout_works_from_its_own_folder(checkout: Path, tmp_path: Path) -> None:
    """Without PYTHONPATH, as for someone who cloned and starts Python; `backends` is refused there too."""
    environment = new_environment(tmp_path / "venv")
    said = json.loads(run(environment.python, "-c", PROBE, cwd=checkout))
    assert Path(said["backends"]).resolve() == checkout.resolve() / "backends" / "__init__.py"
    assert said["refusal"] == "this package is gpunn.backends, not backends; import gpunn.backends"


def package_files(tree: Path) -> set[str]:
    """The files that a wheel must have: every module, kernel and marker of the tree, under its import path."""
    paths = [path.relative_to(tree) for folder in ("gpunn", "backends") for path in (tree / folder).rglob("*")]
    wanted = [path for path in paths if path.suffix in (".py", ".cu", ".npz", ".txt") or path.name == "py.typed"]
    return {("gpunn" / path if path.parts[0] == "backends" else path).as_posix() for path in wanted}


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel by name, without the list of their checksums."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith(".dist-info/RECORD")}


def test_a_wheel_has_the_package_and_nothing_else(wheels: dict[str, Path], checkout: Path) -> None:
    """No tests and no top-level `backends`; and no package that pyproject.toml forgot."""
    names = {name for name in contents(wheels["wheel"]) if ".dist-info/" not in name}
    assert names == package_files(checkout)
    assert {"gpunn/py.typed", "gpunn/backends/__init__.py", "gpunn/backends/cuda/kernels/common.cu"} <= names


def test_a_wheel_built_from_the_sdist_is_the_same(wheels: dict[str, Path]) -> None:
    assert contents(wheels["sdist"]) == contents(wheels["wheel"])


def test_the_sdist_has_no_links_and_no_second_backends(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert not [member.name for member in members if member.issym() or member.islnk()]
    inside = {member.name.partition("/")[2] for member in members if member.isfile()}
    assert not {name for name in inside if name.startswith(("gpunn/backends", "build/", "dist/"))}
    assert {"README.md", "LICENSE", "pyproject.toml", "backends/cuda/kernels/common.cu", "gpunn/py.typed"} <= inside


def test_a_release_has_nothing_of_an_earlier_build(checkout: Path, tmp_path: Path) -> None:
    """`python -m build` goes by way of the sdist. (A wheel made in place would take whatever lies in build/lib.)"""
    tree = copy_tree(checkout, tmp_path / "tree")
    for stale in ("build/lib/gpunn/old.py", "build/lib/backends/__init__.py", "build/lib/tests/__init__.py"):
        (tree / stale).parent.mkdir(parents=True, exist_ok=True)
        (tree / stale).write_text("")
    wheel, _ = build(tree, tmp_path / "dist")
    assert wheel.suffix == ".whl"
    assert {name for name in contents(wheel) if ".dist-info/" not in name} == package_files(checkout)
