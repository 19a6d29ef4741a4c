"""Every backend has the operations of base.py, with its arguments and defaults."""

import inspect
from typing import Any

import pytest

from gpunn.backends.base import Backend
from gpunn.backends.cupy_backend import CupyBackend
from gpunn.backends.numpy_backend import NumpyBackend

# What a backend has beside the operations.
OWN = {NumpyBackend: set(), CupyBackend: {"activate", "launch", "scratch"}}


def public(kind: type) -> dict[str, Any]:
    return {name: f for name, f in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


@pytest.mark.parametrize("kind", OWN)
def test_a_backend_has_the_operations_of_base(kind: type) -> None:
    assert set(public(kind)) == set(public(Backend)) | OWN[kind]


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("name", public(Backend))
def test_an_operation_has_the_arguments_of_base(kind: type, name: str) -> None:
    wanted, found = (inspect.signature(public(owner)[name]) for owner in (Backend, kind))
    assert [(p.name, p.kind, p.default) for p in found.parameters.values()] == [
        (p.name, p.kind, p.default) for p in wanted.parameters.values()
    ]


@pytest.mark.parametrize("kind", OWN)
def test_a_backend_is_named(kind: type) -> None:
    assert kind.name != Backend.name
    assert issubclass(kind, Backend)
