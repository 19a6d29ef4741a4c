"""Arguments of `Network.fit` that are refused: one message each, and nothing has changed."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError, DataError, GpunnError, ShapeError
from gpunn.regularization import L2, MaxNorm
from gpunn.schedules import Sequence
from tests.faults import FORM, contents, exactly
from tests.training.small_set import FEATURES, LABELS, ROWS, WEIGHT, X, Y, network, train, vector


def test_lbfgs_refuses_limits_on_weights() -> None:
    """A weight or gradient changed from outside is no longer the point or slope that LBFGS has measured."""
    net = network()
    match = r"^LBFGS: expected penalties such as L2, .*, got MaxNorm\(0\.3\); leave it out, or use another optimizer"
    refused(net, ConfigurationError, match, optimizer=gn.LBFGS(), regularization=MaxNorm(0.3))


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
    """Training is refused: no number has changed, no loss is kept and no callback was called."""
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
def test_fit_refuses_bad_arguments(case: str) -> None:
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
def test_fit_refuses_bad_arguments_for_a_population(case: str) -> None:
    options, error, match = BAD_OF_MODELS[case]
    refused(network(models=2), error, match, **options)


def test_fit_refuses_batches_of_one_row_for_batch_norm() -> None:
    net = network("cpu", gn.Dense(5), gn.BatchNorm())
    refused(net, DataError, "expected a training batch of at least 2 examples, got 1; use a larger batch", batch_size=1)


def test_a_refused_fit_does_not_change_the_next_one() -> None:
    net, other = network(), network()
    for options, error, match in BAD.values():
        if error is not GpunnError:
            with pytest.raises(error, match=match):
                train(net, **options)
    train(net)
    train(other)
    np.testing.assert_array_equal(vector(net), vector(other))
