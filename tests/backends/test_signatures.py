"""Every backend has the operations that are declared in `reference/`, with their arguments and defaults."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cuda.backend import CupyBackend
from gpunn.backends.operation import OPERATIONS, SHARED, Operation, operation
from gpunn.backends.reference.backend import Backend

# The methods of a backend beside those of all.
OWN = {NumpyBackend: set[str](), CupyBackend: {"activate", "launch", "scratch"}}


def public(kind: type) -> dict[str, Any]:
    return {name: f for name, f in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def parameters(function: Callable[..., Any]) -> list[tuple[Any, ...]]:
    """The parameters of a function after the first, which is the backend."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()][1:]


@pytest.mark.parametrize("kind", OWN)
def test_a_backend_has_the_methods_of_the_reference_and_few_others(kind: type) -> None:
    assert set(public(kind)) == set(public(Backend)) | OWN[kind]
    assert kind.name != Backend.name  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("name", public(Backend))
def test_a_method_has_the_arguments_that_the_reference_has(kind: type, name: str) -> None:
    assert parameters(public(kind)[name]) == parameters(public(Backend)[name])


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_reference_has_every_declared_operation_as_it_is(name: str) -> None:
    assert vars(Backend)[name] is OPERATIONS[name].function


@pytest.mark.parametrize("declared", OPERATIONS.values(), ids=OPERATIONS)
def test_a_declaration_names_the_arguments_that_are_arrays(declared: Operation) -> None:
    annotations = inspect.get_annotations(declared.function)
    arrays = [name for name, kind in annotations.items() if name != "return" and ("Array" in kind or "Stat" in kind)]
    if declared.name == "elementwise":
        arrays = ["inputs", "outputs"]  # tuples of arrays and numbers
    assert list(declared.axes) == arrays
    assert declared.writes and declared.writes <= set(arrays)


def test_only_arrays_that_no_operation_writes_are_shared() -> None:
    shared = {(d.name, name) for d in OPERATIONS.values() for name, axes in d.axes.items() if axes is SHARED}
    assert ("batch", "cursor") in shared and ("gather", "source") in shared
    assert not [name for name, argument in shared if argument in OPERATIONS[name].writes]


def test_a_declaration_reads_a_call_by_name() -> None:
    def scaled(ops: Any, X: Any, factor: float, step: Any, out: Any) -> Any:
        return out

    operation(writes=["out"], X=2, step=SHARED, out=lambda arguments: arguments["X"] + 1)(scaled)
    declared = OPERATIONS.pop("scaled")
    call = declared.named((5, 0.5, 9), {"out": 7})
    assert call == {"X": 5, "factor": 0.5, "step": 9, "out": 7} and declared.returns == "out"
    assert [declared.axes_of(name, call) for name in call] == [2, None, None, 6]
    assert list(declared.arrays(call)) == [("X", 5), ("step", 9), ("out", 7)]
    assert list(declared.arrays({**call, "X": (1, 2)})) == [("X", 1), ("X", 2), ("step", 9), ("out", 7)]
