"""What `Network.fit` does with each of its arguments, and what it refuses."""

from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import engine
from gpunn.errors import ConfigurationError, DataError, GpunnError, ShapeError
from gpunn.frame import Frame, Plan
from gpunn.regularization import L1, L2, MaxNorm
from gpunn.schedules import Constant, Power, ReduceOnPlateau, Sequence
from tests.faults import FORM, contents, exactly

ROWS, FEATURES, CLASSES = 50, 3, 3
LOSS = gn.CrossEntropy()
ALWAYS = {"loss", "rate", "seconds", "examples_per_second"}

rng = np.random.default_rng(0)
X = np.hstack([np.arange(ROWS)[:, None], rng.normal(size=(ROWS, FEATURES - 1))])  # the first column numbers the rows
Y = rng.normal(size=(ROWS, 2))
LABELS = (X[:, 1:] @ rng.normal(size=(FEATURES - 1, CLASSES))).argmax(axis=1)
WEIGHT = rng.uniform(0.1, 3.0, ROWS)

hosts = pytest.mark.parametrize("backend", ["cpu", "reference"], indirect=True)

SEEN: list[Any] = []


@dataclass(frozen=True)
class Spy(gn.Layer):
    """Notes the inputs of each training batch and passes them on, the numbers of rows made small."""

    def plan(self, shape: Any) -> Plan:
        return Plan(output=shape, buffers={"A": shape})

    def forward(self, t: Frame, X: Any) -> Any:
        if t.training:
            SEEN.append(X.copy())
        t.A[...] = X
        t.A[..., 0] *= 0.01
        return t.A

    def backward(self, t: Frame, dA: Any) -> Any:
        return dA


def network(backend: Any = "cpu", *layers: gn.Layer, outputs: int = CLASSES, **options: Any) -> gn.Network:
    SEEN.clear()
    every = [Spy(), *(layers or (gn.Dense(5, "tanh"),)), gn.Dense(outputs)]
    return gn.Network(every, FEATURES, device=backend, **({"dtype": "float64"} | options))


def train(net: gn.Network, X: Any = X, y: Any = LABELS, **options: Any) -> gn.History:
    return net.fit(X, y, **({"loss": LOSS, "optimizer": gn.SGD(0.1), "epochs": 2, "keep": "last"} | options))


def batches() -> list[list[int]]:
    """The row numbers of each training batch that was seen, in order."""
    return [batch[:, 0].astype(int).tolist() for batch in SEEN]


def flat(several: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(several))


def vector(net: gn.Network) -> Any:
    return net.ops.to_host(net.vector)


def values(net: gn.Network) -> dict[str, Any]:
    return {name: net.ops.to_host(view) for name, view in net.parameters.items()}


def plain(backend: Any, *layers: gn.Layer, outputs: int = CLASSES, **options: Any) -> gn.Network:
    """Without a spy, which looks at arrays where a device does not let it."""
    every = [*(layers or (gn.Dense(5, "tanh"),)), gn.Dense(outputs)]
    return gn.Network(every, FEATURES, device=backend, **({"dtype": "float64"} | options))


INPUTS = X * [0.01, 1.0, 1.0]


# Length and history


def test_default_arguments(backend: Any) -> None:
    net = plain(backend, dtype="float32")
    before = net.loss_of(INPUTS, LABELS, LOSS)
    history = net.fit(INPUTS, LABELS, loss=LOSS, optimizer=gn.Adam(0.01))
    assert set(history) == ALWAYS and history.epochs == 20
    assert all(column.shape == (20,) and np.isfinite(column).all() for column in history.values())
    assert history.stopped == "finished 20 epochs" and history.best_epoch == 20
    assert (history.rate == 0.01).all() and (np.diff(history.seconds) > 0).all()
    assert (history.examples_per_second > 0).all()
    assert net.loss == LOSS and net.loss_of(INPUTS, LABELS, LOSS) < 0.99 * before
    np.testing.assert_allclose(net.predict_probability(INPUTS).sum(axis=1), 1.0, rtol=1e-5)


def test_the_input_width_may_come_from_the_data() -> None:
    net = gn.Network([gn.Dense(4, "tanh"), gn.Dense(CLASSES)], device="cpu", dtype="float64")
    known = gn.Network([gn.Dense(4, "tanh"), gn.Dense(CLASSES)], FEATURES, device="cpu", dtype="float64")
    for one in (net, known):
        train(one, INPUTS)
    assert net.inputs == (FEATURES,)
    np.testing.assert_array_equal(vector(net), vector(known))


@pytest.mark.parametrize("models", [None, 2])
def test_history_has_what_was_measured(backend: Any, models: int | None) -> None:
    net = plain(backend, models=models)
    history = train(
        net, INPUTS, metrics=["accuracy"], validation=(INPUTS[:9], LABELS[:9]), stopping=gn.GradientTolerance(0.0),
        epochs=3,
    )  # fmt: skip
    wanted = ALWAYS | {"accuracy", "validation_loss", "validation_accuracy", "gradient_norm"}
    assert set(history.names) == wanted
    for name in history.names:
        assert history[name].shape == ((3,) if models is None else (3, models)) and np.isfinite(history[name]).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("size", [1, 7, 25, ROWS])
@hosts
def test_recorded_losses_are_those_of_the_set(backend: Any, size: int, reduction: str) -> None:
    """At a rate of 0 an epoch in batches, the last one short, comes to what one look at all rows does."""
    net, loss = network(backend, outputs=2), gn.SquaredError(reduction=reduction)
    history = train(
        net, y=Y, loss=loss, optimizer=gn.SGD(0.0), batch_size=size, metrics=["mse", "mae", "r2"],
        validation=(X[5:20], Y[5:20]),
    )  # fmt: skip
    outputs = net.predict(X)
    errors = outputs - Y
    wanted = {
        "loss": np.square(errors).mean() if reduction == "mean" else np.square(errors).sum(),
        "mse": np.square(errors).mean(), "mae": np.abs(errors).mean(),
        "r2": 1 - np.square(errors).sum() / np.square(Y - Y.mean(axis=0)).sum(),
        "validation_mse": np.square(errors[5:20]).mean(), "validation_mae": np.abs(errors[5:20]).mean(),
        "validation_loss": np.square(errors[5:20]).mean() if reduction == "mean" else np.square(errors[5:20]).sum(),
    }  # fmt: skip
    for name, number in wanted.items():
        np.testing.assert_allclose(history[name], number, rtol=1e-12, err_msg=name)


