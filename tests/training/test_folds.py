"""Folds of different lengths: all models make equally many updates, and each is evaluated on all of its own rows."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ArrayTypeError, DataError, GpunnError, ShapeError
from gpunn.randomness import Purpose, stream_key

ROWS, FEATURES, CLASSES = 50, 4, 3
SEEDS, RATES = (5, 11, 3, 8), (0.1, 0.2, 0.3, 0.15)
MODELS = len(SEEDS)
LENGTHS = (33, 27, 33, 40)  # of the training parts: two alike, and the second one is the smallest
SMALLEST = 1
TIMES = ("seconds", "examples_per_second")

rng = np.random.default_rng(0)
X = rng.normal(size=(ROWS, FEATURES))
y = (X @ rng.normal(size=(FEATURES, CLASSES)) + 0.5 * rng.normal(size=(ROWS, CLASSES))).argmax(axis=1)
NUMBERS = X @ rng.normal(size=(FEATURES, 2)) + rng.normal(size=(ROWS, 2))
WEIGHT = rng.uniform(0.5, 2.0, ROWS)
ORDERS = [rng.permutation(ROWS) for _ in range(MODELS)]
FOLDS = [(order[:n], order[n:]) for order, n in zip(ORDERS, LENGTHS)]

hosts = pytest.mark.parametrize("backend", ["cpu", "reference"], indirect=True)
devices = pytest.mark.parametrize(
    "backend", ["strict", pytest.param("cuda", marks=pytest.mark.cuda)], indirect=True
)  # fmt: skip
everywhere = pytest.mark.parametrize(
    "backend", ["cpu", "reference", "strict", pytest.param("cuda", marks=pytest.mark.cuda)], indirect=True
)


def layers(outputs: int) -> list[gn.layers.Layer]:
    return [gn.Dense(6, bias=False), gn.BatchNorm(activation="tanh"), gn.Dropout(0.2), gn.Dense(outputs)]


def population(backend: Any = "cpu", outputs: int = CLASSES) -> gn.Network:
    return gn.Network(layers(outputs), FEATURES, device=backend, dtype="float64", models=MODELS, seed=SEEDS)


def single(backend: Any, k: int, outputs: int = CLASSES) -> gn.Network:
    return gn.Network(layers(outputs), FEATURES, device=backend, dtype="float64", seed=SEEDS[k])


def train(net: gn.Network, X: Any = X, y: Any = y, **options: Any) -> gn.History:
    defaults: dict[str, Any] = {
        "loss": gn.CrossEntropy(), "optimizer": gn.SGD(RATES, momentum=0.5), "epochs": 4, "batch_size": 8,
        "metrics": ["accuracy"], "keep": "last", "progress": False,
    }  # fmt: skip
    return net.fit(X, y, **(defaults | options))


def same(net: gn.Network, k: int, one: gn.Network) -> None:
    member = net.member(k)
    for name, view in {**one.parameters, **one.state}.items():
        found = net.ops.to_host({**member.parameters, **member.state}[name])
        np.testing.assert_allclose(found, net.ops.to_host(view), rtol=0, atol=1e-12, err_msg=name)


@everywhere
@pytest.mark.parametrize("sampling", ["shuffle", "sequential", "replacement"])
def test_the_model_of_the_smallest_fold_is_the_network_trained_alone(backend: Any, sampling: str) -> None:
    net, one = population(backend), single(backend, SMALLEST)
    history = train(net, folds=FOLDS, sampling=sampling)
    rows, held_out = FOLDS[SMALLEST]
    alone = train(
        one, X[rows], y[rows], validation=(X[held_out], y[held_out]), sampling=sampling,
        optimizer=gn.SGD(RATES[SMALLEST], momentum=0.5),
    )  # fmt: skip
    same(net, SMALLEST, one)
    for name in set(alone) - set(TIMES):
        np.testing.assert_allclose(history[name][:, SMALLEST], alone[name], rtol=1e-12, atol=1e-12, err_msg=name)


def order_of_epoch(k: int, epoch: int, sampling: str) -> Any:
    """The rows that model k sees in an epoch, simulated with NumPy's own generator."""
    part, least = FOLDS[k][0], min(LENGTHS)
    purpose = Purpose.SHUFFLE if sampling == "shuffle" else Purpose.SAMPLE
    counter = [0, epoch, 0, 0]
    words = np.random.Philox(key=stream_key(SEEDS[k], purpose), counter=counter).random_raw(len(part))
    if sampling == "shuffle":
        bits = max(len(part) - 1, 1).bit_length()
        places = sorted(range(len(part)), key=lambda i: (int(words[i]) >> bits, i))
    elif sampling == "replacement":
        places = [int((int(word) >> 11) * 2.0**-53 * len(part)) for word in words]
    else:
        places = [(epoch * least + i) % len(part) for i in range(least)]
    return part[places[:least]]


