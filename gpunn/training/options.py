"""The arguments of `fit` except the data, checked as far as that needs no network and no data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gpunn import metrics
from gpunn.errors import ConfigurationError
from gpunn.hyper import choice, number, whole
from gpunn.losses import Loss, checked_loss
from gpunn.metrics import Metric
from gpunn.optimizers import Optimizer
from gpunn.regularization import ClipNorm, ClipValue, Regularization, as_list
from gpunn.schedules import ReduceOnPlateau
from gpunn.training.callbacks import Callback, as_callbacks
from gpunn.training.stopping import (
    EarlyStopping,
    GradientTolerance,
    Monitor,
    Stopping,
    as_criteria,
    improvement,
    monitored,
)
from gpunn.value import Value

EPOCHS = 20  # if neither epochs nor steps are given
SAMPLING = ("shuffle", "replacement", "sequential")
TRUE_OR_FALSE = (True, False)


@dataclass(frozen=True)
class Options:
    """The arguments of `Network.fit` except the data; its docstring describes them.

    Each is converted to its type here, or an error says what is wrong.
    """

    loss: Loss
    optimizer: Optimizer
    epochs: int | None
    steps: int | None
    batch_size: int
    validation: float | tuple[Any, ...] | None  # a fraction, or a set
    folds: tuple[Any, ...] | None
    metrics: Mapping[str, Metric]
    stopping: tuple[Stopping, ...]
    callbacks: tuple[Callback, ...]
    sampling: str
    sample_weight: Any
    class_weight: str | Mapping[Any, Any] | None
    regularization: tuple[Regularization, ...]
    clip_norm: Any
    clip_value: Any
    accumulate: int
    drop_last: bool
    plateau: ReduceOnPlateau | None
    keep: str
    checkpoint: Any
    every: int
    every_steps: int | None
    resume: Any
    deterministic: bool
    memory: int | None
    progress: bool | None

    def __post_init__(self) -> None:
        choice("fit deterministic", self.deterministic, TRUE_OR_FALSE)
        self._set("loss", checked_loss("fit loss", self.loss))
        check_optimizer(self.optimizer)
        choice("fit keep", self.keep, ("best", "last"))
        self._check_plateau()
        for name in ("batch_size", "accumulate", "every"):
            self._set(name, whole(f"fit {name}", getattr(self, name)))
        for name in ("epochs", "steps", "every_steps", "memory"):
            if getattr(self, name) is not None:
                self._set(name, whole(f"fit {name}", getattr(self, name)))
        choice("fit drop_last", self.drop_last, TRUE_OR_FALSE)
        choice("fit sampling", self.sampling, SAMPLING)
        choice("progress", self.progress, (None, *TRUE_OR_FALSE))
        self._check_length()
        self._set("validation", _validation(self.validation))
        self._check_class_weight()
        if self.folds is not None:  # it may be a generator
            self._set("folds", tuple(self.folds) if isinstance(self.folds, Iterable) else ())
        self._set("regularization", as_list(self.regularization))
        for kind, limit in ((ClipValue, self.clip_value), (ClipNorm, self.clip_norm)):
            if limit is not None:
                kind(limit)
        self._set("metrics", metrics.resolve(self.metrics))
        self._set("stopping", as_criteria(self.stopping))
        self._set("callbacks", as_callbacks(self.callbacks))
        self._check_metrics()
        for criterion in self.stopping:
            criterion.check(self.measured)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_plateau(self) -> None:
        if not (self.plateau is None or isinstance(self.plateau, ReduceOnPlateau)):
            raise ConfigurationError(
                "fit plateau",
                expected="gn.schedules.ReduceOnPlateau(...)",
                got=repr(self.plateau),
                fix="make one, or leave it out",
            )

    def _check_length(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ConfigurationError(
                "fit", expected="epochs= or steps=", got="both", fix="leave one out: an epoch is one pass over the data"
            )

    def _check_class_weight(self) -> None:
        if isinstance(self.class_weight, str):
            choice("fit class_weight", self.class_weight, ("balanced",))
        elif not (self.class_weight is None or isinstance(self.class_weight, Mapping)):
            raise ConfigurationError(
                "fit class_weight",
                expected='"balanced" or a dict of classes and weights',
                got=repr(self.class_weight),
                fix="pass one of them",
            )

    def _check_metrics(self) -> None:
        whole_set = [name for name, metric in self.metrics.items() if metric.whole]
        if whole_set and not self.validates:
            raise ConfigurationError(
                f"fit metrics {', '.join(whole_set)}",
                expected="validation= or folds=, of which such figures of a whole set are made",
                got="neither",
                fix="pass validation=0.2, or measure them afterwards with evaluate",
            )

    # What follows from the options

    @property
    def validates(self) -> bool:
        """Whether there is a held-out set."""
        return self.validation is not None or self.folds is not None

    @cached_property
    def metrics_by_row(self) -> dict[str, Metric]:
        """The metrics that are also measured on the training set, during the epoch."""
        return {name: metric for name, metric in self.metrics.items() if not metric.whole}

    @property
    def measures_gradient(self) -> bool:
        return any(isinstance(criterion, GradientTolerance) for criterion in self.stopping)

    @property
    def measured(self) -> list[str]:
        """The names in the record of an epoch, for stopping criteria."""
        held_out = [f"validation_{name}" for name in ("loss", *self.metrics) if self.validates]
        return ["loss", *self.metrics_by_row, *held_out, "seconds", *["gradient_norm"] * self.measures_gradient]

    @property
    def monitor(self) -> Monitor:
        """The figure that decides which weights are the best: EarlyStopping's, or else the (validation) loss."""
        early = next((criterion for criterion in self.stopping if isinstance(criterion, EarlyStopping)), None)
        if early is None:
            return improvement(monitored(self.measured))
        return improvement(early.monitored(self.measured), early.mode)

    def length(self, updates: int) -> tuple[int, int]:
        """Updates and epochs of the training, if an epoch has this many updates."""
        if self.steps is not None:
            return self.steps, math.ceil(self.steps / updates)
        epochs = EPOCHS if self.epochs is None else self.epochs
        return epochs * updates, epochs


def check_optimizer(optimizer: Any) -> None:
    """Raise an error unless it is an optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise ConfigurationError(
            "fit optimizer",
            expected="an optimizer such as gn.Adam(1e-3)",
            got=repr(optimizer),
            fix="make one, with its parentheses" if isinstance(optimizer, type) else _named_optimizer(optimizer),
        )


def _named_optimizer(given: Any) -> str:
    names = {name.lower(): name for family, name in Value.known if family == Optimizer.family}
    name = names.get(given.lower()) if isinstance(given, str) else None
    return f"write gn.{name}(1e-3)" if name else "pass one of gpunn's optimizers"


def _validation(given: Any) -> float | tuple[Any, ...] | None:
    """The fraction to hold out, or the validation set."""
    if given is None:
        return None
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return number("fit validation", given, low=0.0, high=1.0, open_low=True, open_high=True)
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise ConfigurationError(
            "fit validation",
            expected="(X, y), (X, y, weight) or a fraction",
            got=type(given).__name__,
            fix="pass validation=(Xv, yv) or validation=0.2",
        )
    return tuple(given)
