"""`gpunn benchmark`: how fast this machine trains, by the times that `fit` records."""

from __future__ import annotations

import os
import platform
from statistics import median
from typing import Any

import click

import gpunn as gn
from gpunn.cli.checks import HAND_SET, installed
from gpunn.cli.machine import blas_libraries, processor
from gpunn.cli.options import device_option, dtype_option
from gpunn.cli.output import json_option, print_document, print_table
from gpunn.cli.recipe import hidden_layers, widths
from gpunn.cores import usable_cpus
from gpunn.data import read


def measure(net: gn.Network, batch_size: int, epochs: int) -> dict[str, float]:
    """A training step on the digits in microseconds: of the median epoch, the fastest and the slowest one.

    Whole epochs are timed, with shuffling and the transfer of results; the first one, which allocates, compiles and
    captures, does not count. The last, shorter batch is left out so that all steps do the same. The small rate keeps
    the loss from coming near 0, where tiny numbers would slow the processor down.
    """
    X, y = read("digits").arrays()
    history = net.fit(
        X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-5), epochs=epochs + 1, batch_size=batch_size,
        drop_last=True, progress=False,
    )  # fmt: skip
    speeds = history["examples_per_second"][1:].tolist()
    steps = [1e6 * batch_size / speed for speed in speeds]
    return {
        "step_microseconds": median(steps), "fastest": min(steps), "slowest": max(steps),
        "examples_per_second": median(speeds),
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """What the times depend on beside the network."""
    pools = blas_libraries()
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": usable_cpus(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "blas": [
            f"{p['internal_api']} {p['version']} {p.get('architecture')}, {p['num_threads']} threads" for p in pools
        ],
        "set": [name for name in HAND_SET if name in os.environ],
        "versions": [f"gpunn {gn.__version__}", f"numpy {installed('numpy')}", f"Python {platform.python_version()}"],
    }


@click.command("benchmark", short_help="Measure a training step on this machine.")
@click.option("--hidden", default="256,256", show_default=True, metavar="N,N", help="Widths.")
@click.option("--batch-size", type=click.IntRange(2, 1024), default=128, show_default=True)
@click.option(
    "--epochs", type=click.IntRange(1), default=20, show_default=True, help="To measure, after one to warm up."
)
@device_option
@dtype_option
@json_option
def command(hidden: str, batch_size: int, epochs: int, device: str, dtype: str, as_json: bool) -> None:
    """Measure a training step (BatchNorm, cross-entropy, Adam) on the digits.

    Nothing else should run meanwhile. A checkout compares with other libraries: python -m benchmarks

    \b
    Example:
      gpunn benchmark --epochs 5
    """
    layers = [*hidden_layers(widths(hidden), "relu", 0.0, batch_norm=True), gn.Dense(10)]
    net = gn.Network(layers, 64, device=device, dtype=dtype)
    results = measure(net, batch_size, epochs)
    settings = {"network": f"64-{hidden.replace(',', '-')}-10", "batch_size": batch_size, "epochs": epochs,
                "device": net.ops.device, "dtype": net.precision.name}  # fmt: skip
    facts = machine()
    if as_json:
        print_document({**settings, **results, "machine": facts})
        return
    rows = [(name.replace("_", " "), value) for name, value in {**settings, **results}.items()]
    rows += [(name, ", ".join(value) if isinstance(value, list) else value) for name, value in facts.items() if value]
    print_table(rows)
