"""How many requests a second does one network answer from several threads, beside scikit-learn's MLPClassifier?

    python -m benchmarks.requests

As a web server would: threads that are kept ask one trained model for probabilities of one row, or of a hundred. The
figure is the time for a request with all threads at work: 50 µs are 20,000 requests a second. Before anything is
timed, every answer to 20,000 requests of one row and 4,000 of a hundred from eight threads must be the very answer that
one thread gets; whose answers differ is not timed.

    python -c "from benchmarks.requests import steady; steady(minutes=10)"

keeps eight threads asking and prints every half minute what the process holds and how many answers were wrong.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.command import alone
from benchmarks.harness import REFUSED, Calls, DisagreementError, Row, Setting, compared, say
from benchmarks.mapped import resident
from benchmarks.peers import competing, ours

FEATURES, CLASSES, HIDDEN, ROWS = 64, 10, (100,), 2000
SIZES = {1: 20_000, 100: 4_000}  # rows of a request: how many are compared
THREADS = (1, 2, 8)
MOST = max(THREADS)
Answer = Callable[[Any], Any]  # from rows to probabilities


def run(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for size in SIZES:
        for threads in THREADS:
            case = f"{size} row{'s' * (size > 1)}, {threads} thread{'s' * (threads > 1)}"
            say(f"requests: {case}")
            with ThreadPoolExecutor(threads) as pool:
                makers = {name: partial(load, setting, name, size, threads, pool) for name in MODELS}
                rows += compared("requests", case, makers, setting)
    return rows


def load(setting: Setting, name: str, size: int, threads: int, pool: ThreadPoolExecutor) -> Calls:
    """The model under its load, once its answers from most threads are seen to be right."""
    model = MODELS[name](setting.device)
    if threads == MOST:
        check(model, size, SIZES[size] // (50 if setting.quick else 1), pool)
    X = data()[0][:size]
    return Load(model, X, threads, pool)


class Load(Calls):
    """Requests, dealt out to the threads."""

    def __init__(self, model: Answer, X: Any, threads: int, pool: ThreadPoolExecutor) -> None:
        super().__init__(partial(model, X))
        self.threads, self.pool = threads, pool
        self.grain = 4 * threads

    def run(self, steps: int) -> None:
        each = steps // self.threads

        def ask(_: int) -> None:
            for _ in range(each):
                self.function()

        list(self.pool.map(ask, range(self.threads)))


def check(model: Answer, size: int, count: int, pool: ThreadPoolExecutor) -> None:
    """Every answer from many threads is the one that a thread alone gets, to the bit."""
    X = data()[0]
    starts = np.random.default_rng(1).integers(0, len(X) - size + 1, count)
    expected = {start: model(X[start : start + size]) for start in set(starts.tolist())}

    def wrong(start: int) -> bool:
        return not np.array_equal(model(X[start : start + size]), expected[start])

    bad = sum(pool.map(wrong, starts.tolist(), chunksize=1))
    if bad:
        raise DisagreementError(f"{REFUSED}: {bad} of {count} answers are not those of one thread")


def steady(minutes: float = 10.0) -> None:
    """Ask and ask; what the process holds must not grow."""
    models = {name: make("cpu") for name, make in MODELS.items() if name.startswith("gpunn")}
    X = data()[0]
    sizes = [1, 100, 1, 7, 1, 100, 33]  # of several kinds, so that passes are made and given up all the time
    pairs = [(model, X[i : i + n]) for model in models.values() for i, n in enumerate(sizes)]
    jobs = [(model, part, model(part)) for model, part in pairs]
    end, told, asked, wrong = time.monotonic() + 60 * minutes, 0.0, 0, 0
    with ThreadPoolExecutor(MOST) as pool:
        while time.monotonic() < end:
            answers = list(pool.map(lambda job: np.array_equal(job[0](job[1]), job[2]), jobs * 20))
            asked, wrong = asked + len(answers), wrong + answers.count(False)
            if time.monotonic() > told + 30:
                told = time.monotonic()
                say(f"{(told - end) / 60 + minutes:5.1f} min: {resident():.1f} MiB, {asked:,} requests, {wrong} wrong")
    say(f"{minutes:5.1f} min: {resident():.1f} MiB, {asked:,} requests, {wrong} wrong")


@cache
def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((ROWS, FEATURES), np.float32), rng.integers(0, CLASSES, ROWS)


def network(device: Any, models: int | None = None) -> Answer:
    net = gn.Network(
        [*(gn.Dense(n, "relu") for n in HIDDEN), gn.Dense(CLASSES)], FEATURES, device=device, models=models
    )
    net.fit(*data(), loss=gn.CrossEntropy(), optimizer=gn.Adam(), epochs=1, progress=False)
    return net.predict_probability


def classifier(library: str, device: Any) -> Answer:
    competing("sklearn", "sklearn_peer")
    if library == "gpunn":
        from gpunn.estimators import MLPClassifier
    else:
        from sklearn.neural_network import MLPClassifier
    with warnings.catch_warnings(action="ignore"):  # two epochs are not enough
        options = {"device": ours.kind_of(device)} if library == "gpunn" else {}
        model = MLPClassifier(HIDDEN, max_iter=2, random_state=0, **options).fit(*data())
    probabilities: Answer = model.predict_proba
    return probabilities


MODELS: dict[str, Callable[[Any], Answer]] = {
    "gpunn": network,
    "gpunn, 4 models": partial(network, models=4),
    "gpunn MLPClassifier": partial(classifier, "gpunn"),
    "scikit-learn": partial(classifier, "sklearn"),
}

if __name__ == "__main__":
    alone("requests")
