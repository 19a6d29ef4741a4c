"""Layers: frozen values that say which arrays they need; a frame holds the arrays."""

from gpunn.layers.activation import Activation, LogSoftmax, Softmax
from gpunn.layers.base import Layer
from gpunn.layers.columns import Columns
from gpunn.layers.composite import Branch, Residual, Sequential
from gpunn.layers.dense import Dense
from gpunn.layers.dropout import Dropout
from gpunn.layers.embedding import Embedding
from gpunn.layers.noise import GaussianNoise
from gpunn.layers.normalization import BatchNorm, LayerNorm, RMSNorm
from gpunn.layers.pointwise import (
    ELU,
    GELU,
    SELU,
    Identity,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Step,
    Tanh,
)  # fmt: skip
from gpunn.layers.shape import Flatten, Reshape

__all__ = [
    "ELU", "GELU", "SELU", "Activation", "BatchNorm", "Branch", "Columns", "Dense", "Dropout", "Embedding", "Flatten",
    "GaussianNoise", "Identity", "Layer", "LayerNorm", "LeakyReLU", "LogSoftmax", "RMSNorm", "ReLU", "Reshape",
    "Residual", "Sequential", "SiLU", "Sigmoid", "Softmax", "Softplus", "Step", "Tanh",
]  # fmt: skip
