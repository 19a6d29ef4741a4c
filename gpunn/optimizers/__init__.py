"""Optimizers: frozen values with a formula for the update; `base` has the contract."""

from gpunn.optimizers.adam import Adam, Adamax, AdamW, NAdam, RAdam
from gpunn.optimizers.adaptive import Adadelta, Adagrad, RMSprop
from gpunn.optimizers.base import Optimizer, OptimizerFrame
from gpunn.optimizers.lbfgs import LBFGS
from gpunn.optimizers.sgd import SGD, Lion

__all__ = [
    "LBFGS", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "NAdam", "Optimizer", "OptimizerFrame",
    "RAdam", "RMSprop",
]  # fmt: skip