def test_recorded_loss_is_seen_before_each_update() -> None:
    """Batch by batch, at the weights each batch met."""
    net = network()
    losses: list[float] = []

    class Look(gn.Callback):
        def on_step(self, run: Any) -> None:
            rows = batches()[-1]
            other.load_parameters(before[-1])
            losses.append(other.loss_of(X[rows], LABELS[rows], LOSS) * len(rows))
            before.append(values(net))

    other = gn.Network([Spy(), gn.Dense(5, "tanh"), gn.Dense(CLASSES)], FEATURES, device="cpu", dtype="float64")
    before = [values(net)]
    history = train(net, batch_size=15, epochs=1, callbacks=[Look()])
    np.testing.assert_allclose(history.loss, [sum(losses) / ROWS], rtol=1e-12)


def test_accuracy_is_the_share_of_right_answers() -> None:
    net = network()
    history = train(net, optimizer=gn.SGD(0.0), batch_size=15, metrics=["accuracy"], validation=(X[:7], LABELS[:7]))
    right = net.predict(X).argmax(axis=1) == LABELS
    np.testing.assert_allclose(history.accuracy, right.mean(), rtol=1e-14)
    np.testing.assert_allclose(history["validation_accuracy"], right[:7].mean(), rtol=1e-14)
    assert net.evaluate(X, LABELS, metrics=["accuracy"])["accuracy"] == pytest.approx(right.mean(), rel=1e-14)


class Steps(gn.Callback):
    """Counts updates."""

    def __init__(self, stop: int = 0) -> None:
        self.count, self.stop = 0, stop

    def on_step(self, run: Any) -> None:
        self.count += 1
        if self.count == self.stop:
            run.stop("counted enough")


@hosts
def test_steps(backend: Any) -> None:
    """Seven updates of 20, 20 and 10 rows: two epochs and a third of the next."""
    net, counting = network(backend), Steps()
    history = train(net, epochs=None, steps=7, batch_size=20, callbacks=[counting], optimizer=gn.SGD(Power(0.1)))
    assert counting.count == 7 and history.epochs == 3 and history.stopped == "finished 3 epochs"
    assert [len(batch) for batch in batches()] == [20, 20, 10, 20, 20, 10, 20]
    np.testing.assert_allclose(history.rate, [0.1 / 3, 0.1 / 6, 0.1 / 7], rtol=1e-15)


@hosts
@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_callback_that_ends_the_training_leaves_what_was_learnt(backend: Any, keep: str) -> None:
    class Enough(gn.Callback):
        def on_epoch(self, run: Any, record: Any) -> None:
            if run.epoch == 2:
                run.stop("enough")

    net, short = network(backend), network(backend)
    history = train(net, epochs=5, keep=keep, callbacks=[Enough()], optimizer=gn.SGD(0.1))
    train(short, epochs=2, keep=keep, optimizer=gn.SGD(0.1))
    assert history.stopped == "enough"
    np.testing.assert_array_equal(net.ops.to_host(net.vector), net.ops.to_host(short.vector))


@hosts
def test_the_loss_of_a_part_of_an_epoch_is_of_the_rows_it_saw(backend: Any) -> None:
    net = network(backend)
    history = train(net, epochs=None, steps=2, batch_size=20, optimizer=gn.SGD(0.0), metrics=["accuracy"])
    rows = flat(batches())
    assert len(rows) == 40
    np.testing.assert_allclose(history.loss, [net.loss_of(X[rows], LABELS[rows], LOSS)], rtol=1e-12)
    np.testing.assert_allclose(history.accuracy, [(net.predict(X[rows]).argmax(axis=1) == LABELS[rows]).mean()])


def test_steps_and_epochs_are_two_words_for_one_length(backend: Any) -> None:
    one, two = plain(backend), plain(backend)
    a = train(one, INPUTS, epochs=3, batch_size=20)
    b = train(two, INPUTS, epochs=None, steps=9, batch_size=20)
    np.testing.assert_array_equal(vector(one), vector(two))
    np.testing.assert_array_equal(a.loss, b.loss)


# Batches