class Watch(gn.Callback):
    """The row numbers of every epoch, (epochs, K, rows)."""

    def __init__(self) -> None:
        self.epochs: list[Any] = []

    def on_epoch(self, run: Any, record: Any) -> None:
        self.epochs.append(run.network.ops.to_host(run.source.order.current).copy())


@everywhere
@pytest.mark.parametrize("sampling", ["shuffle", "sequential", "replacement"])
def test_every_model_draws_its_own_order_of_all_rows_of_its_fold(backend: Any, sampling: str) -> None:
    watch, net = Watch(), population(backend)
    train(net, folds=FOLDS, sampling=sampling, callbacks=watch, epochs=6)
    for epoch, rows in enumerate(watch.epochs):
        assert rows.shape == (MODELS, min(LENGTHS))
        for k in range(MODELS):
            np.testing.assert_array_equal(rows[k], order_of_epoch(k, epoch, sampling))
            if sampling != "replacement":
                assert len(set(rows[k])) == min(LENGTHS)
    for k in range(MODELS):
        seen = np.bincount(np.concatenate([rows[k] for rows in watch.epochs]), minlength=ROWS)
        assert set(np.flatnonzero(seen)) <= set(FOLDS[k][0])
        if sampling == "sequential":
            assert np.ptp(seen[FOLDS[k][0]]) <= 1  # none is seen more often than another
        if sampling == "shuffle":
            assert set(np.flatnonzero(seen)) == set(FOLDS[k][0])


@hosts
def test_models_of_larger_folds_train_on_their_own_order(backend: Any) -> None:
    """Compared with a network trained on the simulated rows, epoch by epoch."""
    net = gn.Network([gn.Dense(6, "tanh"), gn.Dense(3)], FEATURES, device=backend, dtype="float64",
                     models=MODELS, seed=SEEDS)  # fmt: skip
    train(net, folds=FOLDS, optimizer=gn.SGD(RATES), epochs=3)
    for k in range(MODELS):
        one = gn.Network([gn.Dense(6, "tanh"), gn.Dense(3)], FEATURES, device=backend, dtype="float64", seed=SEEDS[k])
        for epoch in range(3):
            rows = order_of_epoch(k, epoch, "shuffle")
            train(one, X[rows], y[rows], sampling="sequential", optimizer=gn.SGD(RATES[k]), epochs=1)
        same(net, k, one)


# What is held out

CASES: dict[str, dict[str, Any]] = {
    "classes": {"y": y, "loss": gn.CrossEntropy(), "metrics": ["accuracy"], "outputs": CLASSES},
    "smoothed": {"y": y, "loss": gn.CrossEntropy(0.1), "metrics": ["accuracy"], "outputs": CLASSES},
    "numbers": {"y": NUMBERS, "loss": gn.SquaredError(), "metrics": ["mse", "mae", "r2"], "outputs": 2},
    "sum": {"y": NUMBERS, "loss": gn.Huber(reduction="sum"), "metrics": ["r2", "mae"], "outputs": 2},
    "two classes": {
        "y": (y[:, None] > 0).astype(float), "loss": gn.BinaryCrossEntropy(), "metrics": ["accuracy"], "outputs": 1,
    },
}  # fmt: skip


@hosts
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("case", CASES)
def test_validation_figures_are_of_the_held_out_rows_of_each_fold(backend: Any, case: str, weight: Any) -> None:
    check_held_out(backend, case, weight)


@devices
@pytest.mark.parametrize(("case", "weight"), [("classes", WEIGHT), ("numbers", None)])
def test_validation_figures_on_a_device_are_of_the_held_out_rows_of_each_fold(
    backend: Any, case: str, weight: Any
) -> None:
    check_held_out(backend, case, weight)


