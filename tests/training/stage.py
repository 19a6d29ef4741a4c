"""A compiled pass to measure, and a run as a callback gets it, for tests of probes, flow and progress."""

from types import SimpleNamespace
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.training.probe import FlowProbe

ROWS = 6


def prepared(layers: Any, device: Any, models: Any, rows: int = ROWS, **options: Any) -> tuple[Any, Any, Any]:
    """A compiled pass with data on the device, and its network."""
    rng = np.random.default_rng(0)
    network = gn.Network(layers, 3, device=device, models=models, **options)
    X = network.ops.from_host(rng.normal(size=(rows, 3)), network.dtype)
    y = network.ops.from_host(rng.integers(0, 3, rows))
    return network, network.compile(rows, gn.CrossEntropy()), (X, y)


def run(run_pass: Any, data: Any, probe: FlowProbe) -> None:
    """Forward, loss and backward with both measurements in their places."""
    A = run_pass.forward(data[0])
    probe.measure_activations()
    run_pass.value(A, data[1])
    run_pass.backward()
    probe.measure_gradients()


def at(epoch: int) -> Any:
    """A run after this many epochs."""
    return SimpleNamespace(epoch=epoch)
