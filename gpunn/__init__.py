"""Neural networks on NumPy and CuPy from one implementation: `import gpunn as gn`."""

from gpunn import starting  # noqa: F401  # isort: skip  # before all that takes time to load

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpunn import errors, initializers, metrics, regularization, schedules
from gpunn.checkpoint import load_network as load
from gpunn.layers import (
    ELU,
    GELU,
    SELU,
    Activation,
    BatchNorm,
    Branch,
    Columns,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GaussianNoise,
    Identity,
    Layer,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Reshape,
    Residual,
    RMSNorm,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Step,
    Tanh,
)  # fmt: skip
from gpunn.losses import NLL, NLLM, AbsoluteError, BinaryCrossEntropy, CrossEntropy, Huber, SquaredError
from gpunn.network import Network
from gpunn.optimizers import (
    LBFGS,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Lion,
    NAdam,
    RAdam,
    RMSprop,
)  # fmt: skip
from gpunn.training.callbacks import Callback
from gpunn.training.flow import GradientFlow
from gpunn.training.history import History
from gpunn.training.stopping import EarlyStopping, GradientTolerance, LossTolerance, TimeLimit
from gpunn.words import missing_name

if TYPE_CHECKING:
    from gpunn import data

__version__ = "0.1.0"

__all__ = [
    "ELU", "GELU", "LBFGS", "NLL", "NLLM", "SELU", "SGD", "AbsoluteError", "Activation", "Adadelta", "Adagrad", "Adam",
    "AdamW", "Adamax", "BatchNorm", "BinaryCrossEntropy", "Branch", "Callback", "Columns", "CrossEntropy", "Dense",
    "Dropout", "EarlyStopping", "Embedding", "Flatten", "GaussianNoise", "GradientFlow", "GradientTolerance",
    "History", "Huber", "Identity", "Layer", "LayerNorm", "LeakyReLU", "Lion", "LogSoftmax", "LossTolerance", "NAdam",
    "Network", "RAdam", "RMSNorm", "RMSprop", "ReLU", "Reshape", "Residual", "Sequential", "SiLU", "Sigmoid",
    "Softmax", "Softplus", "SquaredError", "Step", "Tanh", "TimeLimit", "data", "errors", "initializers", "load",
    "metrics", "regularization", "schedules",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import `gn.data` when it is first used, because that takes a third of the time of everything else.

    For names of other libraries, the error says what to write here.
    """
    if name == "data":
        return import_module("gpunn.data")
    raise missing_name(name)


def __dir__() -> list[str]:
    """The public names, and those optional modules that have been imported."""
    return sorted({*__all__, *({"backends", "estimators", "testing"} & globals().keys())})
