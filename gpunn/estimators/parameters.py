"""An estimator's parameters: their checks, and the layers, first weights, optimizer and rules made of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from gpunn.engine import Engine
from gpunn.errors import ConfigurationError
from gpunn.estimators.rules import Rules
from gpunn.estimators.velocity import Velocity
from gpunn.hyper import choice, instance, number, whole
from gpunn.layers import BatchNorm, Dense, Dropout, GaussianNoise, Layer
from gpunn.layers.activation import Nonlinearity, resolve
from gpunn.optimizers import LBFGS, Adam, Optimizer
from gpunn.schedules import RATE
from gpunn.training.callbacks import as_callbacks

SWITCHES = ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping", "batch_norm")
CHOICES = {"solver": ("adam", "sgd", "lbfgs"), "learning_rate": ("constant", "invscaling", "adaptive")}
POSITIVE: dict[str, Any] = {"low": 0.0, "open_low": True}
BELOW_ONE: dict[str, Any] = {"low": 0.0, "high": 1.0, "open_high": True}
INTERVALS: dict[str, dict[str, Any]] = {
    "alpha": {"low": 0.0}, "learning_rate_init": POSITIVE, "power_t": {"low": 0.0}, "tol": {"low": 0.0},
    "momentum": {"low": 0.0, "high": 1.0}, "validation_fraction": BELOW_ONE, "beta_1": BELOW_ONE, "beta_2": BELOW_ONE,
    "epsilon": POSITIVE, "input_noise": {"low": 0.0},
}  # fmt: skip


def check(e: Any) -> None:
    """Refuse parameters that make no sense, before the data are read."""
    for name, options in CHOICES.items():
        choice(name, getattr(e, name), options)
    for name in SWITCHES:
        value = getattr(e, name)
        choice(name, bool(value) if isinstance(value, np.bool_) else value, (True, False))
    for name, interval in INTERVALS.items():
        number(name, getattr(e, name), **interval)
    whole("max_iter", e.max_iter)
    whole("max_fun", e.max_fun)
    if not (isinstance(e.n_iter_no_change, float) and e.n_iter_no_change == math.inf):
        whole("n_iter_no_change", e.n_iter_no_change)
    if not (isinstance(e.batch_size, str) and e.batch_size == "auto"):
        whole("batch_size", e.batch_size)
    if e.optimizer is not None:
        expected = "one of gpunn's optimizers such as gn.AdamW(1e-3), or None for what solver names"
        instance("optimizer", e.optimizer, Optimizer, expected=expected, fix="make one, with its parentheses")
    if e.schedule is not None:
        RATE("schedule", e.schedule)
    as_callbacks(e.callbacks)
    widths(e)
    dropouts(e)
    activation_of(e)


def widths(e: Any) -> list[int]:
    """The number of units of each hidden layer."""
    sizes = e.hidden_layer_sizes
    return [whole("hidden_layer_sizes", size) for size in (sizes if isinstance(sizes, Iterable) else [sizes])]


def dropouts(e: Any) -> list[float]:
    """The dropout rate of each hidden layer; the parameter is one for all, or one for each."""
    given = list(e.dropout) if isinstance(e.dropout, Iterable) else [e.dropout] * len(widths(e))
    if len(given) != len(widths(e)):
        raise ConfigurationError(
            "dropout",
            expected=f"one rate, or one for each of {len(widths(e))} hidden layers",
            got=f"{len(given)} rates",
            fix="give as many as hidden_layer_sizes has",
        )
    return [number("dropout", rate, **BELOW_ONE) for rate in given]


def activation_of(e: Any) -> Nonlinearity:
    """The hidden layers' activation; scikit-learn's "logistic" is the sigmoid."""
    name = "sigmoid" if isinstance(e.activation, str) and e.activation == "logistic" else e.activation
    found = resolve(name, "activation")
    if found is None:
        raise ConfigurationError(
            "activation", expected="a name or an activation", got="None", fix='use "identity" for linear layers'
        )
    return found


def layers_of(e: Any, outputs: int) -> list[Layer]:
    """Noise on the inputs, hidden layers, each with batch normalisation and dropout, and the outputs."""
    activation = activation_of(e)
    layers: list[Layer] = [GaussianNoise(e.input_noise)] if e.input_noise else []
    for units, rate in zip(widths(e), dropouts(e)):
        layers.append(Dense(units, None if e.batch_norm else activation))
        layers += [BatchNorm(activation=activation)] if e.batch_norm else []
        layers += [Dropout(rate)] if rate else []
    return [*layers, Dense(outputs)]


def dense_names(network: Engine) -> list[str]:
    """The names of the dense layers in the network's parameters."""
    return [str(i) for i, layer in enumerate(network.network.layers) if isinstance(layer, Dense)]


def draw_weights(e: Any, network: Engine, random: np.random.RandomState) -> None:
    """Draw from Glorot's uniform distribution, with the random numbers of scikit-learn in the same order."""
    factor = 2.0 if activation_of(e).name == "sigmoid" else 6.0
    ops = network.ops
    for name in dense_names(network):
        W, b = network.parameters[f"{name}.W"], network.parameters[f"{name}.b"]
        bound = np.sqrt(factor / (W.shape[0] + W.shape[1]))
        for view in (W, b):
            ops.copy(ops.from_host(random.uniform(-bound, bound, view.shape), network.dtype), out=view)


def optimizer_of(e: Any) -> Optimizer:
    """The `optimizer`, or by default that of `solver`; with the rate of `schedule`, if there is one."""
    if e.optimizer is not None:
        given: Optimizer = e.optimizer
        return given if e.schedule is None else replace(given, rate=e.schedule)
    rate = e.learning_rate_init if e.schedule is None else e.schedule
    if e.solver == "sgd":
        return Velocity(rate, e.momentum, bool(e.nesterovs_momentum))
    return Adam(rate, (e.beta_1, e.beta_2), e.epsilon, epsilon="hat")


def by_batches(e: Any) -> bool:
    """Whether training is by batches; L-BFGS takes the whole set."""
    return not isinstance(e.optimizer, LBFGS) if e.optimizer is not None else e.solver != "lbfgs"


def update_rules(e: Any, rules: Rules | None) -> Rules:
    """The rules with the present values of the parameters, and with the state of earlier calls."""
    is_sgd = e.optimizer is None and e.solver == "sgd"
    rules = rules or Rules(False, 0.0, 0.0, 0.0)
    rules.early_stopping, rules.tolerance, rules.patience = bool(e.early_stopping), e.tol, e.n_iter_no_change
    rules.power = e.power_t if is_sgd and e.learning_rate == "invscaling" else None
    rules.adaptive, rules.rate = is_sgd and e.learning_rate == "adaptive", e.learning_rate_init
    rules.verbose = bool(e.verbose)
    return rules
