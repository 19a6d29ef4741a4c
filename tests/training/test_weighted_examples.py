"""Examples and classes that count more than others."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from tests.training.small_set import CLASSES, LABELS, ROWS, WEIGHT, X, hosts, network, train, vector


@hosts
@pytest.mark.parametrize("loss", [gn.CrossEntropy(0.1, reduction="sum"), gn.SquaredError(reduction="sum")])
def test_whole_sample_weights_act_as_repeated_rows(backend: Any, loss: Any) -> None:
    counts = np.random.default_rng(2).integers(0, 4, ROWS)
    y = LABELS if isinstance(loss, gn.CrossEntropy) else np.eye(CLASSES)[LABELS]
    weighted, repeated = network(backend), network(backend)
    shared: dict[str, Any] = {"loss": loss, "optimizer": gn.SGD(1e-3, momentum=0.5), "epochs": 10}
    a = train(weighted, X, y, sample_weight=counts, batch_size=ROWS, **shared)
    b = train(repeated, np.repeat(X, counts, axis=0), np.repeat(y, counts, axis=0), batch_size=counts.sum(), **shared)
    np.testing.assert_allclose(vector(weighted), vector(repeated), rtol=0, atol=1e-13)
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-13)
    assert (counts == 0).any() and np.abs(vector(weighted) - vector(network(backend))).max() > 1e-3


def test_sample_weights_stay_with_their_shuffled_rows() -> None:
    """At a rate of 0 the loss of a shuffled epoch is the weighted sum, whatever the order."""
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
def test_class_weights_act_as_sample_weights(case: str, with_weights: bool) -> None:
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
