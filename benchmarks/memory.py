"""How much memory does a training take at most, over what its plan asks for?

    python -m benchmarks.memory

Each net is trained for an epoch in a process of its own. The formula is four numbers for each parameter (value,
gradient and Adam's moments), each layer's output and its gradient for one batch, that batch, and the data; the plan is
what gpunn knows before it begins. The last weights are kept, since to keep the best ones takes two copies of them, or
one where a validation set judges them. Beside them stand what Python and NumPy
allocated at most while the network was made and while it was trained, and what the kernel counted as resident beyond
what there was before; the data are counted in.
"""

from __future__ import annotations

import multiprocessing
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.cases import GRID, Case
from benchmarks.command import alone
from benchmarks.harness import LEFT_OUT, Row, Setting, failure, say
from benchmarks.mapped import resident_peak
from benchmarks.peers import ours
from gpunn.training.prepare import check, need

MIB = 2**20
BATCHES = 20
FORMULA, PLAN = "formula", "plan"
MADE, TRAINED, RESIDENT = "allocated at most in making", "in training", "resident at most"


def run(setting: Setting) -> list[Row]:
    if ours.kind_of(setting.device) == "cuda":
        return [Row("memory", "", "gpunn", "MiB", note=f"{LEFT_OUT}: it is measured on the CPU")]
    rows: list[Row] = []
    for case in GRID[1:2] if setting.quick else GRID:
        rows += measure(f"{case}, {BATCHES} batches", case)
    return rows


def measure(name: str, case: Case) -> list[Row]:
    say(f"memory: {name}")
    rows = {who: Row("memory", name, who, "MiB") for who in (FORMULA, PLAN, MADE, TRAINED, RESIDENT)}
    rows[FORMULA].runs = [formula(case) / MIB]
    for competitors, function in (((PLAN, MADE, TRAINED), allocated), ((RESIDENT,), resident)):
        try:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                taken = process.submit(function, case).result()
        except Exception as error:
            for competitor in competitors:
                rows[competitor].note = failure(error)
            continue
        for competitor, size in zip(competitors, taken):
            rows[competitor].runs = [size / MIB]
            bases = (FORMULA, PLAN) if competitor != PLAN else (FORMULA,)
            rows[competitor].details = {
                f"of the {base}": f"{size / MIB / rows[base].median:.0%}" for base in bases if rows[base].runs
            }
    return list(rows.values())


def formula(case: Case) -> int:
    """Bytes."""
    widths = case.widths
    parameters = sum((into + 1) * out for into, out in pairwise(widths))
    numbers = 4 * parameters + case.batch * (widths[0] + 2 * sum(widths[1:]))
    return 4 * numbers + sum(part.nbytes for part in data(case))


def data(case: Case) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((BATCHES * case.batch, case.widths[0]), np.float32)
    if case.regression:
        return X, rng.standard_normal((len(X), 1), np.float32)
    return X, rng.integers(0, case.widths[-1], len(X))


def allocated(case: Case) -> tuple[int, int, int]:
    """Bytes of the plan, and those allocated at most while the network was made, and while it was trained."""
    X, y = begin(case)
    given = X.nbytes + y.nbytes
    plan = planned(make(case), case, X, y)
    tracemalloc.start()
    network = make(case)
    made = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    train(network, case, X, y)
    trained = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return plan + given, made + given, trained + given


def resident(case: Case) -> tuple[int]:
    """Bytes that the kernel counted at most, beyond those that were there before."""
    X, y = begin(case)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts afresh
    before = resident_peak()
    train(make(case), case, X, y)
    return (round((resident_peak() - before) * MIB) + X.nbytes + y.nbytes,)


def begin(case: Case) -> tuple[Any, Any]:
    """The data, once all is there that a first training imports and compiles, and what BLAS takes for itself."""
    X, y = data(case)
    tiny = Case((4, 4, 1 if case.regression else 3), 2)
    train(make(tiny), tiny, *data(tiny))
    np.dot(X[:64], X[:64].T)
    return X, y


def make(case: Case) -> gn.Network:
    return gn.Network(ours.layers(case), case.widths[0], device="cpu")


def arguments(case: Case) -> dict[str, Any]:
    """Of `fit`."""
    loss = gn.SquaredError() if case.regression else gn.CrossEntropy()
    optimizer, batch = gn.Adam(case.rate), case.batch
    return {"loss": loss, "optimizer": optimizer, "epochs": 1, "batch_size": batch, "keep": "last", "progress": False}


def planned(network: gn.Network, case: Case, X: Any, y: Any) -> int:
    """Bytes of the network and of its training, beside the data."""
    store = network.store
    own = store.values.nbytes + store.gradients.nbytes + store.state.nbytes
    options = ours.options(**arguments(case))
    return int(own + need(network, check(network, X, y, options), options)(case.batch))


def train(network: gn.Network, case: Case, X: Any, y: Any) -> None:
    network.fit(X, y, **arguments(case))


if __name__ == "__main__":
    alone("memory")
