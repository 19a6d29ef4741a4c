"""Neural networks on NumPy and CuPy from one implementation: `import gpunn as gn`."""

from gpunn import errors, initializers, metrics
from gpunn.layers import (
    ELU,
    GELU,
    SELU,
    Activation,
    BatchNorm,
    Branch,
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

__version__ = "0.1.0"

__all__ = [
    "ELU", "GELU", "NLL", "NLLM", "SELU", "AbsoluteError", "Activation", "BatchNorm", "BinaryCrossEntropy", "Branch",
    "CrossEntropy", "Dense", "Dropout", "Embedding", "Flatten", "GaussianNoise", "Huber", "Identity", "Layer",
    "LayerNorm", "LeakyReLU", "LogSoftmax", "Network", "RMSNorm", "ReLU", "Reshape", "Residual", "Sequential", "SiLU",
    "Sigmoid", "Softmax", "Softplus", "SquaredError", "Step", "Tanh", "errors", "initializers", "metrics",
]  # fmt: skip
