"""Metrics of classifiers that are no sums over examples: computed from the truth and the scores of a whole set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import nan

import numpy as np

from gpunn.types import Array

Pair = tuple[Array, Array]  # truth values, and scores that should be high where the truth is true


def area_under_roc(truth: Array, score: Array) -> float:
    """The share of pairs of a true and a false example in which the true one has the higher score; a tie is half.

    NaN where all are true or none is.
    """
    positive = int(np.count_nonzero(truth))
    pairs = positive * (len(truth) - positive)
    if not pairs or not np.isfinite(score).all():
        return nan
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2  # counted from 1; equal scores share their mean rank
    return float((rank[place][truth].sum() - positive * (positive + 1) / 2) / pairs)


def average_precision(truth: Array, score: Array) -> float:
    """Σ (R_t - R_t-1) P_t over the thresholds t from the highest score down, with recall R and precision P.

    NaN where nothing is true.
    """
    if not truth.any() or not np.isfinite(score).all():
        return nan
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # the last one of equal scores
    found = np.cumsum(truth[order])[last]
    return float((np.diff(found, prepend=0) / found[-1] * (found / (last + 1))).sum())


def f1(truth: Array, predicted: Array) -> float:
    """2 TP / (2 TP + FP + FN): the harmonic mean of precision and recall; 0 if nothing is true or predicted."""
    total = int(np.count_nonzero(truth)) + int(np.count_nonzero(predicted))
    return 2 * int(np.count_nonzero(truth & predicted)) / total if total else 0.0


def pairs(y: Array, P: Array, exclusive: bool) -> list[Pair]:
    """Truth and scores of each output or class separately; of two classes only those of the second.

    `exclusive`: y holds a class for each example, as a number or as a row with a single 1.
    """
    if not exclusive:
        return list(zip(y.reshape(P.shape).T > 0.5, P.T))
    labels = classes(y, P)
    return [(labels == k, P[:, k]) for k in range(1 if P.shape[1] == 2 else 0, P.shape[1])]


def classes(y: Array, P: Array) -> Array:
    """Each example's class as a number."""
    return y.reshape(-1) if y.size == len(P) else y.argmax(axis=-1)


def macro(figure: Callable[[Array, Array], float], parts: Iterable[Pair]) -> float:
    """The mean over all pairs where the figure is finite; NaN if there are none."""
    values = [value for pair in parts if np.isfinite(value := figure(*pair))]
    return float(np.mean(values)) if values else nan


def macro_f1(y: Array, P: Array, exclusive: bool) -> float:
    """The F1 of "yes" for one output or two classes; else the mean over all outputs, or all classes that occur."""
    if not exclusive:
        return macro(f1, [(truth, score > 0.5) for truth, score in pairs(y, P, exclusive)])
    labels, predicted = classes(y, P), P.argmax(axis=1)
    if P.shape[1] == 2:
        return f1(labels == 1, predicted == 1)
    return macro(f1, [(labels == k, predicted == k) for k in np.union1d(labels, predicted)])