@hosts
@pytest.mark.parametrize("size", [1, 7, 25, 49, ROWS, 128])
def test_batch_sizes(backend: Any, size: int) -> None:
    train(network(backend), batch_size=size, epochs=1)
    last = ROWS % size if size < ROWS else 0
    assert [len(batch) for batch in batches()] == [min(size, ROWS)] * max(1, ROWS // size) + [last] * (last > 0)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("size", "rest"), [(49, 1), (48, 2), (25, 0)])
def test_a_short_last_batch(size: int, rest: int, drop_last: bool, normalized: bool) -> None:
    """It is used unless drop_last says otherwise, or BatchNorm cannot do with a single row."""
    net = network("cpu", *([gn.Dense(5), gn.BatchNorm()] if normalized else []))
    history = train(net, batch_size=size, drop_last=drop_last, epochs=2)
    used = rest > 1 or (rest == 1 and not normalized)
    epoch = [size] * (ROWS // size) + [rest] * (used and not drop_last)
    assert [len(batch) for batch in batches()] == 2 * epoch
    assert np.isfinite(history.loss).all()
    if sum(epoch) < ROWS:  # another row is left out in each epoch
        middle = len(epoch)
        first, second = (set(flat(half)) for half in (batches()[:middle], batches()[middle:]))
        assert first != second


@hosts
def test_shuffle_takes_every_row_once_an_epoch(backend: Any) -> None:
    train(network(backend), epochs=3, batch_size=20)
    epochs = [flat(batches()[i : i + 3]) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert all(epoch != other for epoch, other in pairwise([list(range(ROWS)), *epochs]))


@hosts
def test_replacement_draws_with_repetition(backend: Any) -> None:
    """Of 50 draws 18.2 rows are missed on average, with a deviation of 2.2; no row is preferred over 2,000 draws."""
    train(network(backend), epochs=40, batch_size=25, sampling="replacement")
    assert [len(batch) for batch in batches()] == [25] * 80
    epochs = [flat(batches()[i : i + 2]) for i in range(0, 80, 2)]
    missed = [ROWS - len(set(epoch)) for epoch in epochs]
    assert abs(np.mean(missed) - 18.2) < 5 * 2.2 / 40**0.5
    counts = np.bincount(flat(epochs), minlength=ROWS)
    assert len(counts) == ROWS and np.square(counts - 40).sum() / 40 < 95  # χ² with 49 degrees of freedom
    assert len({tuple(epoch) for epoch in epochs}) == 40


@hosts
def test_sequential_keeps_the_order(backend: Any) -> None:
    train(network(backend), batch_size=20, sampling="sequential")
    assert flat(batches()) == 2 * list(range(ROWS))


RICH = (gn.Dense(5, bias=False), gn.BatchNorm(activation="relu"), gn.Dropout(0.3), gn.GaussianNoise(0.1))


@pytest.mark.parametrize("sampling", ["shuffle", "replacement"])
def test_same_seed_same_bits(backend: Any, sampling: str) -> None:
    results = []
    for seed in (4, 4, 5):
        net = plain(backend, *RICH, seed=seed)
        history = train(net, INPUTS, batch_size=15, sampling=sampling, validation=0.2, deterministic=True)
        results.append((contents(net), history.loss.tolist(), history["validation_loss"].tolist()))
    assert results[0] == results[1] != results[2]


def test_the_same_training_on_every_backend(backend: Any) -> None:
    options: dict[str, Any] = {"batch_size": 15, "validation": 0.2, "optimizer": gn.Adam(0.01), "clip_norm": 0.5}
    net, wanted = plain(backend, *RICH), plain("cpu", *RICH)
    found, history = (train(one, INPUTS, **options) for one in (net, wanted))
    np.testing.assert_allclose(vector(net), vector(wanted), rtol=0, atol=1e-12)
    for name in set(history.names) - {"seconds", "examples_per_second"}:
        np.testing.assert_allclose(found[name], history[name], rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("size", "accumulate"), [(5, 4), (4, 5), (20, 1), (3, 7)])
def test_accumulated_batches_are_one(backend: Any, size: int, accumulate: int, reduction: str) -> None:
    """Batches of 4 make 20, 20 and 4 + 4 + 2 rows: the last one counts by its share."""
    many, one = plain(backend), plain(backend)
    shared: dict[str, Any] = {
        "loss": gn.CrossEntropy(reduction=reduction), "optimizer": gn.SGD(0.02, momentum=0.5), "sample_weight": WEIGHT,
        "regularization": L2(0.1), "clip_norm": 0.4,
    }  # fmt: skip
    a = train(many, INPUTS, batch_size=size, accumulate=accumulate, **shared)
    b = train(one, INPUTS, batch_size=size * accumulate, **shared)
    np.testing.assert_allclose(vector(many), vector(one), rtol=0, atol=1e-13)
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-13)


# Weights


@hosts
@pytest.mark.parametrize("loss", [gn.CrossEntropy(0.1, reduction="sum"), gn.SquaredError(reduction="sum")])
def test_whole_weights_are_repeated_rows(backend: Any, loss: Any) -> None:
    counts = np.random.default_rng(2).integers(0, 4, ROWS)
    y = LABELS if isinstance(loss, gn.CrossEntropy) else np.eye(CLASSES)[LABELS]
    weighted, repeated = network(backend), network(backend)
    shared: dict[str, Any] = {"loss": loss, "optimizer": gn.SGD(1e-3, momentum=0.5), "epochs": 10}
    a = train(weighted, X, y, sample_weight=counts, batch_size=ROWS, **shared)
    b = train(repeated, np.repeat(X, counts, axis=0), np.repeat(y, counts, axis=0), batch_size=counts.sum(), **shared)
    np.testing.assert_allclose(vector(weighted), vector(repeated), rtol=0, atol=1e-13)
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-13)
    assert (counts == 0).any() and np.abs(vector(weighted) - vector(network(backend))).max() > 1e-3


def test_weights_go_with_their_rows() -> None:
    """Shuffled in batches: at a rate of 0 the epoch's loss is the weighted sum, whatever the order."""
    net = network()
    history = train(net, optimizer=gn.SGD(0.0), batch_size=15, sample_weight=WEIGHT)
    Z = net.predict(X)
    terms = np.log(np.exp(Z).sum(axis=1)) - Z[np.arange(ROWS), LABELS]
    np.testing.assert_allclose(history.loss, (WEIGHT * terms).sum() / ROWS, rtol=1e-13)


CLASS_WEIGHTS = {
    "balanced": ("balanced", [ROWS / (CLASSES * n) for n in np.bincount(LABELS)]),
    "dict": ({0: 2.0, 1: 0.5, 2: 1.5}, [2.0, 0.5, 1.5]),
    "some": ({1: 0.0}, [1.0, 0.0, 1.0]),
}


@pytest.mark.parametrize("with_weights", [False, True])
@pytest.mark.parametrize("case", CLASS_WEIGHTS)
def test_class_weights_are_weights_of_rows(case: str, with_weights: bool) -> None:
    given, of_class = CLASS_WEIGHTS[case]
    assert len(set(np.bincount(LABELS))) == CLASSES
    by_class, by_row = network(), network()
    own = WEIGHT if with_weights else np.ones(ROWS)
    train(by_class, class_weight=given, sample_weight=WEIGHT if with_weights else None, batch_size=15)
    train(by_row, sample_weight=own * np.array(of_class)[LABELS], batch_size=15)
    np.testing.assert_allclose(vector(by_class), vector(by_row), rtol=0, atol=1e-14)
    other = network()
    train(other, sample_weight=own, batch_size=15)
    assert np.abs(vector(by_class) - vector(other)).max() > 1e-4


# What surrounds an update


def first_gradient(net: gn.Network, penalty: float = 0.0) -> Any:
    """Of the whole set, λ‖W‖² with it, as a vector."""
    net.gradients(X, LABELS, LOSS)
    g = net.ops.to_host(net.gradient_vector)
    g[: net.store.decaying] += 2 * penalty * vector(net)[: net.store.decaying]
    return g


@hosts
@pytest.mark.parametrize("relative", [0.3, 3.0])
def test_clip_norm(backend: Any, relative: float) -> None:
    """The whole gradient, the penalty's part with it, gets at most this length."""
    net = network(backend)
    g, before = first_gradient(net, 0.2), vector(net)
    length = np.linalg.norm(g)
    train(net, epochs=1, batch_size=ROWS, clip_norm=relative * length, regularization=L2(0.2))
    np.testing.assert_allclose(before - vector(net), 0.1 * g * min(1.0, relative), rtol=1e-10, atol=1e-15)


@hosts
def test_clip_value_then_clip_norm(backend: Any) -> None:
    net = network(backend)
    g, before = first_gradient(net), vector(net)
    limit = np.abs(g).max() / 3
    bounded = np.clip(g, -limit, limit)
    assert (bounded != g).any()
    train(net, epochs=1, batch_size=ROWS, clip_value=limit)
    np.testing.assert_allclose(before - vector(net), 0.1 * bounded, rtol=1e-10, atol=1e-15)
    both = network(backend)
    length = np.linalg.norm(bounded)
    train(both, epochs=1, batch_size=ROWS, clip_value=limit, clip_norm=0.5 * length)
    np.testing.assert_allclose(before - vector(both), 0.05 * bounded, rtol=1e-10, atol=1e-15)


@hosts
def test_a_penalty_changes_steps_and_not_the_recorded_loss(backend: Any) -> None:
    net = network(backend)
    g, before = first_gradient(net), vector(net)
    decaying = np.arange(g.size) < net.store.decaying
    wanted = net.loss_of(X, LABELS, LOSS)
    history = train(net, epochs=1, batch_size=ROWS, regularization=[L1(0.3), L2(0.2)])
    step = 0.1 * (g + decaying * (0.3 * np.sign(before) + 0.4 * before))
    np.testing.assert_allclose(before - vector(net), step, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(history.loss, [wanted], rtol=1e-12)


@hosts
def test_max_norm_holds_after_every_update(backend: Any) -> None:
    lengths: list[Any] = []

    class Lengths(gn.Callback):
        def on_step(self, run: Any) -> None:
            lengths.append(np.linalg.norm(values(run.network)["1.W"], axis=0))

    net = network(backend)
    assert (np.linalg.norm(values(net)["1.W"], axis=0) > 0.3).any()
    train(net, batch_size=15, regularization=MaxNorm(0.3), callbacks=[Lengths()], optimizer=gn.SGD(1.0))
    assert len(lengths) == 8 and np.max(lengths) < 0.3 * (1 + 1e-14) and np.max(lengths) > 0.3 * (1 - 1e-14)


def test_plateau(backend: Any) -> None:
    """A rate so small that nothing improves: halved after each second epoch without an improvement, down to 1/8."""
    net = plain(backend)
    rule = ReduceOnPlateau(0.5, patience=1, minimum=0.125)
    history = train(net, INPUTS, epochs=9, optimizer=gn.SGD(Constant(1e-30)), plateau=rule)
    factors = [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    np.testing.assert_allclose(history.rate / 1e-30, factors, rtol=1e-14)


def test_plateau_watches_the_validation_set() -> None:
    """Its loss grows from the first epoch on, while that of training shrinks."""
    net = network()
    wrong = (X, (LABELS + 1) % CLASSES)
    history = train(net, epochs=4, validation=wrong, plateau=ReduceOnPlateau(0.5, patience=0), optimizer=gn.SGD(0.3))
    assert (np.diff(history.loss) < 0).all() and (np.diff(history["validation_loss"]) > 0).all()
    np.testing.assert_allclose(history.rate / 0.3, [1, 1, 0.5, 0.25], rtol=1e-14)


def test_keep() -> None:
    """The best weights are those after the epoch that was best; the last ones are the last."""
    wrong = (X, (LABELS + 1) % CLASSES)
    best, last, one = network(), network(), network()
    history = train(best, epochs=4, validation=wrong, keep="best", optimizer=gn.SGD(0.3))
    train(last, epochs=4, validation=wrong, optimizer=gn.SGD(0.3))
    train(one, epochs=1, optimizer=gn.SGD(0.3))
    assert history.best_epoch == 1
    np.testing.assert_array_equal(vector(best), vector(one))
    assert np.abs(vector(best) - vector(last)).max() > 1e-3


def test_what_early_stopping_watches_decides_which_weights_are_best() -> None:
    net = network()
    options: dict[str, Any] = {"validation": (X, (LABELS + 1) % CLASSES), "metrics": ["accuracy"], "epochs": 30}
    rule = gn.EarlyStopping(100, monitor="accuracy")
    history = train(net, keep="best", stopping=rule, optimizer=gn.SGD(0.3), **options)
    assert history.best_epoch == int(history.accuracy.argmax()) + 1 > 1 == int(history["validation_loss"].argmin()) + 1


# Validation


@pytest.mark.parametrize("weighted", [False, True])
def test_validation_given(backend: Any, weighted: bool) -> None:
    net = plain(backend)
    held_out = (INPUTS[:20], LABELS[:20], *([WEIGHT[:20]] if weighted else []))
    history = train(net, INPUTS[20:], LABELS[20:], validation=held_out, metrics=["accuracy"])
    found = net.evaluate(
        INPUTS[:20], LABELS[:20], metrics=["accuracy"], sample_weight=WEIGHT[:20] if weighted else None
    )
    for name, number in found.items():
        np.testing.assert_allclose(history[f"validation_{name}"][-1], number, rtol=1e-13)
    other = net.evaluate(INPUTS[:20], LABELS[:20], sample_weight=None if weighted else WEIGHT[:20])["loss"]
    assert abs(other - found["loss"]) > 1e-3


@pytest.mark.parametrize("weighted", [False, True])
def test_a_large_validation_set_is_looked_at_in_parts(backend: Any, weighted: bool, monkeypatch: Any) -> None:
    """Of 50 rows some 15 at once, a short part at the end; as one part, and as `evaluate` in batches of 7."""
    held_out = (INPUTS, LABELS, *([WEIGHT] if weighted else []))
    options: dict[str, Any] = {"validation": held_out, "metrics": ["accuracy"], "batch_size": 25}
    whole, parts = plain(backend), plain(backend)
    a = train(whole, INPUTS, **options)
    monkeypatch.setattr(engine, "CHUNK_BYTES", engine.CHUNK_BYTES * 15 // parts.chunk(None))
    assert 10 < parts.chunk(None) < 20
    b = train(parts, INPUTS, **options)
    for name in ("validation_loss", "validation_accuracy"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-13)
    weight = WEIGHT if weighted else None
    found = parts.evaluate(INPUTS, LABELS, metrics=["accuracy"], sample_weight=weight, batch_size=7)
    for name, number in found.items():
        np.testing.assert_allclose(b[f"validation_{name}"][-1], number, rtol=1e-13)


@hosts
@pytest.mark.parametrize(("fraction", "count"), [(0.2, 10), (0.5, 25), (1e-9, 1), (0.999, 49)])
def test_validation_as_a_fraction(backend: Any, fraction: float, count: int) -> None:
    net = network(backend)
    history = train(net, validation=fraction, batch_size=20, epochs=3, optimizer=gn.SGD(0.0), sample_weight=WEIGHT)
    rows = flat(batches())
    assert len(rows) == 3 * (ROWS - count)
    kept = sorted(set(rows))
    left_out = sorted(set(range(ROWS)) - set(rows))
    assert len(left_out) == count  # and so the same rows in every epoch
    for name, part in (("loss", kept), ("validation_loss", left_out)):
        wanted = net.evaluate(X[part], LABELS[part], sample_weight=WEIGHT[part])["loss"]
        np.testing.assert_allclose(history[name], wanted, rtol=1e-12)


def test_the_fraction_is_drawn_by_the_seed() -> None:
    kept = []
    for seed in (0, 0, 1):
        train(network("cpu", seed=seed), validation=0.2, epochs=1)
        kept.append(sorted(flat(batches())))
    assert kept[0] == kept[1] != kept[2]
    assert kept[0] != list(range(40))


def test_validation_does_not_change_the_training(backend: Any) -> None:
    """No random number and no running statistic is spent on it."""
    with_it, without = plain(backend, *RICH), plain(backend, *RICH)
    train(with_it, INPUTS, validation=(INPUTS[:11], LABELS[:11]), metrics=["accuracy"], batch_size=15)
    train(without, INPUTS, batch_size=15)
    assert contents(with_it) == contents(without)


# Data of other kinds


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bytes_as_they_are(backend: Any, dtype: str) -> None:
    """uint8 images with scale=1/255 train as the same numbers scaled beforehand."""
    images = np.random.default_rng(3).integers(0, 256, (ROWS, 4, 4)).astype("uint8")
    layers = [gn.Flatten(), gn.Dense(5, "relu"), gn.Dense(CLASSES)]
    as_bytes = gn.Network(layers, (4, 4), device=backend, dtype=dtype, scale=1 / 255)
    as_floats = gn.Network(layers, (4, 4), device=backend, dtype=dtype)
    scaled = images.astype(dtype) * np.dtype(dtype).type(1 / 255)
    a = train(as_bytes, images, validation=(images[:9], LABELS[:9]), batch_size=15)
    b = train(as_floats, scaled, validation=(scaled[:9], LABELS[:9]), batch_size=15)
    atol = 1e-13 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(vector(as_bytes), vector(as_floats), rtol=0, atol=atol)
    np.testing.assert_allclose(a["validation_loss"], b["validation_loss"], rtol=0, atol=atol)
    raw = gn.Network(layers, (4, 4), device=backend, dtype=dtype)
    train(raw, images, batch_size=15)
    assert np.abs(vector(raw) - vector(as_floats)).max() > 1e-2


@pytest.mark.parametrize("own_y", [False, True])
@pytest.mark.parametrize("target", ["classes", "numbers"])
def test_a_set_for_each_model(backend: Any, target: str, own_y: bool) -> None:
    """X of shape (K, n, features); y for all, or for each model too. Each trains as it would alone."""
    several = np.stack([INPUTS, INPUTS[::-1] * 0.5])
    ys = [LABELS, LABELS[::-1]] if target == "classes" else [Y, 0.5 * Y]
    options: dict[str, Any] = {"batch_size": 15, "loss": LOSS if target == "classes" else gn.SquaredError()}
    outputs = CLASSES if target == "classes" else 2
    net = plain(backend, models=2, seed=[3, 8], outputs=outputs)
    history = train(net, several, np.stack(ys) if own_y else ys[0], **options)
    for k, seed in enumerate((3, 8)):
        one = plain(backend, seed=seed, outputs=outputs)
        alone = train(one, several[k], ys[k] if own_y else ys[0], **options)
        np.testing.assert_allclose(vector(net)[k], vector(one), rtol=0, atol=1e-13)
        np.testing.assert_allclose(history.loss[:, k], alone.loss, rtol=1e-13)


def test_lists_and_integers_are_data() -> None:
    a, b = network(), network()
    train(a, X.astype("float32").tolist(), LABELS.tolist())
    train(b, X.astype("float32"), LABELS.astype("int8"))
    np.testing.assert_array_equal(vector(a), vector(b))


@pytest.mark.parametrize("sampling", ["shuffle", "sequential"])
def test_data_are_not_touched(sampling: str) -> None:
    X_, y, weight = X.copy(), LABELS.copy(), WEIGHT.copy()
    for array in (X_, y, weight):
        array.flags.writeable = False
    train(network(), X_, y, sample_weight=weight, sampling=sampling, validation=(X_, y, weight))
    np.testing.assert_array_equal(X_, X)


def test_a_second_training_goes_on_from_the_first(backend: Any) -> None:
    """From its weights; with dropout, also with other masks."""
    net, other = plain(backend, gn.Dense(5), gn.Dropout(0.5)), plain(backend, gn.Dense(5), gn.Dropout(0.5))
    start = vector(net)
    train(net, INPUTS, epochs=1, batch_size=ROWS, sampling="sequential")
    between = vector(net)
    train(net, INPUTS, epochs=1, batch_size=ROWS, sampling="sequential")
    assert 0 < np.abs(between - start).max() and 0 < np.abs(vector(net) - between).max()
    other.load_parameters(values_of(plain(backend, gn.Dense(5), gn.Dropout(0.5)), between))
    train(other, INPUTS, epochs=1, batch_size=ROWS, sampling="sequential")
    assert np.abs(vector(other) - vector(net)).max() > 1e-4


def values_of(net: gn.Network, numbers: Any) -> dict[str, Any]:
    net.ops.copy(net.ops.from_host(numbers), out=net.vector)
    return values(net)


# Callbacks


def test_functions_and_objects_are_called(backend: Any) -> None:
    events: list[Any] = []

    class Look(gn.Callback):
        def on_start(self, run: Any) -> None:
            events.append(("start", run.epoch, run.history.epochs))

        def on_epoch(self, run: Any, record: Any) -> None:
            events.append(("epoch", run.epoch, run.history.epochs))
            assert all(run.history[name][-1] == value[0] for name, value in record.items())

        def on_step(self, run: Any) -> None:
            events.append(("step", run.epoch, run.history.epochs))

        def on_end(self, run: Any) -> None:
            events.append(("end", run.epoch, run.history.stopped))

    losses: list[Any] = []
    net = plain(backend)
    history = train(
        net, INPUTS, batch_size=25, callbacks=[lambda epoch, record: losses.append((epoch, record["loss"])), Look()]
    )
    assert [epoch for epoch, _ in losses] == [1, 2]
    assert [float(loss[0]) for _, loss in losses] == history.loss.tolist()
    first, second = [("step", 0, 0)] * 2 + [("epoch", 1, 1)], [("step", 1, 1)] * 2 + [("epoch", 2, 2)]
    assert events == [("start", 0, 0), *first, *second, ("end", 2, "finished 2 epochs")]


class Stop(gn.Callback):
    """Ends the training from the start, or after the first epoch."""

    def __init__(self, event: str) -> None:
        self.event = event

    def on_start(self, run: Any) -> None:
        if self.event == "start":
            run.stop("no need")

    def on_epoch(self, run: Any, record: Any) -> None:
        if self.event == "epoch":
            run.stop("no need")


@hosts
@pytest.mark.parametrize(("event", "epochs"), [("start", 0), ("epoch", 1)])
def test_a_callback_ends_the_training(backend: Any, event: str, epochs: int) -> None:
    net = network(backend)
    history = train(net, callbacks=Stop(event), batch_size=25)
    assert history.epochs == epochs and len(SEEN) == 2 * epochs and history.stopped == "no need"


@pytest.mark.parametrize("models", [None, 2])
def test_a_callback_ends_the_training_within_an_epoch(backend: Any, models: int | None) -> None:
    counting = Steps(stop=5)
    history = train(plain(backend, models=models), INPUTS, batch_size=15, epochs=9, callbacks=[counting])
    assert counting.count == 5 and history.epochs == 2
    assert history.stopped == ("counted enough" if models is None else ["counted enough"] * 2)


def test_a_member_that_had_stopped_keeps_its_reason() -> None:
    """The first stands still and is stopped for that; the callback then ends what is left."""
    counting, net = Steps(stop=5), plain("cpu", models=2)
    options: dict[str, Any] = {"stopping": gn.LossTolerance(1e-12), "epochs": 9, "batch_size": ROWS}
    history = train(net, INPUTS, optimizer=gn.SGD((0.0, 0.1)), callbacks=[counting], **options)
    assert history.stopped == ["LossTolerance(tolerance=1e-12)", "counted enough"] and history.epochs == 5


@pytest.mark.parametrize("event", ["on_start", "on_epoch", "on_step", "on_end"])
def test_an_exception_in_a_callback_leaves_the_best_weights(event: str) -> None:
    """Its own epoch's, if that was the best one and over; and what the user raised is what comes out."""
    wrong = (X, (LABELS + 1) % CLASSES)  # whose loss is lowest after the first epoch

    class Fails(gn.Callback):
        pass

    def fail(self: Any, run: Any, *record: Any) -> None:
        if run.epoch == 3 or event == "on_start":
            raise KeyError("the user's own")

    setattr(Fails, event, fail)
    net, one = network(), network()
    train(one, epochs=1, optimizer=gn.SGD(0.3))
    wanted = vector(network()) if event == "on_start" else vector(one)
    with pytest.raises(KeyError, match="the user's own"):
        train(net, epochs=3 + (event == "on_step"), validation=wrong, keep="best", optimizer=gn.SGD(0.3),
              callbacks=[Fails()])  # fmt: skip
    np.testing.assert_array_equal(vector(net), wanted)


# Losing the loss


@pytest.mark.parametrize("monitored", ["training", "validation"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_lost_training_leaves_weights_that_work(backend: Any, dtype: str, monitored: str) -> None:
    """With the first step already: the initial weights are then the best ones there are."""
    net = plain(backend, gn.Dense(5, "relu"), dtype=dtype)
    held_out = {"validation": (INPUTS, LABELS)} if monitored == "validation" else {}
    start = net.loss_of(INPUTS, LABELS, LOSS)
    history = train(
        net, INPUTS, keep="best", epochs=5, optimizer=gn.SGD(1e30 if dtype == "float32" else 1e200), **held_out
    )
    assert history.stopped.startswith("non-finite loss at epoch 2, step 1")
    with np.errstate(all="ignore"):
        assert net.loss_of(INPUTS, LABELS, LOSS) <= start


def test_the_step_of_a_lost_loss_is_named(backend: Any) -> None:
    """Step 2 of epoch 3 throws the weights away, so step 3 finds a loss that is none; the best ones come back."""
    net, good = (plain(backend, gn.Dense(5, "relu")) for _ in range(2))
    rates = [0.1] * 9 + [1e200] + [0.1] * 6
    options: dict[str, Any] = {"batch_size": 13, "keep": "best", "validation": (INPUTS, LABELS)}
    history = train(net, INPUTS, epochs=4, optimizer=gn.SGD(Sequence(rates)), **options)
    train(good, INPUTS, epochs=2, **options)
    assert history.stopped == "non-finite loss at epoch 3, step 3" and history.epochs == 3
    np.testing.assert_array_equal(vector(net), vector(good))


# L-BFGS in the loop


def test_lbfgs_takes_a_schedule() -> None:
    by_number, by_schedule = network(), network()
    train(by_number, optimizer=gn.LBFGS(0.5), epochs=3)
    train(by_schedule, optimizer=gn.LBFGS(Constant(0.5)), epochs=3)
    np.testing.assert_array_equal(vector(by_schedule), vector(by_number))


def test_lbfgs_takes_penalties_only() -> None:
    """A weight or a gradient that is moved from outside is no longer the point or the slope it has measured."""
    net = network()
    match = r"^LBFGS: expected penalties such as L2, .*, got MaxNorm\(0\.3\); leave it out, or use another optimizer"
    refused(net, ConfigurationError, match, optimizer=gn.LBFGS(), regularization=MaxNorm(0.3))


# What is refused

NAN = np.where(np.arange(FEATURES) == 1, np.nan, X)
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no rows": ({"X": X[:0], "y": LABELS[:0]}, DataError, exactly(
        "X: expected at least one example, got shape (0, 3); pass a batch")),
    "another width": ({"X": X[:, :2]}, ShapeError, r"^X: expected shape \(n, 3\), got \(50, 2\)"),
    "one example alone": ({"X": X[0]}, ShapeError, r"^X: expected shape \(n, 3\), got \(3,\); for one example"),
    "NaN in X": ({"X": NAN}, DataError, r"^X: expected finite numbers, got nan at \[0, 1\] and 49 more"),
    "text": ({"X": np.full((ROWS, FEATURES), "a")}, TypeError, r"^X: expected real numbers, got dtype <U1"),
    "too few labels": ({"y": LABELS[:-1]}, ShapeError, r"^y: expected 50 classes or shape \(50, 3\), got \(49,\)"),
    "labels twice": ({"y": np.stack([LABELS] * 2, axis=1)}, ShapeError, r"got \(50, 2\); give y one row for each"),
    "numbers without a column": ({"y": Y[:, 0], "loss": gn.SquaredError()}, ShapeError,
        r"^y: expected shape \(50, 3\), got \(50,\)"),
    "a class too many": ({"y": LABELS + 1}, DataError, r"^y: expected whole classes from 0 to 2, got 3 at"),
    "negative class": ({"y": LABELS - 1}, DataError, r"^y: expected whole classes from 0 to 2, got -1 at"),
    "NaN in y": ({"y": np.full((ROWS, 3), np.nan), "loss": gn.SquaredError()}, DataError, r"^y: expected finite"),
    "validation of another width": ({"validation": (X[:, :2], LABELS)}, ShapeError,
        r"^X: expected shape \(n, 3\), got \(50, 2\)"),
    "validation without rows": ({"validation": (X[:0], LABELS[:0])}, DataError, "^X: expected at least one example"),
    "validation with a stranger": ({"validation": (X, LABELS + 1)}, DataError, "^y: expected whole classes"),
    "validation of one": ({"validation": (X,)}, ConfigurationError, exactly(
        "fit validation: expected (X, y), (X, y, weight) or a fraction, got tuple; pass validation=(Xv, yv) or "
        "validation=0.2")),
    "all held out": ({"validation": 1.0}, ConfigurationError, r"^fit validation: expected a number with 0 < value < 1"),
    "nothing held out": ({"validation": 0}, ConfigurationError, r"^fit validation: expected a number with 0 < value"),
    "one row to divide": ({"X": X[:1], "y": LABELS[:1], "validation": 0.5}, DataError, exactly(
        "fit validation: expected at least 2 examples to divide, got 1; pass more data")),
    "negative weight": ({"sample_weight": WEIGHT - 1}, DataError, r"^fit sample_weight: expected 50 finite numbers"),
    "weights of 0": ({"sample_weight": 0 * WEIGHT}, DataError, r"^fit sample_weight: .* not all 0, got values"),
    "NaN weight": ({"sample_weight": WEIGHT * np.nan}, DataError, r"^fit sample_weight: expected 50 finite numbers"),
    "too few weights": ({"sample_weight": WEIGHT[1:]}, DataError, r"^fit sample_weight: .* got shape \(49,\)"),
    "weights of text": ({"sample_weight": "heavy"}, GpunnError, FORM),
    "weight of no class": ({"class_weight": {7: 1.0}}, ConfigurationError, exactly(
        "fit class_weight: expected weights of 0, 1, 2, got one of 7 too; name classes of y")),
    "negative class weight": ({"class_weight": {0: -1.0}}, ConfigurationError,
        r"^fit class_weight\[0\]: expected a number with 0 <= value, got -1.0"),
    "class weight by another name": ({"class_weight": "even"}, ConfigurationError,
        r"^fit class_weight: expected one of 'balanced', got 'even'"),
    "class weight of one-hot rows": ({"class_weight": "balanced", "y": np.eye(3)[LABELS]}, ConfigurationError,
        r"^fit class_weight: expected y of one class for each example, got shape \(50, 3\); use sample_weight"),
    "class weight as a number": ({"class_weight": 3.0}, GpunnError, FORM),
    "class weight as a list": ({"class_weight": [1.0, 2.0, 3.0]}, GpunnError, FORM),
    "loss class": ({"loss": gn.CrossEntropy}, ConfigurationError, r"^fit loss: expected a loss such as .*parentheses"),
    "loss by name": ({"loss": "mse"}, ConfigurationError, r"^fit loss: .* got 'mse'; write gn.SquaredError\(\)$"),
    "optimizer class": ({"optimizer": gn.Adam}, ConfigurationError, exactly(
        f"fit optimizer: expected an optimizer such as gn.Adam(1e-3), got {gn.Adam!r}; make one, with its "
        "parentheses")),
    "optimizer by name": ({"optimizer": "adam"}, ConfigurationError, r"got 'adam'; write gn.Adam\(1e-3\)$"),
    "epochs and steps": ({"epochs": 2, "steps": 2}, ConfigurationError, exactly(
        "fit: expected epochs= or steps=, got both; leave one out: an epoch is one pass over the data")),
    "no epochs": ({"epochs": 0}, ConfigurationError, r"^fit epochs: expected a whole number >= 1, got 0"),
    "half an epoch": ({"epochs": 0.5}, ConfigurationError, r"^fit epochs: expected a whole number >= 1, got 0.5"),
    "negative steps": ({"epochs": None, "steps": -1}, ConfigurationError, r"^fit steps: expected a whole number >= 1"),
    "no batch": ({"batch_size": 0}, ConfigurationError, r"^fit batch_size: expected a whole number >= 1, got 0"),
    "a batch of 1.5": ({"batch_size": 1.5}, ConfigurationError, r"^fit batch_size: expected a whole number"),
    "accumulate": ({"accumulate": 0}, ConfigurationError, r"^fit accumulate: expected a whole number >= 1, got 0"),
    "drop_last": ({"drop_last": "yes"}, ConfigurationError, r"^fit drop_last: expected one of True, False, got 'yes'"),
    "sampling": ({"sampling": "random"}, ConfigurationError, exactly(
        "fit sampling: expected one of 'shuffle', 'replacement', 'sequential', got 'random'; choose one of them")),
    "keep": ({"keep": "first"}, ConfigurationError, r"^fit keep: expected one of 'best', 'last', got 'first'"),
    "deterministic": ({"deterministic": 1}, ConfigurationError, r"^fit deterministic: expected one of True, F"),
    "progress": ({"progress": 1}, ConfigurationError, r"^progress: expected one of None, True, False, got 1"),
    "every": ({"every": 0}, ConfigurationError, r"^fit every: expected a whole number >= 1, got 0"),
    "every_steps": ({"every_steps": 0}, ConfigurationError, r"^fit every_steps: expected a whole number >= 1, got 0"),
    "metric": ({"metrics": ["skill"]}, ConfigurationError, r"^metrics: expected some of accuracy, .* got 'skill'"),
    "metric of a whole set": ({"metrics": ["auc"]}, ConfigurationError, r"^fit metrics auc: expected validation="),
    "metric that does not fit": ({"metrics": ["mse"]}, ConfigurationError, r"^metrics mse: expected a target of one"),
    "callback class": ({"callbacks": [gn.GradientFlow]}, ConfigurationError, r"^callbacks: .* pass an instance"),
    "callback that is none": ({"callbacks": 3}, ConfigurationError, r"^callbacks: expected callbacks, or functions"),
    "stopping class": ({"stopping": gn.EarlyStopping}, ConfigurationError, r"^stopping: .*write EarlyStopping\(\), an"),
    "stopping by what is not measured": ({"stopping": gn.EarlyStopping(monitor="validation_loss")}, ConfigurationError,
        r"^EarlyStopping: expected one of the recorded names loss, seconds, got 'validation_loss'"),
    "regularization": ({"regularization": "l2"}, ConfigurationError, r"^regularization: expected L2, .* got 'l2'"),
    "clip_norm": ({"clip_norm": 0.0}, ConfigurationError, r"^ClipNorm limit: expected a number with 1e-15 <= value"),
    "clip_value": ({"clip_value": -1.0}, ConfigurationError, r"^ClipValue limit: expected a number with 0 < value"),
    "a schedule that is too short": ({"optimizer": gn.SGD(Sequence([0.1] * 7)), "batch_size": 15}, ConfigurationError,
        exactly("Sequence: expected a rate for step 7, counted from 0, got 7 rates; list more rates or train for "
                "fewer steps")),
    "a schedule that goes below 0": ({"optimizer": gn.SGD(lambda t: 0.1 - 0.2 * t)}, ConfigurationError,
        r"^rate at step 1: expected a number with 0 <= value, got -0.1"),
    "a schedule that is NaN": ({"optimizer": gn.SGD(lambda t: np.nan)}, ConfigurationError,
        r"^rate at step 0: expected a number with 0 <= value, got nan"),
    "rates of three models": ({"optimizer": gn.SGD((0.1, 0.2, 0.3))}, ConfigurationError,
        r"rate: expected one (number|rate), got 3; give one for each model and set models= to their count"),
    "decays of three models": ({"optimizer": gn.SGD(0.1, weight_decay=(0.1, 0.2, 0.3))}, ConfigurationError,
        r"^SGD weight_decay: expected one number, got 3"),
    "strengths of three models": ({"regularization": L2((0.1, 0.2, 0.3))}, ConfigurationError,
        r"^L2 strength: expected one number, got 3"),
    "folds of a single network": ({"folds": [(range(25), range(25, 50))]}, ConfigurationError,
        r"^fit folds: expected a population, of one model for each fold, got a network of one model; make"),
    "folds as a number": ({"folds": 3}, GpunnError, FORM),
    "plateau": ({"plateau": "slow"}, GpunnError, FORM),
}  # fmt: skip


def refused(net: gn.Network, error: type[Exception], match: str, **options: Any) -> None:
    """Refused, and nothing done: no number changed, no loss kept, no callback told."""
    told: list[Any] = []

    class Told(gn.Callback):
        def on_start(self, run: Any) -> None:
            told.append(run)

    before, loss = contents(net), net.loss
    with pytest.raises(error, match=match) as caught:
        train(net, **({"callbacks": [Told()]} | options))
    assert isinstance(caught.value, GpunnError)
    assert contents(net) == before and net.loss is loss and not told


@pytest.mark.parametrize("case", BAD)
def test_refused(case: str) -> None:
    options, error, match = BAD[case]
    refused(network(), error, match, **options)


FOLDS = [(np.arange(25), np.arange(25, 50)), (np.arange(25, 50), np.arange(25))]
BAD_OF_MODELS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "rates": ({"optimizer": gn.SGD((0.1, 0.2, 0.3))}, ConfigurationError,
        r"rate: expected one (number|rate) or 2 of them, got 3"),
    "momenta": ({"optimizer": gn.SGD(0.1, momentum=(0.1, 0.2, 0.3))}, ConfigurationError,
        r"^SGD momentum: expected one number or 2 of them, got 3"),
    "betas": ({"optimizer": gn.Adam(betas=(0.9, (0.9, 0.8, 0.7)))}, ConfigurationError,
        r"^Adam betas\[1\]: expected one number or 2 of them, got 3"),
    "strengths": ({"regularization": L2((0.1, 0.2, 0.3))}, ConfigurationError, r"^L2 strength: .* or 2 of them, got 3"),
    "limits": ({"clip_norm": (0.1, 0.2, 0.3)}, ConfigurationError, r"^ClipNorm limit: .* or 2 of them, got 3"),
    "one fold": ({"folds": FOLDS[:1]}, ConfigurationError, exactly(
        "fit folds: expected 2 pairs (training rows, held-out rows), and no validation=, got 1 of them; make the "
        "network with models= the number of folds, and pass list(KFold(...).split(X))")),
    "folds and validation": ({"folds": FOLDS, "validation": 0.2}, ConfigurationError, r"^fit folds: .*no validation="),
    "rows that there are not": ({"folds": [FOLDS[0], (np.arange(26, 51), np.arange(25))]}, DataError,
        r"^fit indices: expected row numbers from 0 to 49, got 26 to 50 for model 1"),
    "sets of three models": ({"X": np.stack([X] * 3)}, ShapeError, r"^X: expected shape \(n, 3\), or \(2, n, 3\), got"),
    "a set for each and weights": ({"X": np.stack([X] * 2), "sample_weight": WEIGHT}, ShapeError,
        r"^fit: expected one set for all models together with indices or weights"),
    "LBFGS": ({"optimizer": gn.LBFGS()}, ConfigurationError, r"^LBFGS: expected one network, got a population of 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_OF_MODELS)
def test_refused_for_a_population(case: str) -> None:
    options, error, match = BAD_OF_MODELS[case]
    refused(network(models=2), error, match, **options)


def test_a_batch_of_one_is_refused_where_a_layer_looks_across_the_batch() -> None:
    net = network("cpu", gn.Dense(5), gn.BatchNorm())
    refused(net, DataError, "expected a training batch of at least 2 examples, got 1; use a larger batch", batch_size=1)


def test_a_refusal_does_not_spoil_what_follows() -> None:
    net, other = network(), network()
    for options, error, match in BAD.values():
        if error is not GpunnError:
            with pytest.raises(error, match=match):
                train(net, **options)
    train(net)
    train(other)
    np.testing.assert_array_equal(vector(net), vector(other))


def test_a_rate_that_turns_out_bad_leaves_the_best_weights() -> None:
    """A schedule's first and last value are looked at before the first step, the others as their epoch comes."""
    net, one = network(), network()
    with pytest.raises(ConfigurationError, match=r"^rate at step 2: expected a number with 0 <= value, got nan"):
        train(net, keep="best", epochs=5, optimizer=gn.SGD(lambda t: np.nan if t == 2 else 0.1))
    train(one, epochs=2)
    np.testing.assert_array_equal(vector(net), vector(one))
