"""Exact messages and unchanged networks, for tests of what is refused."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import gpunn as gn

# Where, expected, got, fix: what every message must have, where a test does not spell out the words.
FORM = r"(?s)^\S.*: expected \S.*, got \S.*; \S.*"


def exactly(message: str) -> str:
    """A pattern for `match=` that fits this whole message only."""
    return f"^{re.escape(message)}$"


def contents(network: gn.Network) -> list[bytes]:
    """Every number a network holds, bit for bit."""
    arrays = (network.vector, network.gradient_vector, network.store.state, network.step)
    return [network.ops.to_host(array).tobytes() for array in arrays]


@contextmanager
def unchanged(network: gn.Network) -> Iterator[None]:
    """Parameters, gradients, state and step must not change within the block."""
    before = contents(network)
    yield
    assert contents(network) == before


def placed(backend: Any, value: Any, place: str) -> Any:
    """An array on the host or on the backend's device; anything else is returned unchanged."""
    return backend.from_host(value) if place == "device" and isinstance(value, np.ndarray) else value
