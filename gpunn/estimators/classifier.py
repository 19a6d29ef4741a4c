"""Classification with scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from gpunn.backends import get_backend
from gpunn.backends.reference.backend import Backend
from gpunn.data.targets import Target
from gpunn.errors import ConfigurationError, DataError
from gpunn.estimators import inputs, naming
from gpunn.estimators.base import MultilayerPerceptron, has_partial_fit
from gpunn.estimators.objectives import BinaryCrossEntropies
from gpunn.hyper import number
from gpunn.layers.activation import resolve
from gpunn.losses import BinaryCrossEntropy, CrossEntropy, Loss
from gpunn.types import Array


@dataclass(eq=False, repr=False)
class MLPClassifier(ClassifierMixin, MultilayerPerceptron):  # type: ignore[misc]  # scikit-learn has no types
    """scikit-learn's MLPClassifier: its parameters, defaults and attributes, its random numbers and so its results.

    In addition: `device` ("auto" is where X lies, else the first GPU, else the CPU), `dtype` (None: that of X), every
    gpunn activation, `dropout` (one rate or one a hidden layer), `batch_norm`, `input_noise`, `loss` (a gn.CrossEntropy
    or gn.BinaryCrossEntropy), `optimizer` (in place of `solver`), `schedule` (in place of its rate), `class_weight`,
    `validation_data`, `callbacks`; early stopping in partial_fit too; `network_`, `history_`, `validation_loss_curve_`.
    A CuPy X is used on its GPU, and predictions for it are CuPy arrays.
    """

    hidden_layer_sizes: Any = (100,)
    activation: Any = "relu"
    _: KW_ONLY
    loss: Any = "log_loss"
    class_weight: Any = None

    numeric: ClassVar[bool] = False

    # Labels

    def _learn_targets(self, y: Array, ops: Backend, *, first: bool, partly: bool) -> None:
        on_device = not isinstance(y, np.ndarray)
        labels, several = _labels_on_device(y, ops) if on_device else _labels(y)
        if first and not partly:
            self._set_classes(labels, several)
        unknown = np.setdiff1d(labels, self.classes_)
        missing: Any = [] if partly or first else np.setdiff1d(self.classes_, labels)
        if several != self._several or len(unknown) or len(missing):
            raise DataError(
                "y",
                expected=f"the classes of the first fit, {_text_of(self.classes_)}",
                got="another kind of target" if several != self._several else _text_of(labels),
                fix="fit a new estimator, or name all classes in the first call of partial_fit",
            )

    def _set_classes(self, classes: Any, several: bool) -> None:
        """Keep the classes, and choose the outputs for them."""
        self.classes_, self._several = classes, several
        loss = self._given_loss()
        if several:
            self.n_outputs_, self.out_activation_ = len(classes), "logistic"
        elif len(classes) > 2 or isinstance(loss, CrossEntropy):
            self.n_outputs_, self.out_activation_ = max(len(classes), 2), "softmax"
        else:
            self.n_outputs_, self.out_activation_ = 1, "logistic"
        wanted = CrossEntropy if self.out_activation_ == "softmax" else BinaryCrossEntropy
        if loss is not None and not isinstance(loss, wanted):
            raise ConfigurationError(
                "loss",
                expected=f"gn.{wanted.__name__}() for this target, or 'log_loss'",
                got=repr(loss),
                fix="leave it out",
            )

    def _given_loss(self) -> Loss | None:
        if isinstance(self.loss, str) and self.loss == "log_loss":
            return None
        if not isinstance(self.loss, (CrossEntropy, BinaryCrossEntropy)):
            raise ConfigurationError(
                "loss",
                expected="'log_loss', gn.CrossEntropy(...) or gn.BinaryCrossEntropy()",
                got=repr(self.loss),
                fix="choose one of them",
            )
        return self.loss

    def _codes(self, y: Array, ops: Backend) -> Array:
        """The index of each label in `classes_`."""
        if isinstance(y, np.ndarray):
            return np.searchsorted(self.classes_, y)
        return (y[:, None] == ops.from_host(self.classes_)).argmax(axis=1)

    def _targets(self, y: Array, ops: Backend) -> Array:
        if self._several:
            return y
        codes = self._codes(y.reshape(-1), ops)
        return codes if self.out_activation_ == "softmax" else codes[:, None]

    def _sample_weights(self, y: Array, weight: Array | None, ops: Backend, partly: bool) -> Array | None:
        """The weight of each example times that of its class; "balanced" gives every class the same sum."""
        if self.class_weight is None:
            return weight
        by_class = self._class_weights(y, ops, partly)
        codes = self._codes(y.reshape(-1), ops)
        weights = by_class[codes] if isinstance(codes, np.ndarray) else ops.from_host(by_class)[codes]
        if weight is None:
            return weights
        return weights * (ops.from_host(weight) if ops.owns(weights) and not ops.owns(weight) else weight)

    def _class_weights(self, y: Array, ops: Backend, partly: bool) -> np.ndarray[Any, Any]:
        known = self.class_weight
        balanced = isinstance(known, str) and known == "balanced"
        if self._several or not (isinstance(known, Mapping) or (balanced and not partly)):
            raise ConfigurationError(
                "class_weight",
                expected="a dict of classes and weights" + ("" if partly else ', or "balanced"'),
                got="several labels for an example" if self._several else repr(known),
                fix="use sample_weight",
            )
        if isinstance(known, Mapping):
            unknown = [c for c in known if c not in self.classes_.tolist()]
            if unknown:
                raise ConfigurationError(
                    "class_weight",
                    expected=f"some of the classes {_text_of(self.classes_)}",
                    got=repr(unknown[0]),
                    fix="name classes of y",
                )
            return np.array(
                [number(f"class_weight[{c!r}]", known.get(c, 1.0), low=0.0) for c in self.classes_.tolist()]
            )
        codes = self._codes(y.reshape(-1), ops)
        each = codes[:, None] == (np if isinstance(codes, np.ndarray) else ops.xp).arange(len(self.classes_))
        counts = ops.to_host(each.sum(axis=0))
        return np.asarray(counts.sum() / (len(counts) * np.maximum(counts, 1)))

    # Losses, scores and training

    def _objective(self) -> Loss:
        return self._given_loss() or (CrossEntropy() if self.out_activation_ == "softmax" else BinaryCrossEntropies())

    def _public_loss(self) -> Loss:
        return self._given_loss() or (CrossEntropy() if self.out_activation_ == "softmax" else BinaryCrossEntropy())

    def _target_to_save(self, name: str) -> Target | None:
        return None if self._several else naming.classes(name, self.classes_.tolist())

    def _score_outputs(self, outputs: Array, y: Array, weight: Array | None) -> float:
        if not np.isfinite(outputs).all():
            return float("nan")
        right = outputs.argmax(axis=1) == y if self.out_activation_ == "softmax" else ((outputs > 0) == y).all(axis=1)
        return float(np.average(right, weights=weight))

    @available_if(has_partial_fit)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Any:
        """One epoch over X and y; the first call needs all `classes`.

        With early_stopping, the validation set is validation_data, or a part of the first call's data. If the score
        has not grown for more than n_iter_no_change calls, the best weights are restored, and later calls do nothing.
        """
        known = getattr(self, "classes_", None)
        if known is None and classes is None:
            raise ConfigurationError(
                "partial_fit classes",
                expected="all classes in the first call",
                got="None",
                fix="pass classes=np.unique(y_all)",
            )
        given = None
        if classes is not None:
            ops = self.network_.ops if "network_" in vars(self) else inputs.backend_of(self.device, classes)
            given = np.unique(inputs.on_host(inputs.fetched(classes, ops)))
        if known is None:
            shape = getattr(y, "shape", None) or np.shape(y)
            several = len(shape) == 2 and shape[1] > 1
            self._set_classes(np.arange(shape[1]) if several else given, several)
        elif given is not None and not np.array_equal(given, known):
            raise ConfigurationError(
                "partial_fit classes",
                expected=f"the classes of the first call, {_text_of(known)}",
                got=_text_of(given),
                fix="leave them out",
            )
        return self._fit(X, y, sample_weight, partly=True)

    # Predictions

    def predict(self, X: Any) -> Any:
        """The class of each row of X; with several labels for a row, 0 or 1 for each."""
        Z = self._outputs(X, "predict")
        if self._several:
            return inputs.returned((Z > 0).astype(int), X)
        codes = Z.argmax(axis=1) if self.out_activation_ == "softmax" else (Z[:, 0] > 0).astype(int)
        if len(self.classes_) == 1:
            codes = 0 * codes
        if isinstance(codes, np.ndarray):
            return inputs.returned(self.classes_[codes], X)
        if self.classes_.dtype.kind not in "fiub":  # there is no text on a GPU
            return self.classes_[self.network_.ops.to_host(codes)]
        return self.network_.ops.from_host(self.classes_)[codes]

    def predict_proba(self, X: Any) -> Any:
        """The probability of each class, (n, classes), or of each label."""
        return inputs.returned(self._activated("sigmoid", "softmax", X, "predict_proba"), X)

    def predict_log_proba(self, X: Any) -> Any:
        """The logarithm of the probabilities; finite even if a probability is too small for a float."""
        return inputs.returned(self._activated("softplus", "log_softmax", X, "predict_log_proba"), X)

    def _activated(self, of_label: str, of_classes: str, X: Any, method: str) -> Array:
        """The activation of the outputs. Of two classes, the first has output 0; a single class has probability 1."""
        Z = self._outputs(X, method)
        ops = get_backend("cpu") if isinstance(Z, np.ndarray) else self.network_.ops
        logarithm = of_label == "softplus"  # log σ(z) = -softplus(-z)
        if not self._several and Z.shape[1] < max(len(self.classes_), 2):
            both = ops.zeros((Z.shape[0], 2), Z.dtype)
            both[:, 1:] = Z
            Z = both
        Z = Z[:, : len(self.classes_)] if len(self.classes_) < Z.shape[1] else Z
        function = resolve(of_label if self._several else of_classes, method)
        assert function is not None
        P = ops.empty(Z.shape, Z.dtype)
        negative = self._several and logarithm
        function.value(ops, -Z if negative else Z, None, out=P)
        return -P if negative else P

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of rows with the right class."""
        return self._scored(super().score, accuracy_score, X, y, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _labels(y: np.ndarray[Any, Any]) -> tuple[Any, bool]:
    """The classes in y, and whether an example may have several of them."""
    if y.ndim == 1 and y.dtype.kind in "iub":
        return np.unique(y), False
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    check_classification_targets(y)
    if type_of_target(y) == "multiclass-multioutput":
        raise DataError(
            "y",
            expected="one class for each example, or a column of 0 and 1 for each label",
            got=f"several classes in each of {y.shape[1]} columns",
            fix="fit one estimator for each column",
        )
    return unique_labels(y), y.ndim == 2


def _labels_on_device(y: Array, ops: Backend) -> tuple[Any, bool]:
    """The same for an array on the device; only its classes are copied to the host."""
    several = y.ndim == 2 and y.shape[1] > 1
    classes = ops.to_host(ops.xp.unique(y))
    if (classes != np.floor(classes)).any() or (several and not np.isin(classes, (0, 1)).all()):
        raise DataError(
            "y", expected="classes", got="Unknown label type: continuous", fix="pass whole numbers, or use MLPRegressor"
        )
    return (np.arange(y.shape[1]) if several else classes), several


def _text_of(classes: Any) -> str:
    return np.array2string(np.asarray(classes), threshold=10, separator=", ")
