"""How long `Network.fit` trains, what it returns, and what it leaves in the network."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.schedules import Power
from tests.training.small_set import (
    ALWAYS,
    CLASSES,
    FEATURES,
    INPUTS,
    LABELS,
    LOSS,
    ROWS,
    Spy,
    Steps,
    X,
    Y,
    batches,
    flat,
    hosts,
    network,
    plain,
    train,
    values,
    vector,
)


def test_fit_with_default_arguments_trains_20_epochs(backend: Any) -> None:
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


def test_fit_takes_the_input_width_from_the_data() -> None:
    net = gn.Network([gn.Dense(4, "tanh"), gn.Dense(CLASSES)], device="cpu", dtype="float64")
    known = gn.Network([gn.Dense(4, "tanh"), gn.Dense(CLASSES)], FEATURES, device="cpu", dtype="float64")
    for one in (net, known):
        train(one, INPUTS)
    assert net.inputs == (FEATURES,)
    np.testing.assert_array_equal(vector(net), vector(known))


@pytest.mark.parametrize("models", [None, 2])
def test_the_history_of_fit_has_what_was_measured(backend: Any, models: int | None) -> None:
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
def test_the_recorded_losses_and_metrics_are_those_of_the_whole_set(backend: Any, size: int, reduction: str) -> None:
    """At a rate of 0 the loss of an epoch in batches, the last one short, is that of all rows at once."""
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


def test_the_recorded_loss_of_a_batch_is_that_before_its_update() -> None:
    """Each batch is recorded at the weights before its update."""
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


def test_the_recorded_accuracy_is_the_fraction_of_right_answers() -> None:
    net = network()
    history = train(net, optimizer=gn.SGD(0.0), batch_size=15, metrics=["accuracy"], validation=(X[:7], LABELS[:7]))
    right = net.predict(X).argmax(axis=1) == LABELS
    np.testing.assert_allclose(history.accuracy, right.mean(), rtol=1e-14)
    np.testing.assert_allclose(history["validation_accuracy"], right[:7].mean(), rtol=1e-14)
    assert net.evaluate(X, LABELS, metrics=["accuracy"])["accuracy"] == pytest.approx(right.mean(), rel=1e-14)


@hosts
def test_fit_with_steps_makes_that_many_updates(backend: Any) -> None:
    """Seven updates of 20, 20 and 10 rows: two epochs and a third of the next."""
    net, counting = network(backend), Steps()
    history = train(net, epochs=None, steps=7, batch_size=20, callbacks=[counting], optimizer=gn.SGD(Power(0.1)))
    assert counting.count == 7 and history.epochs == 3 and history.stopped == "finished 3 epochs"
    assert [len(batch) for batch in batches()] == [20, 20, 10, 20, 20, 10, 20]
    np.testing.assert_allclose(history.rate, [0.1 / 3, 0.1 / 6, 0.1 / 7], rtol=1e-15)


@hosts
def test_the_recorded_loss_of_a_part_of_an_epoch_is_that_of_its_rows(backend: Any) -> None:
    net = network(backend)
    history = train(net, epochs=None, steps=2, batch_size=20, optimizer=gn.SGD(0.0), metrics=["accuracy"])
    rows = flat(batches())
    assert len(rows) == 40
    np.testing.assert_allclose(history.loss, [net.loss_of(X[rows], LABELS[rows], LOSS)], rtol=1e-12)
    np.testing.assert_allclose(history.accuracy, [(net.predict(X[rows]).argmax(axis=1) == LABELS[rows]).mean()])


def test_fit_with_steps_equals_fit_with_as_many_epochs(backend: Any) -> None:
    one, two = plain(backend), plain(backend)
    a = train(one, INPUTS, epochs=3, batch_size=20)
    b = train(two, INPUTS, epochs=None, steps=9, batch_size=20)
    np.testing.assert_array_equal(vector(one), vector(two))
    np.testing.assert_array_equal(a.loss, b.loss)


def test_a_second_fit_goes_on_from_the_weights_of_the_first(backend: Any) -> None:
    """With dropout it draws other masks."""
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
