"""What both estimators share: parameters, fitting, and the attributes of scikit-learn's estimators."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from gpunn.backends import get_backend
from gpunn.backends.reference.backend import Backend
from gpunn.data.targets import Target
from gpunn.errors import ConfigurationError, DataError
from gpunn.estimators import inputs, naming, parameters
from gpunn.estimators.fitting import (
    Problem,
    check_finite_weights,
    examples,
    fit_by_batches,
    fit_by_scipy,
    rows_of,
)
from gpunn.estimators.memory import Memory
from gpunn.estimators.training import Validation
from gpunn.losses import Loss
from gpunn.memory import memory_errors
from gpunn.network import Network
from gpunn.types import Array

CURVES = ("loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "validation_loss_curve_")


def has_partial_fit(estimator: Any) -> bool:
    """Whether the estimator has partial_fit; raises AttributeError if not."""
    if parameters.by_batches(estimator):
        return True
    raise AttributeError("partial_fit is there for training by batches; L-BFGS needs the whole set at once")


@dataclass(eq=False, repr=False)
class MultilayerPerceptron(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The parameters of both, by keyword only: first those of scikit-learn, then those that gpunn adds."""

    _: KW_ONLY
    solver: Any = "adam"
    alpha: Any = 0.0001
    batch_size: Any = "auto"
    learning_rate: Any = "constant"
    learning_rate_init: Any = 0.001
    power_t: Any = 0.5
    max_iter: Any = 200
    shuffle: Any = True
    random_state: Any = None
    tol: Any = 1e-4
    verbose: Any = False
    warm_start: Any = False
    momentum: Any = 0.9
    nesterovs_momentum: Any = True
    early_stopping: Any = False
    validation_fraction: Any = 0.1
    beta_1: Any = 0.9
    beta_2: Any = 0.999
    epsilon: Any = 1e-8
    n_iter_no_change: Any = 10
    max_fun: Any = 15000
    device: Any = "auto"
    dtype: Any = None
    dropout: Any = 0.0
    batch_norm: Any = False
    input_noise: Any = 0.0
    optimizer: Any = None
    schedule: Any = None
    validation_data: Any = None
    callbacks: Any = None

    numeric: ClassVar[bool]  # whether y is numbers rather than classes

    # What each of the two defines

    def _objective(self) -> Loss:
        """What is minimised."""
        raise NotImplementedError

    def _public_loss(self) -> Loss:
        """The loss that the trained network has."""
        raise NotImplementedError

    @property
    def _reports_mean(self) -> bool:
        """Whether the reported loss is the mean over the outputs, while the sum over them is minimised."""
        return False

    def _learn_targets(self, y: Array, ops: Backend, *, first: bool, partly: bool) -> None:
        """Learn the kind of targets in the first fit; later, refuse targets of another kind."""
        raise NotImplementedError

    def _targets(self, y: Array, ops: Backend) -> Array:
        """y in the form that the objective takes."""
        raise NotImplementedError

    def _sample_weights(self, y: Array, weight: Array | None, ops: Backend, partly: bool) -> Array | None:
        return weight

    def _target_to_save(self, name: str) -> Target | None:
        """How the outputs are decoded, for a network that is saved by itself; `name` is the target's."""
        raise NotImplementedError

    def _score_outputs(self, outputs: Array, y: Array, weight: Array | None) -> float:
        """The score for early stopping; all arrays are on the host."""
        raise NotImplementedError

    # Fitting

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on X (n, features) and y, from new weights unless warm_start."""
        return self._fit(X, y, sample_weight, partly=False)

    @memory_errors("memory")
    def _fit(self, X: Any, y: Any, sample_weight: Any, *, partly: bool) -> Any:
        parameters.check(self)
        first = not hasattr(self, "network_") or not (partly or self.warm_start)
        ops = inputs.backend_of(self.device, X) if first else self.network_.ops
        like = inputs.like(X, ops)
        X, y = inputs.checked_pair(self, X, y, ops, reset=first, numeric=self.numeric)
        weight = None if sample_weight is None else inputs.checked_sample_weights(sample_weight, X.shape[0], ops)
        self._learn_targets(y, ops, first=first, partly=partly)
        weight, y = self._sample_weights(y, weight, ops, partly), self._targets(y, ops)
        random = check_random_state(self.random_state)
        network = self._new_network(X, ops, random) if first else self.network_
        with network.uses.training("partial_fit" if partly else "fit"):  # a predict in another thread raises an error
            if first:
                self._begin(network, like)
            else:
                self._refuse_other_layers()
            if not partly:
                self._memory.forget_steps()
            if not (self._memory.rules.ended and self.early_stopping):
                self._memory.rules.ended = False
                self._train(X, y, weight, random, partly)
        return self

    def _new_network(self, X: Array, ops: Backend, random: Any) -> Network:
        """A network with new weights."""
        narrow = X.dtype == np.float32 and (self.optimizer is not None or self.solver != "lbfgs")
        noisy = self.input_noise or any(parameters.dropouts(self))
        # Drawn from a copy, so that all later random numbers are those of scikit-learn.
        seed = int(copy.deepcopy(random).randint(2**31 - 1)) if noisy else 0
        network = Network(
            parameters.layers_of(self, self.n_outputs_), X.shape[1], device=ops,
            dtype=self.dtype or ("float32" if narrow else "float64"), seed=seed,
        )  # fmt: skip
        network.preprocessing = naming.preprocessing(self)
        network.columns = tuple(naming.feature_names(self)) if hasattr(self, "feature_names_in_") else None
        parameters.draw_weights(self, network, random)
        return network

    def _begin(self, network: Network, like: Any) -> None:
        """Start to train this network, with no epochs so far."""
        self.network_, self._like = network, like
        self.n_layers_ = len(parameters.widths(self)) + 2
        self._memory = Memory(parameters.update_rules(self, None))
        for name in CURVES:
            self.__dict__.pop(name, None)

    def _refuse_other_layers(self) -> None:
        layers = tuple(parameters.layers_of(self, self.n_outputs_))
        if layers != self.network_.network.layers:
            raise ConfigurationError(
                "warm_start and partial_fit",
                expected=f"the layers that there are, {list(self.network_.network.layers)}",
                got=f"parameters for {list(layers)}",
                fix="fit with warm_start=False for other layers",
            )

    def _train(self, X: Any, y: Array, weight: Array | None, random: Any, partly: bool) -> None:
        network, memory, loss = self.network_, self._memory, self._objective()
        parameters.update_rules(self, memory.rules)
        problem = Problem(network, loss, self.n_outputs_ if self._reports_mean else 1)
        scipys = self.optimizer is None and self.solver == "lbfgs"
        held_out = None if scipys else self._held_out(partly)
        if held_out is None and self.early_stopping and not scipys:
            (X, y, weight), held_out = self._split(X, y, weight, random)
            memory.held_out = held_out if partly else None
        data = examples(problem, X, y, weight)
        stopped = ""
        if scipys:
            self.loss_, self.n_iter_ = fit_by_scipy(self, problem, data)
            self.t_ = 0
        else:
            validation = None if held_out is None else self._validation(problem, *held_out)
            self.history_ = fit_by_batches(self, problem, data, validation, memory, random, once=partly)
            self._set_results(validation is not None)
            stopped = self.history_.stopped
        network.loss = self._public_loss()
        check_finite_weights(network, stopped)

    def _split(self, X: Any, y: Array, weight: Array | None, random: Any) -> tuple[Any, Any]:
        """The rows to train on, and those for early stopping: the same rows as scikit-learn's."""
        ops = self.network_.ops
        classes = None
        if not self.numeric and self.n_outputs_ == 1:  # scikit-learn stratifies two classes only
            classes = ops.to_host(y) if ops.owns(y) else y
        places_of_both = train_test_split(
            np.arange(X.shape[0]), random_state=random, test_size=self.validation_fraction, stratify=classes
        )
        if len(places_of_both[1]) < 2:
            raise DataError(
                "validation_fraction",
                expected="at least 2 examples to validate on",
                got=f"{len(places_of_both[1])} of {X.shape[0]}",
                fix="raise it, pass validation_data, or fit more examples",
            )
        kept, held_out = (tuple(rows_of(array, places, ops) for array in (X, y, weight)) for places in places_of_both)
        return kept, held_out

    def _held_out(self, partly: bool) -> tuple[Any, ...] | None:
        """The validation set that the caller gave, or that an earlier partial_fit held out."""
        if self.validation_data is None:
            return self._memory.held_out if partly else None
        given = self.validation_data
        if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
            raise ConfigurationError(
                "validation_data",
                expected="(X, y) or (X, y, weight)",
                got=type(given).__name__,
                fix="pass a tuple, or early_stopping=True alone to hold a part of the training set back",
            )
        ops = self.network_.ops
        X, y = inputs.checked_pair(self, given[0], given[1], ops, reset=False, numeric=self.numeric)
        weight = inputs.checked_sample_weights(given[2], X.shape[0], ops) if len(given) == 3 else None
        self._learn_targets(y, ops, first=False, partly=True)
        return X, self._targets(y, ops), weight

    def _validation(self, problem: Problem, X: Any, y: Array, weight: Array | None) -> Validation:
        data, ops = examples(problem, X, y, weight), self.network_.ops
        host, host_weight = ops.to_host(data.y), None if weight is None else ops.to_host(data.weight)[:, 0]
        return Validation(
            self.network_, data.X, data.y, data.weight, problem.loss,
            lambda outputs: self._score_outputs(outputs, host, host_weight),
        )  # fmt: skip

    def _set_results(self, validated: bool) -> None:
        """Set the attributes that scikit-learn's estimators have after training by epochs."""
        rules = self._memory.rules
        self.n_iter_, self.t_ = self.history_.epochs, rules.seen
        self.loss_curve_ = rules.losses
        self.loss_ = rules.losses[-1] if rules.losses else np.inf
        self.best_loss_ = None if self.early_stopping else rules.best_loss
        self.validation_scores_ = rules.scores if validated else None
        self.validation_loss_curve_ = rules.validation_losses if validated else None
        self.best_validation_score_ = rules.best_score if validated else None

    # Results

    @property
    def coefs_(self) -> list[Array]:
        """The weights of each layer, (in, out); on the CPU, views to write to."""
        return [self._parameter(name, "W") for name in self._dense_names()]

    @property
    def intercepts_(self) -> list[Array]:
        """The biases of each layer, (out,)."""
        return [self._parameter(name, "b").reshape(-1) for name in self._dense_names()]

    def _dense_names(self) -> list[str]:
        if "network_" not in vars(self):
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        return parameters.dense_names(self.network_)

    def _parameter(self, layer: str, name: str) -> Array:
        """A view of a parameter; on the host, unless the estimator was fitted on arrays of a device."""
        view = self.network_.parameters[f"{layer}.{name}"]
        return self.network_.ops.to_host(view) if self._like is not None and not isinstance(view, np.ndarray) else view

    @memory_errors("memory")
    def _outputs(self, X: Any, method: str) -> Array:
        """The outputs of the last layer, without its activation."""
        check_is_fitted(self)
        inputs.check_like(self, X, method)
        X = inputs.checked_inputs(self, X, self.network_.ops, reset=False)
        if not sparse.issparse(X):
            return self.network_.predict(X)
        chunk = self.network_.chunk(None)
        starts = range(0, X.shape[0], chunk)
        return np.concatenate([self.network_.predict(X[start : start + chunk].toarray()) for start in starts])

    def _scored(self, on_host: Any, metric: Any, X: Any, y: Any, weight: Any) -> float:
        """scikit-learn's own `score`; for arrays on a GPU, which are fetched, the metric that it uses."""
        ops = self.network_.ops if "network_" in vars(self) else get_backend("cpu")
        if not inputs.on_gpu(X, ops):
            return float(on_host(X, y, weight))
        truth, predicted, weights = (inputs.fetched(array, ops) for array in (y, self.predict(X), weight))
        return float(metric(truth, predicted, sample_weight=weights))

    def __getstate__(self) -> dict[str, Any]:
        """A pickle has all arrays on the host; the network does that by itself."""
        state: dict[str, Any] = super().__getstate__()
        if "_memory" in state:
            state["_memory"] = self._memory.on_host(self.network_.ops)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.array_api_support = True
        return tags
