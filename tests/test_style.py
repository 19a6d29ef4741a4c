"""What the design says about the tree and no other tool checks: who imports whom, sizes, names, errors, words."""

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A module imports from its own row and from those above it; a name stands for the module and all inside it.
ROWS: tuple[tuple[str, ...], ...] = (
    ("gpunn.errors", "gpunn.types", "gpunn.hyper", "gpunn.fields", "gpunn.words", "gpunn.value", "gpunn.rules"),
    ("gpunn.files", "gpunn.archive", "gpunn.cores", "gpunn.dataframes", "gpunn.starting"),
    ("gpunn.backends.operation", "gpunn.backends.program", "gpunn.backends.formula"),
    ("gpunn.backends.reference",),
    ("gpunn.backends.cpu", "gpunn.backends.cuda"),
    ("gpunn.backends",),
    ("gpunn.parameters", "gpunn.per_model", "gpunn.frame", "gpunn.randomness", "gpunn.initializers"),
    ("gpunn.precision", "gpunn.loss_scale"),
    ("gpunn.layers", "gpunn.losses", "gpunn.metrics", "gpunn.regularization", "gpunn.optimizers", "gpunn.schedules"),
    (
        "gpunn.passes",
        "gpunn.opaque",
        "gpunn.python_state",
        "gpunn.recordable",
        "gpunn.uses",
        "gpunn.inputs",
        "gpunn.memory",
        "gpunn.summary",
        "gpunn.engine",
    ),
    ("gpunn.prediction", "gpunn.gradients"),
    ("gpunn.training",),
    ("gpunn.network",),
    ("gpunn.checkpoint", "gpunn.data", "gpunn.estimators", "gpunn.testing"),
    ("gpunn", "gpunn.cli"),
)
TYPES_ONLY = {("gpunn.frame", "gpunn.layers.base")}  # upward imports for annotations, under TYPE_CHECKING
# Who may import NumPy. The last row is of modules that the design plans.
NUMPY = {
    "gpunn.archive", "gpunn.backends", "gpunn.dataframes", "gpunn.engine", "gpunn.frame", "gpunn.hyper",
    "gpunn.initializers", "gpunn.inputs", "gpunn.loss_scale", "gpunn.memory", "gpunn.metrics", "gpunn.network",
    "gpunn.opaque", "gpunn.optimizers.base", "gpunn.optimizers.lbfgs", "gpunn.parameters", "gpunn.per_model",
    "gpunn.precision",
    "gpunn.prediction", "gpunn.python_state", "gpunn.randomness",
    "gpunn.recordable", "gpunn.schedules",
    "gpunn.training", "gpunn.checkpoint", "gpunn.data", "gpunn.estimators", "gpunn.testing",
}  # fmt: skip
CUPY = {"gpunn.backends.cuda"}

LONGEST = 330
LONGER: dict[str, int] = {}

TOP = {"pyproject.toml", "README.md", "LICENSE", "gpunn", "backends", "tests", "benchmarks", "docker"}
NEEDED = TOP - {"benchmarks", "docker"}


@dataclass(frozen=True)
class Import:
    """One imported module, with the line that names it."""

    importer: str
    imported: str
    line: int
    types_only: bool
    lazy: bool

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}, imports {self.imported}"


def product_files() -> list[Path]:
    """The Python files of the package; those of gpunn.backends under their real folder."""
    return sorted(p for folder in ("gpunn", "backends") for p in python_files(ROOT / folder))


