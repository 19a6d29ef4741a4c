"""The rate of a training: a schedule gives it, a plateau lowers it."""

from typing import Any

import numpy as np

import gpunn as gn
from gpunn.schedules import Constant, ReduceOnPlateau
from tests.training.small_set import CLASSES, INPUTS, LABELS, X, network, plain, train, vector


def test_fit_with_a_plateau_lowers_the_rate_while_nothing_improves(backend: Any) -> None:
    """A rate so small that nothing improves: halved after each second epoch without an improvement, down to 1/8."""
    net = plain(backend)
    rule = ReduceOnPlateau(0.5, patience=1, minimum=0.125)
    history = train(net, INPUTS, epochs=9, optimizer=gn.SGD(Constant(1e-30)), plateau=rule)
    factors = [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    np.testing.assert_allclose(history.rate / 1e-30, factors, rtol=1e-14)


def test_a_plateau_in_fit_watches_the_validation_loss() -> None:
    """The validation loss grows from the first epoch on, while the training loss falls."""
    net = network()
    wrong = (X, (LABELS + 1) % CLASSES)
    history = train(net, epochs=4, validation=wrong, plateau=ReduceOnPlateau(0.5, patience=0), optimizer=gn.SGD(0.3))
    assert (np.diff(history.loss) < 0).all() and (np.diff(history["validation_loss"]) > 0).all()
    np.testing.assert_allclose(history.rate / 0.3, [1, 1, 0.5, 0.25], rtol=1e-14)


def test_fit_with_lbfgs_takes_a_schedule() -> None:
    by_number, by_schedule = network(), network()
    train(by_number, optimizer=gn.LBFGS(0.5), epochs=3)
    train(by_schedule, optimizer=gn.LBFGS(Constant(0.5)), epochs=3)
    np.testing.assert_array_equal(vector(by_schedule), vector(by_number))
