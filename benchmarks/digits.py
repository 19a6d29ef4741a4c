"""How many seconds from data to a network that tells 97 % of unseen digits apart?

    python -m benchmarks.digits

64-128-10 with ReLU and Adam, batches of 64, judged on a fifth of the images after every epoch. The clock starts with
NumPy arrays and stops when `fit` has returned its history; imports are excluded, everything else counts. Each turn has
a seed of its own; the first one, in which a GPU's kernels are compiled, is told apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.command import alone
from benchmarks.harness import MissingPeerError, Row, Setting, failure, say
from benchmarks.peers import TORCH, ours

WIDTHS, BATCH, RATE = (64, 128, 10), 64, 3e-3
WANTED, MOST_EPOCHS = 0.97, 60
Data = tuple[Any, Any, Any, Any]
Training = Callable[[Data, int], tuple[float, int]]  # a seed -> accuracy reached, epochs


def run(setting: Setting) -> list[Row]:
    name, data = digits()
    trainings: dict[str, Training] = {"gpunn": lambda d, seed: train(d, seed, setting.device)}
    rows = {
        competitor: Row("digits", f"{name}, {WANTED:.0%} of {len(data[3])}", competitor, "s")
        for competitor in ("gpunn", "torch loop")
    }
    try:
        trainings["torch loop"] = torch_loop(ours.kind_of(setting.device))
    except MissingPeerError as error:
        rows["torch loop"].note = str(error)
    epochs: dict[str, list[int]] = {competitor: [] for competitor in trainings}
    for seed in range(-1, setting.turns):
        say(f"digits: {'first run' if seed < 0 else f'seed {seed}'}")
        for competitor, training in trainings.items():
            row = rows[competitor]
            if not row.note:
                try:
                    start = time.perf_counter()
                    accuracy, count = training(data, seed + 1)
                    seconds = time.perf_counter() - start
                except Exception as error:
                    row.runs, row.note = [], failure(error)
                    continue
                if seed < 0:
                    row.details["first run"] = f"{seconds:.2f} s"
                elif accuracy < WANTED:
                    row.details[f"seed {seed}"] = f"{accuracy:.1%} after {count} epochs, not counted"
                else:
                    row.runs.append(seconds)
                    epochs[competitor].append(count)
    for competitor, counts in epochs.items():
        rows[competitor].details["epochs"] = " ".join(map(str, counts))
        if not counts and not rows[competitor].note:
            rows[competitor].note = "failed: never reached"
    return list(rows.values())


def digits() -> tuple[str, Data]:
    """scikit-learn's 1,797 images, or generated ones of the same size; four fifths to train on."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        name, (X, y) = "generated digits", generated()
    else:
        name, (X, y) = "digits", load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = (X[order] / 16.0).astype(np.float32), y[order].astype(np.int64)
    held_out = len(X) // 5
    return name, (X[held_out:], y[held_out:], X[:held_out], y[:held_out])


def generated() -> tuple[Any, Any]:
    """Ten images of 64 pixels, each many times with noise and shifts."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 1797)
    images = rng.uniform(0, 16, (10, 8, 8))
    shifted = np.stack([np.roll(images[label], rng.integers(-1, 2), axis=rng.integers(0, 2)) for label in y])
    return np.clip(shifted.reshape(-1, 64) + rng.normal(0, 4, (1797, 64)), 0, 16), y


class Until(gn.Callback):
    """Ends the training at the accuracy that is wanted."""

    def on_epoch(self, run: Any, record: Any) -> None:
        if record["validation_accuracy"][0] >= WANTED:
            run.stop(f"reached {WANTED:.0%}")


def train(data: Data, seed: int, device: Any) -> tuple[float, int]:
    """As a user would."""
    X, y, Xv, yv = data
    net = gn.Network([gn.Dense(WIDTHS[1], "relu"), gn.Dense(WIDTHS[2])], WIDTHS[0], device=device, seed=seed)
    history = net.fit(
        X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(RATE), epochs=MOST_EPOCHS, batch_size=BATCH,
        validation=(Xv, yv), metrics=["accuracy"], callbacks=[Until()], keep="last", progress=False,
    )  # fmt: skip
    return float(history["validation_accuracy"][-1]), history.epochs


def torch_loop(kind: str) -> Training:
    """The same in PyTorch, from tensors on the device."""
    TORCH.load()
    import torch
    from torch import nn

    if kind == "cuda" and not torch.cuda.is_available():
        raise MissingPeerError(f"not installed: torch {torch.__version__} sees no GPU")

    def loop(data: Data, seed: int) -> tuple[float, int]:
        torch.manual_seed(seed)
        X, y, Xv, yv = (torch.from_numpy(part).to(kind) for part in data)
        net = nn.Sequential(nn.Linear(*WIDTHS[:2]), nn.ReLU(), nn.Linear(*WIDTHS[1:])).to(kind)
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
        loss = nn.CrossEntropyLoss()
        accuracy, epoch = 0.0, 0
        while accuracy < WANTED and epoch < MOST_EPOCHS:
            epoch += 1
            for rows in torch.randperm(len(X), device=kind).split(BATCH):
                loss(net(X[rows]), y[rows]).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                accuracy = (net(Xv).argmax(1) == yv).float().mean().item()
        return accuracy, epoch

    return loop


if __name__ == "__main__":
    alone("digits")
