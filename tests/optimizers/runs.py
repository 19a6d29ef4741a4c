"""A problem to optimize on any backend, and the optimizers that the tests go through."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from gpunn import optimizers as o
from gpunn import schedules
from gpunn.initializers import Gaussian
from gpunn.optimizers.base import Optimizer, OptimizerFrame
from gpunn.parameters import Parameter, ParameterStore
from gpunn.per_model import PerModel
from gpunn.schedules import table

# Every optimizer in every form that has a path of its own.
FORMS: dict[str, Optimizer] = {
    "SGD": o.SGD(0.1),
    "SGD decay": o.SGD(0.1, weight_decay=0.3),
    "SGD momentum": o.SGD(0.05, momentum=0.8, weight_decay=0.1),
    "SGD dampening": o.SGD(0.05, momentum=0.8, dampening=0.4),
    "SGD nesterov": o.SGD(0.05, momentum=0.8, nesterov=True, weight_decay=0.1),
    "Adagrad": o.Adagrad(0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.2),
    "Adagrad plain": o.Adagrad(0.1),
    "Adadelta": o.Adadelta(0.7, rho=0.8, weight_decay=0.1),
    "RMSprop": o.RMSprop(0.02, alpha=0.9, weight_decay=0.1),
    "RMSprop momentum": o.RMSprop(0.02, alpha=0.9, momentum=0.5),
    "RMSprop centered": o.RMSprop(0.02, alpha=0.9, centered=True),
    "RMSprop both": o.RMSprop(0.02, alpha=0.9, centered=True, momentum=0.5, weight_decay=0.1),
    "Adam": o.Adam(0.02, betas=(0.8, 0.95), weight_decay=0.1),
    "Adam hat": o.Adam(0.02, betas=(0.8, 0.95), eps=1e-3, epsilon="hat"),
    "Adam amsgrad": o.Adam(0.02, betas=(0.8, 0.95), amsgrad=True),
    "AdamW": o.AdamW(0.02, betas=(0.8, 0.95), weight_decay=0.3),
    "Adamax": o.Adamax(0.02, betas=(0.8, 0.95), weight_decay=0.1),
    "NAdam": o.NAdam(0.02, betas=(0.8, 0.95), momentum_decay=0.01, weight_decay=0.1),
    "NAdam decoupled": o.NAdam(0.02, weight_decay=0.3, decoupled_weight_decay=True),
    "RAdam": o.RAdam(0.02, betas=(0.8, 0.95), weight_decay=0.1),
    "RAdam decoupled": o.RAdam(0.02, weight_decay=0.3, decoupled_weight_decay=True),
    "Lion": o.Lion(0.01, betas=(0.8, 0.95), weight_decay=0.3),
}
SHAPES = {"0.W": (5, 3), "0.b": (1, 3), "1.W": (3, 4)}


def new_store(backend: Any, dtype: str = "float64", models: int | None = None, seed: int = 7) -> ParameterStore:
    """Two matrices that decay and a row that does not; member k of a population starts as the network of seed + k."""
    seeds = (seed,) if models is None else tuple(range(seed, seed + models))
    parameters = {n: Parameter(shape, Gaussian(1.0), decay=not n.endswith("b")) for n, shape in SHAPES.items()}
    return ParameterStore(parameters, {}, backend, dtype, seeds, models)


def flat(backend: Any, store: ParameterStore) -> np.ndarray:
    """All parameters of each model in one row, without padding: the same in every dtype."""
    lead = () if store.models is None else (store.models,)
    return np.concatenate([backend.to_host(store.views[n]).reshape(*lead, -1) for n in SHAPES], axis=-1)


def gradient(W: np.ndarray, step: int) -> np.ndarray:
    """Of a bowl whose bottom wanders, so that gradients neither vanish nor repeat."""
    phase = np.arange(W.shape[-1])
    return (1.0 + 0.5 * np.cos(phase)) * (W - np.sin(phase + 0.7 * step))


def write(backend: Any, source: np.ndarray, out: Any) -> None:
    backend.copy(backend.from_host(np.ascontiguousarray(source)), out=out)


def before_step(backend: Any, t: OptimizerFrame, step: int) -> None:
    """What the training loop does before an update: gradient, rate and count."""
    store = t.store
    g, start = gradient(flat(backend, store).astype(np.float64), step), 0
    for name in SHAPES:
        view = store.gradient_views[name]
        size = math.prod(SHAPES[name])
        write(backend, g[..., start : start + size].reshape(view.shape), view)
        start += size
    rate = table(t.optimizer.rate, step, 1, store.models).reshape(-1, 1)
    write(backend, rate if store.models else rate[0], t.rate)
    write(backend, np.full(1, step + 1.0), t.count)


def trajectory(backend: Any, optimizer: Optimizer, store: ParameterStore, steps: int) -> np.ndarray:
    """All parameters after each step."""
    t = OptimizerFrame(backend, store, optimizer)
    found = []
    for step in range(steps):
        before_step(backend, t, step)
        optimizer.update(t)
        found.append(flat(backend, store))
    return np.stack(found)


def several(optimizer: Optimizer) -> Optimizer:
    """The same with numbers for each of three models, all different, and a schedule among the rates."""
    numbers: dict[str, Any] = {"rate": (0.01, schedules.Power(0.05, 0.5), 0.03)}
    for name, rule in optimizer.field_rules.items():
        value = getattr(optimizer, name)
        if isinstance(rule, PerModel) and name not in ("rate", "betas"):
            numbers[name] = (value, 0.8 * value, 0.6 * value)
    numbers["weight_decay"] = (0.2, 0.0, 0.1)
    if hasattr(optimizer, "betas"):
        numbers["betas"] = ((0.9, 0.8, 0.7), (0.999, 0.95, 0.9))
    if getattr(optimizer, "nesterov", False):
        numbers["dampening"] = 0.0
    return replace(optimizer, **numbers)
