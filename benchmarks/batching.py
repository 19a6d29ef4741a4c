"""What does it cost to make batches of a set in memory, in a new order every epoch?

    python -m benchmarks.batching

An epoch of batches, nothing done with them: gpunn's loader, which gathers into the same arrays again and again,
PyTorch's DataLoader, PyTorch tensors sliced by row numbers, and NumPy's indexing. Whose batches do not hold every row
once, with its target, is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.command import alone
from benchmarks.harness import REFUSED, Calls, DisagreementError, Row, Setting, compared, say
from benchmarks.peers import competing, ours
from gpunn.training.prepare import prepare

CASES = ((20, 32, 20_000), (784, 128, 20_000))  # features, batch, rows
Epoch = Callable[[], Iterator[tuple[Any, Any]]]  # the batches of one


def run(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for width, batch, size in CASES:
        size = size // 20 if setting.quick else size
        case = f"{size:,} x {width} float32, batches of {batch}"
        say(f"batching: {case}")
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((size, width), np.float32), rng.integers(0, 10, size)
        makers = {
            name: lambda make=make, X=X, y=y, batch=batch: checked(make(X, y, batch, setting.device), X, y)
            for name, make in LOADERS.items()
        }
        rows += compared("batching", case, makers, setting)
    return rows


def checked(epoch: Epoch, X: Any, y: Any) -> Calls:
    """The loader as a program, once its batches are seen to be the set."""
    firsts: list[tuple[float, int]] = []
    for inputs, targets in epoch():
        firsts += [(float(row[0]), int(target)) for row, target in zip(on_host(inputs), on_host(targets))]
    if sorted(firsts) != sorted((float(row[0]), int(target)) for row, target in zip(X, y)):
        raise DisagreementError(f"{REFUSED}: its batches are not the rows of the set with their targets")

    def exhaust() -> None:
        for _ in epoch():
            pass

    return Calls(exhaust)


def on_host(part: Any) -> np.ndarray[Any, Any]:
    """A copy of an array of NumPy, CuPy or PyTorch."""
    found = part.get() if hasattr(part, "get") else part.cpu().numpy() if hasattr(part, "cpu") else part
    return np.array(found)


def gathered(X: Any, y: Any, batch: int, device: Any) -> Epoch:
    """What precedes every step of `fit`."""
    network = gn.Network([gn.Dense(10)], X.shape[1], device=device)
    options = ours.options(loss=gn.CrossEntropy(), optimizer=gn.SGD(), batch_size=batch, epochs=1, progress=False)
    source = prepare(network, X, y, options).source
    number = 0

    def epoch() -> Iterator[tuple[Any, Any]]:
        nonlocal number
        number += 1
        source.begin(number)
        for i, (rows,) in enumerate(source.updates):
            source.cursor[...] = i * batch
            loader = source.loader(rows)
            loader.load()
            yield loader.X, loader.y
        network.ops.synchronize()

    return epoch


def torch_epoch(source: str) -> Callable[[Any, Any, int, Any], Epoch]:
    def make(X: Any, y: Any, batch: int, device: Any) -> Epoch:
        peer, kind = competing("torch", "torch_peer"), ours.kind_of(device)
        peer.require(kind)
        tensors = [peer.torch.from_numpy(part).to(kind) for part in (X, y)]
        return lambda: iter(getattr(peer, source)(*tensors, batch, True))

    return make


def indexed(X: Any, y: Any, batch: int, device: Any) -> Epoch:
    rng = np.random.default_rng(0)

    def epoch() -> Iterator[tuple[Any, Any]]:
        order = rng.permutation(len(X))
        for start in range(0, len(X), batch):
            rows = order[start : start + batch]
            yield X[rows], y[rows]

    return epoch


LOADERS: dict[str, Callable[[Any, Any, int, Any], Epoch]] = {
    "gpunn": gathered,
    "NumPy indexing": indexed,
    "torch slices": torch_epoch("batches"),
    "torch DataLoader": torch_epoch("loader"),
}

if __name__ == "__main__":
    alone("batching")
