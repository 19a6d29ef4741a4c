"""How long do epochs take from NumPy arrays to a history, beside scikit-learn and two loops in PyTorch?

    python -m benchmarks.epoch

Everything counts: checking the data, making the net and the optimizer, the epochs and their losses. All start with the
same weights. Whose mean losses over three epochs in a fixed order are not those of gpunn is not timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks.cases import Case, Training, data
from benchmarks.command import alone
from benchmarks.digits import digits
from benchmarks.harness import Calls, Row, Setting, agreeing, compared, say
from benchmarks.peers import competing, ours

Fit = Callable[[Training], list[float]]
EPOCHS = (1, 10)
CHECKED, TOLERANCE = 3, 3e-3  # epochs, and of their losses: Adam magnifies rounding


def run(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for training in trainings(setting.quick):
        for epochs in EPOCHS[: 1 if setting.quick else None]:
            case = f"{training.case}, {len(training.X):,} rows, {epochs} epoch" + "s" * (epochs > 1)
            say(f"epoch: {case}")
            rows += measure(case, replace(training, epochs=epochs), setting)
    return rows


def trainings(quick: bool) -> list[Training]:
    """The digits, and more and wider rows."""
    X, y, *_ = digits()[1]
    case = Case((64, 128, 10), 64)
    found = [Training(case, X, y, 1, ours.weights(case))]
    if not quick:
        case = Case((784, 256, 10), 128)
        found.append(Training(case, *data(case, "cpu"), 1, ours.weights(case)))
    return found


def fits(setting: Setting) -> dict[str, Callable[[], Fit]]:
    """What makes each competitor's training, or raises where its package is missing."""
    kind = ours.kind_of(setting.device)

    def torch(source: str) -> Fit:
        peer = competing("torch", "torch_peer")
        return lambda training: peer.fit(training, kind, getattr(peer, source))

    found = {
        "gpunn": lambda: lambda training: ours.fit(training, setting.device),
        "gpunn jit": lambda: competing("numba", "jit_peer").fit,
        "scikit-learn": lambda: competing("sklearn", "sklearn_peer").fit,
        "torch slices": lambda: torch("batches"),
        "torch DataLoader": lambda: torch("loader"),
    }
    if kind == "cuda":
        del found["gpunn jit"]
    return found


def measure(case: str, training: Training, setting: Setting) -> list[Row]:
    """All competitors, each compared with gpunn before it is timed."""
    few = replace(training, epochs=CHECKED, shuffle=False)
    expected = ours.fit(few, setting.device)

    def contender(make: Callable[[], Fit]) -> Calls:
        fit = make()
        agreeing(expected, fit(few), TOLERANCE, "the loss of epoch")
        return Calls(lambda: fit(training))

    makers = {name: lambda make=make: contender(make) for name, make in fits(setting).items()}
    return compared("epoch", case, makers, setting, unit="s")


if __name__ == "__main__":
    alone("epoch")
