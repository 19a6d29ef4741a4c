"""scikit-learn's perceptron, started with given weights."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier

from benchmarks.cases import Case, Training


def perceptron(case: Case, weights: list[dict[str, Any]], **options: Any) -> MLPClassifier:
    """A classifier of the case's net and optimizer, which trains for all its epochs.

    Of two classes it has one logistic output, which starts as the difference of the two that the others have.
    """
    made = MLPClassifier(
        case.widths[1:-1], batch_size=case.batch, tol=0.0, n_iter_no_change=10**6,
        **{"alpha": 0.0, "learning_rate_init": case.rate, **options},
    )  # fmt: skip
    given = iter(weights)

    def first(into: int, out: int, *_: Any) -> tuple[Any, Any]:
        layer = next(given)
        W, b = layer["W"].copy(), layer["b"][0].copy()
        return (W[:, 1:] - W[:, :1], b[1:] - b[:1]) if out == 1 else (W, b)

    made._init_coef = first
    return made


def fit(training: Training) -> list[float]:
    """From NumPy arrays to the mean loss of every epoch."""
    options = {"max_iter": training.epochs, "shuffle": training.shuffle, "random_state": training.seed}
    made = perceptron(training.case, training.weights, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of epochs that do not converge
        if training.after is None:
            made.fit(training.X, training.y)
        else:
            for _ in range(training.epochs):
                made.partial_fit(training.X, training.y, classes=np.unique(training.y))
                training.ended(made.predict)
    return [float(value) for value in made.loss_curve_]
