"""Regression with scikit-learn's interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if

from gpunn.backends.reference.backend import Backend
from gpunn.data.targets import Target
from gpunn.errors import ConfigurationError, DataError
from gpunn.estimators import inputs, naming
from gpunn.estimators.base import MultilayerPerceptron, has_partial_fit
from gpunn.estimators.objectives import AbsoluteErrors, HalfSquaredErrors, Hubers, PoissonDeviances
from gpunn.losses import AbsoluteError, Huber, Loss, SquaredError
from gpunn.types import Array

# By name: the loss that is minimised, and the loss of the trained network.
LOSSES: dict[str, tuple[Loss, Loss]] = {
    "squared_error": (HalfSquaredErrors(), SquaredError()),
    "poisson": (PoissonDeviances(), PoissonDeviances()),
    "absolute_error": (AbsoluteErrors(), AbsoluteError()),
    "huber": (Hubers(), Huber()),
}


def determination(y: Array, predicted: Array, weight: Array | None) -> float:
    """The same number as r2_score, which spends more time on checks than an epoch of a small set takes."""
    y = y.reshape(predicted.shape).astype(np.float64)
    spread = np.average(np.square(y - np.average(y, axis=0, weights=weight)), axis=0, weights=weight)
    missed = np.average(np.square(y - predicted), axis=0, weights=weight)
    constant = spread == 0.0
    return float(np.mean(np.where(constant, missed == 0.0, 1.0 - missed / np.where(constant, 1.0, spread))))


@dataclass(eq=False, repr=False)
class MLPRegressor(RegressorMixin, MultilayerPerceptron):  # type: ignore[misc]  # scikit-learn has no types
    """scikit-learn's MLPRegressor: its parameters, defaults and attributes, its random numbers and so its results.

    In addition: `loss` "absolute_error", "huber" or any gpunn loss of numbers, and what `MLPClassifier` adds. As in
    scikit-learn, the sum of the loss over an example's outputs is minimised, and for "squared_error" their mean is
    reported. With "poisson", the outputs are logarithms of means: `network_` predicts these logarithms.
    """

    loss: Any = "squared_error"
    hidden_layer_sizes: Any = (100,)
    activation: Any = "relu"

    numeric: ClassVar[bool] = True

    def _losses(self) -> tuple[Loss, Loss]:
        if isinstance(self.loss, Loss) and self.loss.target == "numbers":
            return self.loss, self.loss
        if not isinstance(self.loss, str) or self.loss not in LOSSES:
            raise ConfigurationError(
                "loss",
                expected=f"one of {', '.join(LOSSES)}, or a loss of numbers such as gn.Huber(2.0)",
                got=repr(self.loss),
                fix="choose one of them",
            )
        return LOSSES[self.loss]

    def _objective(self) -> Loss:
        return self._losses()[0]

    def _public_loss(self) -> Loss:
        return self._losses()[1]

    @property
    def _reports_mean(self) -> bool:
        return self._objective() == HalfSquaredErrors()

    @property
    def _exponential(self) -> bool:
        return isinstance(self._objective(), PoissonDeviances)

    def _learn_targets(self, y: Array, ops: Backend, *, first: bool, partly: bool) -> None:
        outputs = 1 if y.ndim == 1 else y.shape[1]
        self._objective()
        if first:
            self.n_outputs_, self.out_activation_ = outputs, "exp" if self._exponential else "identity"
            self._flat = outputs == 1
        if outputs != self.n_outputs_:
            raise DataError(
                "y",
                expected=f"{self.n_outputs_} outputs, as in the first fit",
                got=f"{outputs}",
                fix="fit a new estimator",
            )
        if self._exponential and float(y.min()) < 0.0:
            raise DataError(
                "y", expected="counts >= 0 for loss='poisson'", got=f"{float(y.min()):g}", fix="use another loss"
            )

    def _targets(self, y: Array, ops: Backend) -> Array:
        if isinstance(y, np.ndarray) and y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return y.reshape(y.shape[0], -1)

    def _target_to_save(self, name: str) -> Target | None:
        return None if self._exponential else naming.quantities(name, self.n_outputs_)

    def _score_outputs(self, outputs: Array, y: Array, weight: Array | None) -> float:
        with np.errstate(over="ignore"):
            predicted = np.exp(outputs) if self._exponential else outputs
        return determination(y, predicted, weight) if np.isfinite(predicted).all() else float("nan")

    @available_if(has_partial_fit)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """One epoch over X and y.

        With early_stopping, the validation set is validation_data, or a part of the first call's data. If the score
        has not grown for more than n_iter_no_change calls, the best weights are restored, and later calls do nothing.
        """
        return self._fit(X, y, sample_weight, partly=True)

    def predict(self, X: Any) -> Any:
        """A number for each row of X, or several."""
        Z = self._outputs(X, "predict")
        if self._exponential:
            with np.errstate(over="ignore"):
                Z = np.exp(Z) if isinstance(Z, np.ndarray) else self.network_.ops.xp.exp(Z)
        return inputs.returned(Z[:, 0] if self.n_outputs_ == 1 else Z, X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R²: 1 minus the share of y's variance that is not predicted."""
        return self._scored(super().score, r2_score, X, y, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
