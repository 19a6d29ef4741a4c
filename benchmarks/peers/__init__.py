"""The competitors, one file each; what a name stands for is imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from benchmarks.cases import Problem
from benchmarks.harness import NOT_INSTALLED, MissingPeerError


@dataclass(frozen=True)
class Peer:
    """A competitor: the package it needs, and the class in `benchmarks.peers.<module>` that takes its steps.

    `check` are the options for the comparison of losses without dropout, where the timed form only computes the same
    in another way and is slow to make.
    """

    name: str
    package: str
    module: str
    options: tuple[tuple[str, Any], ...] = ()
    check: tuple[tuple[str, Any], ...] | None = None

    def make(self, problem: Problem, kind: str, *, checked: bool = False) -> Any:
        options = self.check if checked and self.check is not None else self.options
        return self.load()(problem, kind, **dict(options))

    def load(self) -> Callable[..., Any]:
        made: Callable[..., Any] = competing(self.package, self.module).Steps
        return made


def competing(package: str, module: str) -> Any:
    """`benchmarks.peers.<module>`, where the package it needs is installed."""
    try:
        import_module(package)
    except ImportError as error:
        raise MissingPeerError(f"{NOT_INSTALLED}: {error}") from error
    return import_module(f"benchmarks.peers.{module}")


JIT = Peer("gpunn jit", "numba", "jit_peer")
TORCH = Peer("torch eager", "torch", "torch_peer")
TORCH_COMPILE = Peer("torch.compile", "torch", "torch_peer", (("compiled", True),), check=())
TORCH_GRAPH = Peer("torch CUDA graph", "torch", "torch_peer", (("captured", True),))
JAX = Peer("jax jit", "jax", "jax_peer")
JAX_SCAN = Peer("jax scan", "jax", "jax_peer", (("scan", True),))


def peers(kind: str) -> tuple[Peer, ...]:
    """Who competes on a CPU, or on a GPU."""
    if kind == "cuda":
        return (TORCH, TORCH_COMPILE, TORCH_GRAPH, JAX, JAX_SCAN)
    return (JIT, TORCH, TORCH_COMPILE, JAX)
