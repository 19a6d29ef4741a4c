"""The arguments of `fit` beside the data become what they stand for, or are refused, without a network or data."""

from inspect import signature
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError
from gpunn.regularization import L2
from gpunn.training.callbacks import Callback
from gpunn.training.options import Options

DEFAULTS = {name: p.default for name, p in signature(gn.Network.fit).parameters.items() if p.kind is p.KEYWORD_ONLY}


def options(**given: Any) -> Options:
    return Options(**{**DEFAULTS, "loss": gn.CrossEntropy(), "optimizer": gn.Adam(1e-3), **given})


def test_options_have_the_arguments_of_fit() -> None:
    assert tuple(Options.__dataclass_fields__) == tuple(DEFAULTS)


def test_options_are_what_their_types_say() -> None:
    made = options(
        batch_size=np.int64(8), metrics="accuracy", stopping=gn.EarlyStopping(2), callbacks=lambda epoch, record: None,
        regularization=L2(0.1), validation=[[1.0], [2.0]], folds=(pair for pair in [(1, 2)]), class_weight={0: 2.0},
    )  # fmt: skip
    assert type(made.batch_size) is int
    assert list(made.metrics) == ["accuracy"] and made.stopping == (gn.EarlyStopping(2),)
    assert isinstance(made.callbacks, tuple) and isinstance(made.callbacks[0], Callback)
    assert made.regularization == (L2(0.1),)
    assert made.validation == ([1.0], [2.0]) and made.folds == ((1, 2),)
    assert options(validation=np.float64(0.5)).validation == 0.5
    assert options(metrics=None, stopping=None, callbacks=None).metrics == {}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "loss": ({"loss": "mse"}, "fit loss: expected a loss"),
    "optimizer": ({"optimizer": "adam"}, r"fit optimizer: .* write gn.Adam\(1e-3\)"),
    "both lengths": ({"epochs": 1, "steps": 1}, r"fit: expected epochs= or steps=, got both"),
    "epochs": ({"epochs": 0}, "fit epochs: expected a whole number >= 1"),
    "steps": ({"steps": 1.5}, "fit steps: expected a whole number"),
    "batch_size": ({"batch_size": 0}, "fit batch_size: "),
    "accumulate": ({"accumulate": 0}, "fit accumulate: "),
    "every": ({"every": 0}, "fit every: "),
    "every_steps": ({"every_steps": 0}, "fit every_steps: "),
    "memory": ({"memory": 0}, "fit memory: "),
    "sampling": ({"sampling": "random"}, "fit sampling: "),
    "keep": ({"keep": "first"}, "fit keep: "),
    "drop_last": ({"drop_last": 1}, "fit drop_last: "),
    "deterministic": ({"deterministic": 1}, "fit deterministic: "),
    "progress": ({"progress": 1}, "progress: "),
    "plateau": ({"plateau": 0.1}, "fit plateau: "),
    "validation": ({"validation": "0.2"}, r"fit validation: expected \(X, y\)"),
    "fraction": ({"validation": 1.0}, "fit validation: expected a number with 0 < value < 1"),
    "class_weight": ({"class_weight": [1.0]}, "fit class_weight: "),
    "regularization": ({"regularization": 0.1}, "regularization: "),
    "clip_norm": ({"clip_norm": -1.0}, "ClipNorm limit: "),
    "clip_value": ({"clip_value": 0.0}, "ClipValue limit: "),
    "metrics": ({"metrics": ["acc"]}, "metrics: expected some of"),
    "metrics of a whole set": ({"metrics": ["auc"]}, "fit metrics auc: expected validation= or folds="),
    "stopping": ({"stopping": 5}, "stopping: "),
    "what nobody measures": ({"stopping": gn.EarlyStopping(monitor="r2")}, "EarlyStopping: expected one of the rec"),
    "callbacks": ({"callbacks": 5}, "callbacks: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_refuse_what_does_not_fit(name: str) -> None:
    given, message = REFUSED[name]
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        options(**given)


@pytest.mark.parametrize(
    ("given", "monitor"),
    [
        ({}, ("loss", False)),
        ({"validation": 0.2}, ("validation_loss", False)),
        ({"folds": [(0, 1)]}, ("validation_loss", False)),
        ({"metrics": ["accuracy"], "stopping": gn.EarlyStopping(monitor="accuracy")}, ("accuracy", True)),
    ],
)
def test_the_best_epoch_is_that_of_the_monitored_figure(given: dict[str, Any], monitor: tuple[str, bool]) -> None:
    made = options(**given).monitor
    assert (made.name, made.maximise) == monitor


def test_what_an_epoch_measures() -> None:
    made = options(metrics=["accuracy", "auc"], validation=0.2, stopping=gn.GradientTolerance(1e-3))
    assert made.measured == [
        "loss", "accuracy", "validation_loss", "validation_accuracy", "validation_auc", "seconds", "gradient_norm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "length"), [({}, (60, 20)), ({"epochs": 4}, (12, 4)), ({"steps": 7}, (7, 3)), ({"steps": 6}, (6, 2))]
)
def test_the_length_of_a_training(given: dict[str, Any], length: tuple[int, int]) -> None:
    assert options(**given).length(updates=3) == length
