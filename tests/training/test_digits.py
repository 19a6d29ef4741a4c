"""Handwritten digits with 64-128-10, BatchNorm and dropout: what a user of such a network expects to reach."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.schedules import Cosine

pytest.importorskip("sklearn", reason="scikit-learn, which has the images, is not installed (extra `sklearn`)")

from sklearn.datasets import load_digits

SEEDS, EPOCHS, BATCH = 5, 30, 64
LAYERS = [gn.Dense(128, bias=False), gn.BatchNorm(activation="relu"), gn.Dropout(0.4), gn.Dense(10)]
LOSS = gn.CrossEntropy(0.1)
WANTED = 0.975


def digits() -> tuple[Any, Any, Any]:
    """1,796 images with pixels from 0 to 1, which four divides, in a random order."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))[:1796]
    return images[order] / 16.0, labels[order], np.arange(1796).reshape(4, 449)


def fit(net: gn.Network, X: Any, y: Any, rows: int, **options: Any) -> gn.History:
    steps = -(-rows // BATCH) * EPOCHS
    return net.fit(
        X, y, loss=LOSS, optimizer=gn.AdamW(Cosine(5e-3, steps), weight_decay=0.05), epochs=EPOCHS, batch_size=BATCH,
        keep="last", **options,
    )  # fmt: skip


def test_five_seeds_trained_on_digits_reach_the_expected_accuracy() -> None:
    """Trained on three quarters as one population; each of the five models judged on the last quarter."""
    X, y, quarters = digits()
    train, test = quarters[1:].reshape(-1), quarters[0]
    net = gn.Network(LAYERS, 64, device="cpu", models=SEEDS, seed=0)
    history = fit(net, X[train], y[train], len(train), metrics=["accuracy"])
    accuracy = net.evaluate(X[test], y[test], metrics=["accuracy"])["accuracy"]
    print(f"\naccuracy on 449 images: {accuracy.round(4)}, mean {accuracy.mean():.4f}")
    assert accuracy.shape == (SEEDS,) and accuracy.mean() >= WANTED and accuracy.min() >= 0.965
    answers = net.predict_probability(X[test]).argmax(axis=-1)
    np.testing.assert_allclose((answers == y[test]).mean(axis=-1), accuracy, rtol=0, atol=1e-12)
    assert len(np.unique(answers, axis=0)) > 1
    assert (
        history.epochs == EPOCHS and (history.accuracy[-1] > 0.97).all() and (history.loss[-1] < history.loss[0]).all()
    )


def test_four_folds_trained_on_digits_reach_the_expected_accuracy() -> None:
    """Cross-validation as one population: every image is judged by the model that has not seen it."""
    X, y, quarters = digits()
    folds = [(np.delete(quarters, k, axis=0).reshape(-1), quarters[k]) for k in range(4)]
    net = gn.Network(LAYERS, 64, device="cpu", models=4, seed=0)
    history = fit(net, X, y, len(X) - 449, folds=folds, metrics=["accuracy"])
    accuracy = history["validation_accuracy"][-1]
    print(f"\naccuracy of four folds: {accuracy.round(4)}, mean {accuracy.mean():.4f}")
    assert accuracy.mean() >= WANTED
    for k, rows in enumerate(quarters):
        found = net.member(k).evaluate(X[rows], y[rows], metrics=["accuracy"])["accuracy"]
        assert abs(found - accuracy[k]) < 1e-12