def check_held_out(backend: Any, case: str, weight: Any) -> None:
    options = dict(CASES[case])
    target, outputs = options.pop("y"), options.pop("outputs")
    net = population(backend, outputs)
    optimizer = gn.SGD(0.01 if case == "sum" else RATES)
    history = train(net, X, target, folds=FOLDS, epochs=2, sample_weight=weight, optimizer=optimizer, **options)
    assert len({len(held_out) for _, held_out in FOLDS}) > 2
    for k, (_, rows) in enumerate(FOLDS):
        own = None if weight is None else weight[rows]
        alone = net.member(k).evaluate(X[rows], target[rows], metrics=options["metrics"], sample_weight=own)
        for name, value in alone.items():
            found = history[f"validation_{name}"][-1, k]
            np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-12, err_msg=f"{name} of model {k}")


@hosts
def test_held_out_rows_of_folds_are_evaluated_in_several_chunks(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some chunks are beyond the end of the shorter held-out parts."""
    monkeypatch.setattr(gn.Network, "chunk", lambda self, batch_size: 4)
    net = population(backend, 2)
    history = train(net, X, NUMBERS, folds=FOLDS, epochs=1, loss=gn.SquaredError(), metrics=["r2"])
    for k, (_, rows) in enumerate(FOLDS):
        alone = net.member(k).evaluate(X[rows], NUMBERS[rows], metrics=["r2"])
        np.testing.assert_allclose(history["validation_loss"][0, k], alone["loss"], rtol=1e-12)
        np.testing.assert_allclose(history["validation_r2"][0, k], alone["r2"], rtol=1e-12)


def test_folds_split_among_threads_train_to_the_same_bits() -> None:
    net, shared = population(), population()
    options: dict[str, Any] = {"folds": FOLDS, "sample_weight": WEIGHT}
    history = train(net, **options)
    with shared.ops.threads_by_model(MODELS, 2):
        again = train(shared, **options)
    assert shared.vector.tobytes() == net.vector.tobytes()
    for name in set(history.names) - set(TIMES):
        assert again[name].tobytes() == history[name].tobytes(), name


def test_folds_may_differ_in_their_held_out_rows_alone() -> None:
    folds = [(order[:30], order[30 : 35 + 5 * k]) for k, order in enumerate(ORDERS)]
    even = [(order[:30], order[30:35]) for order in ORDERS]
    net, other = population(), population()
    history, expected = train(net, folds=folds), train(other, folds=even)
    assert net.vector.tobytes() == other.vector.tobytes()
    assert history.loss.tobytes() == expected.loss.tobytes()
    np.testing.assert_allclose(history["validation_loss"][:, 0], expected["validation_loss"][:, 0], rtol=1e-12)
    for k in range(1, MODELS):
        rows = folds[k][1]
        value = net.member(k).evaluate(X[rows], y[rows])["loss"]
        np.testing.assert_allclose(history["validation_loss"][-1, k], value, rtol=1e-12)


def test_each_model_of_a_fold_keeps_its_best_weights() -> None:
    net = population()
    history = train(net, folds=FOLDS, epochs=12, keep="best", optimizer=gn.SGD((0.5, 1.0, 2.0, 0.1), momentum=0.9))
    assert len(set(history.best_epoch)) > 1
    for k, (_, rows) in enumerate(FOLDS):
        best = history["validation_loss"][history.best_epoch[k] - 1, k]
        np.testing.assert_allclose(net.member(k).evaluate(X[rows], y[rows])["loss"], best, rtol=1e-12)


@pytest.mark.parametrize("sampling", ["shuffle", "sequential", "replacement"])
@pytest.mark.parametrize("step", [3, 4, 6])
def test_a_training_on_folds_resumes_to_the_bit(tmp_path: Path, sampling: str, step: int) -> None:
    class Interrupt(gn.Callback):
        def on_step(self, run: Any) -> None:
            run.signals.interrupted = run.standing.done == step

    options: dict[str, Any] = {"folds": FOLDS, "sampling": sampling, "epochs": 3}
    expected, stopped, resumed, file = population(), population(), population(), tmp_path / "run.gpunn"
    history = train(expected, **options)
    train(stopped, checkpoint=file, callbacks=Interrupt(), **options)
    again = train(resumed, resume=file, **options)
    assert resumed.vector.tobytes() == expected.vector.tobytes()
    assert again["validation_loss"].tobytes() == history["validation_loss"].tobytes()


# What is given


def test_folds_of_scikit_learn_are_taken_as_they_are() -> None:
    KFold = pytest.importorskip("sklearn.model_selection").KFold
    folds = list(KFold(MODELS).split(X))
    assert len({len(rows) for rows, _ in folds}) == 2
    net, other, third = population(), population(), population()
    history = train(net, folds=KFold(MODELS).split(X))
    assert history.epochs == 4
    train(other, folds=[(rows.tolist(), range(held[0], held[-1] + 1)) for rows, held in folds])
    train(third, folds=np.array([[rows, held] for rows, held in folds], object).tolist())
    assert net.vector.tobytes() == other.vector.tobytes() == third.vector.tobytes()


def changed(k: int, part: int, rows: Any) -> list[Any]:
    folds = [list(pair) for pair in FOLDS]
    folds[k][part] = rows
    return folds


BAD: dict[str, tuple[list[Any], type[GpunnError], str]] = {
    "no row to train on": (changed(2, 0, []), DataError, "fit indices: expected row numbers from 0 to 49, got none for "
                           "model 2; number the rows of X from 0"),
    "no row held out": (changed(0, 1, np.arange(0)), DataError, "fit validation indices: expected row numbers from 0 "
                        "to 49, got none for model 0; "),
    "too large": (changed(1, 0, np.arange(40, 51)), DataError, "fit indices: expected row numbers from 0 to 49, got 40 "
                  "to 50 for model 1; "),
    "negative": (changed(1, 1, [-1, 3]), DataError, "fit validation indices: expected row numbers from 0 to 49, got -1 "
                 "to 3 for model 1; "),
    "a mask": (changed(3, 0, np.arange(ROWS) < 30), ShapeError, "fit indices: expected a list of row numbers for each "
               "model, got bool of shape (50,) for model 3; number the rows of X from 0; of a mask, pass "
               "np.flatnonzero(mask)"),
    "fractions": (changed(0, 0, [0.5, 1.0]), ShapeError, "fit indices: expected a list of row numbers for each model, "
                  "got float64 of shape (2,) for model 0"),
    "a table": (changed(0, 0, [[1, 2]]), ShapeError, "fit indices: expected a list of row numbers for each model, got "
                "int64 of shape (1, 2) for model 0"),
    "one number": (changed(0, 0, 7), ShapeError, "fit indices: expected a list of row numbers for each model, got "
                   "int64 of shape () for model 0"),
    "names": (changed(0, 0, ["a", "b"]), ArrayTypeError, "fit indices for model 0: expected real numbers, got dtype"),
    "ragged": (changed(0, 0, [[1, 2], [3]]), ArrayTypeError, "fit indices for model 0: expected a rectangular table"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_folds_that_make_no_sense_are_refused(case: str) -> None:
    folds, error, message = BAD[case]
    net = population()
    before = net.vector.tobytes()
    with pytest.raises(error, match=re.escape(message)):
        train(net, folds=folds)
    assert net.vector.tobytes() == before


def warned(caplog: pytest.LogCaptureFixture, least: int) -> list[str]:
    """What is logged if the smallest fold has so many of 40 rows."""
    folds = [(order[: 40 if k else least], order[40:]) for k, order in enumerate(ORDERS)]
    with caplog.at_level(logging.WARNING, "gpunn"):
        train(population(), folds=folds, epochs=1)
    return [record.getMessage() for record in caplog.records]


def test_a_fold_much_smaller_than_another_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert warned(caplog, 20) == []
    assert warned(caplog, 19) == [
        "folds: model 0 has 19 rows to train on and model 1 has 40: an epoch takes 19 for each and goes "
        "through a larger part in several"
    ]


def test_metrics_of_whole_sets_are_of_the_held_out_rows_of_each_fold() -> None:
    net = population()
    history = train(net, folds=FOLDS, metrics=["auc", "f1"], epochs=1)
    for k, (_, held) in enumerate(FOLDS):
        alone = net.member(k).evaluate(X[held], y[held], metrics=["auc", "f1"])
        for name, value in alone.items():
            np.testing.assert_allclose(history[f"validation_{name}"][0, k], value, rtol=1e-12)
