"""The best epoch where the last update of another one did the harm: its own loss precedes that update."""

from typing import Any

import numpy as np

import gpunn as gn

X = np.random.default_rng(0).normal(size=(20, 3))
Y = 100.0 * X[:, :1]
BATCH, UPDATES = 5, 4  # of an epoch
RATE = 0.01


def rate_that_spoils_the_second_epoch(t: int) -> float:
    return 1.5e308 if t == 2 * UPDATES - 1 else RATE


def fit(rate: Any, models: int | None, epochs: int) -> tuple[Any, gn.History]:
    net = gn.Network([gn.Dense(1)], 3, device="cpu", dtype="float64", models=models)
    history = net.fit(
        X, Y, loss=gn.SquaredError(), optimizer=gn.SGD(rate), epochs=epochs, batch_size=BATCH, progress=False
    )
    return net.vector, history


def test_an_epoch_that_ends_in_spoilt_weights_is_not_the_best() -> None:
    weights, history = fit(rate_that_spoils_the_second_epoch, None, epochs=3)
    assert history.stopped == f"non-finite loss at epoch 2, step {UPDATES}"
    assert history.loss[1] < history.loss[0]
    assert history.best_epoch == 1
    np.testing.assert_array_equal(weights, fit(RATE, None, epochs=1)[0])


def test_the_other_models_of_a_population_go_on() -> None:
    weights, history = fit((rate_that_spoils_the_second_epoch, RATE), 2, epochs=3)
    assert history.stopped == [f"non-finite loss at epoch 2, step {UPDATES}", "finished 3 epochs"]
    assert history.best_epoch == [1, 3]
    for k, epochs in enumerate(history.best_epoch):
        np.testing.assert_array_equal(weights[k], fit(RATE, 2, epochs)[0][k])