def python_files(folder: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f != "__pycache__"]
        yield from (Path(base, name) for name in names if name.endswith(".py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "backends":
        parts = ("gpunn", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in product_files()}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports_of(importer: str, tree: ast.Module) -> Iterator[Import]:
    """All imports of a module, wherever they stand; `import_module("...")` is one too."""

    def visit(node: ast.AST, types_only: bool, lazy: bool) -> Iterator[Import]:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = f"<relative>.{node.module}" if node.level else str(node.module)
            inner = [f"{base}.{alias.name}" for alias in node.names]
            names = sorted({name if name in MODULES else base for name in inner})
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        yield from (Import(importer, name, node.lineno, types_only, lazy) for name in names)  # type: ignore[attr-defined]
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            types_only = True
        for child in ast.iter_child_nodes(node):
            yield from visit(child, types_only, lazy or isinstance(node, (ast.FunctionDef, ast.Lambda)))

    yield from visit(tree, False, False)


IMPORTS = [found for name, tree in TREES.items() for found in imports_of(name, tree)]


def within(module: str, names: set[str] | tuple[str, ...]) -> str | None:
    """The longest of the names that is this module or a package around it; `gpunn` stands for itself only."""
    around = [n for n in names if module == n or (n != "gpunn" and module.startswith(f"{n}."))]
    return max(around, key=len, default=None)


def row(module: str) -> int:
    for number, names in enumerate(ROWS):
        if within(module, names):
            return number
    raise AssertionError(f"{module} has no place in ROWS; give it one")


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_row_in_the_order_of_imports(module: str) -> None:
    row(module)


def test_modules_import_only_from_their_own_row_and_above() -> None:
    ours = [i for i in IMPORTS if i.imported.split(".")[0] == "gpunn" and (i.importer, i.imported) not in TYPES_ONLY]
    assert len(ours) > len(MODULES)  # they were found at all
    assert not [str(i) for i in ours if row(i.imported) > row(i.importer)]


def test_upward_imports_for_types_are_for_types() -> None:
    upward = {(i.importer, i.imported): i.types_only for i in IMPORTS if (i.importer, i.imported) in TYPES_ONLY}
    assert upward == dict.fromkeys(TYPES_ONLY, True)


def test_no_module_imports_relatively() -> None:
    assert not [str(i) for i in IMPORTS if i.imported.startswith("<relative>")]


def test_no_modules_import_each_other_in_a_cycle() -> None:
    """A package counts as its `__init__`, which every module inside it runs first; only a lazy import breaks a
    cycle."""
    graph: dict[str, set[str]] = {name: set() for name in MODULES if name != "gpunn"}
    for i in IMPORTS:
        inside = i.importer.startswith(f"{i.imported}.") or i.imported.startswith(f"{i.importer}.")
        if i.importer in graph and i.imported in graph and not (i.types_only or i.lazy or inside):
            graph[i.importer].add(i.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


# How code names a test module: as an import does, or in the arguments or the program of a child process.
TEST_MODULES = (
    re.compile(r"\btests\.(?:\w+\.)*test_\w+"),
    re.compile(r"(?m)^\s*from (?:tests|\.)[\w.]* import (?:\w+, )*test_\w+"),
)


def names_a_test_module(text: str) -> bool:
    return any(pattern.search(text) for pattern in TEST_MODULES)


def test_no_test_module_imports_another() -> None:
    """What several of them need is in a file of its own."""
    found = [path for path in python_files(ROOT / "tests") if names_a_test_module(path.read_text(encoding="utf-8"))]
    assert not [path.relative_to(ROOT).as_posix() for path in found]


@pytest.mark.parametrize(
    "line",
    [
        "from {}.training.test_fit import X",
        "import {}.training.test_fit as other",
        "    from {}.training import networks, test_fit",
        '[sys.executable, "-m", "{}.training.test_fit"]',
    ],
)
def test_a_line_that_names_a_test_module_is_found(line: str) -> None:
    assert names_a_test_module(line.format("tests"))


def importers(*libraries: str) -> dict[str, str]:
    return {i.importer: str(i) for i in IMPORTS if i.imported.split(".")[0] in libraries}


def test_numpy_is_imported_only_by_the_modules_that_may() -> None:
    found = importers("numpy")
    assert not [line for module, line in found.items() if not within(module, NUMPY)]
    unused = {name for name in NUMPY if within_any(name, MODULES)} - {within(module, NUMPY) for module in found}
    assert not unused, "these need no NumPy and no place in the list"


def within_any(name: str, modules: dict[str, Path]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for module in modules)


def test_the_cpu_and_cuda_backends_import_nothing_from_each_other() -> None:
    wings = {"gpunn.backends.cpu", "gpunn.backends.cuda"}
    found = [(within(i.importer, wings), within(i.imported, wings), str(i)) for i in IMPORTS]
    assert sum(here is not None for here, _, _ in found) > 100
    assert not [line for here, there, line in found if here and there and here != there]


def test_no_class_of_a_backend_has_more_than_two_bases() -> None:
    classes = [
        node
        for name, tree in TREES.items()
        if within(name, {"gpunn.backends"})
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    assert len(classes) > 20
    assert not [node.name for node in classes if len(node.bases) > 2]


def test_cupy_is_imported_only_by_the_modules_that_may() -> None:
    found = importers("cupy", "cupyx", "cupy_backends")
    assert "gpunn.backends.cuda.backend" in found
    assert not [line for module, line in found.items() if not within(module, CUPY)]


# Sizes and names


def test_no_source_file_is_too_long() -> None:
    kernels = (ROOT / "backends" / "cuda" / "kernels").glob("*.cu")
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in (*product_files(), *kernels)
    }
    limits = {name: LONGER.get(name, LONGEST) for name in lengths}
    assert not {name: lines for name, lines in lengths.items() if lines > limits[name]}
    assert not [name for name in LONGER if lengths.get(name, 0) <= LONGEST], "short enough now: take them off the list"


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files that git has or would take."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    top = subprocess.run(["git", "rev-parse", "--show-toplevel"], cwd=ROOT, capture_output=True, text=True, check=False)
    if top.returncode or Path(top.stdout.strip()).resolve() != ROOT:
        pytest.skip("this is no git checkout, so git cannot say which files belong to it")
    run = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted({name for name in run.stdout.split("\0") if name and os.path.lexists(ROOT / name)})


def test_the_top_level_of_the_tree_is_as_designed(tracked: list[str]) -> None:
    top = {name.split("/")[0] for name in tracked}
    assert {name for name in top if not name.startswith(".")} <= TOP
    assert top >= NEEDED
    assert [name for name in tracked if name.startswith(".ci/")] in ([], [".ci/run"])


def test_gpunn_backends_is_a_relative_link() -> None:
    link = ROOT / "gpunn" / "backends"
    assert link.is_symlink()
    assert os.readlink(link) == "../backends"


# Errors


def error_classes() -> set[str]:
    """The names of GpunnError and of everything in the package that derives from it."""
    classes = [node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found, size = {"GpunnError"}, 0
    while len(found) > size:
        size = len(found)
        found |= {c.name for c in classes if any(ast.unparse(b).split(".")[-1] in found for b in c.bases)}
    return found


def test_every_error_is_made_with_its_four_parts() -> None:
    """Where, expected, got and fix; checked wherever an error is made, raised at once or not."""
    names, made, incomplete = error_classes(), 0, []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in names:
                made += 1
                keywords = {keyword.arg for keyword in node.keywords}
                if not keywords >= {"expected", "got", "fix"} or len(node.args) + ("where" in keywords) != 1:
                    incomplete.append(f"{module}, line {node.lineno}: {ast.unparse(node)[:80]}")
            elif isinstance(node, ast.Raise) and node.exc and ast.unparse(node.exc).split(".")[-1] in names:
                incomplete.append(f"{module}, line {node.lineno}: {ast.unparse(node)}")
    assert made > 20
    assert not incomplete


# Words, written here so that this file does not find itself

WORDS = {
    "a note to do something later": re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b"),
    "an absolute path of somebody's machine": re.compile(r"(?<![\w.\-~])/(?:ho" r"me|wo" r"rk|Us" r"ers)/"),
    "an ignore without a code": re.compile(r"#\s*type:\s*ig" r"nore(?!\[)|#\s*no" r"qa(?!:)"),
}


@pytest.mark.parametrize("what", WORDS)
def test_no_tracked_file_has_unwanted_words(what: str, tracked: list[str]) -> None:
    found = []
    for name in tracked:
        path = ROOT / name
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        if b"\0" in data:
            continue
        lines = data.decode("utf-8").splitlines()
        found += [f"{name}:{n}: {line.strip()[:100]}" for n, line in enumerate(lines, 1) if WORDS[what].search(line)]
    assert not found, f"{what}:\n" + "\n".join(found)


def test_no_two_classes_have_one_name() -> None:
    """Except the public ones of two modules that users name with the module: `initializers` and `schedules`."""
    found: dict[str, list[str]] = {}
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(name)
    assert len(found) > 200
    twice = {name: modules for name, modules in found.items() if len(modules) > 1}
    assert twice == {"Constant": ["gpunn.initializers", "gpunn.schedules"]}
