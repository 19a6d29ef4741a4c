"""One of every layer, activation and loss, and targets to fit each loss."""

from typing import Any

import numpy as np

import gpunn as gn
from gpunn.layers.activation import Nonlinearity

ACTIVATIONS: tuple[Any, ...] = (
    None, *sorted(Nonlinearity.named), gn.LeakyReLU(0.3), gn.LeakyReLU(-0.2), gn.ELU(0.7), gn.GELU("tanh"),
    gn.Softplus(2.0),
)  # fmt: skip

LAYERS: dict[str, Any] = {
    "dense": lambda f: gn.Dense(4, f),
    "dense without bias": lambda f: gn.Dense(4, f, bias=False),
    "batch norm": lambda f: gn.BatchNorm(activation=f),
    "batch norm, eps outside": lambda f: gn.BatchNorm(1e-2, activation=f, eps_outside=True),
    "batch norm, not affine": lambda f: gn.BatchNorm(activation=f, affine=False),
    "layer norm": lambda f: gn.LayerNorm(activation=f),
    "rms norm": lambda f: gn.RMSNorm(activation=f),
    "activation": lambda f: f if isinstance(f, Nonlinearity) else gn.Activation(f or "identity"),
    "dropout": lambda f: gn.Sequential([gn.Dropout(0.4), gn.Dense(4, f)]),
    "noise": lambda f: gn.Sequential([gn.GaussianNoise(0.3), gn.Dense(4, f)]),
    "residual": lambda f: gn.Residual([gn.Dense(4, f), gn.Dense(4)]),
    "residual with shortcut": lambda f: gn.Residual([gn.Dense(6, f)], shortcut=gn.Dense(6)),
    "branch": lambda f: gn.Branch([gn.Dense(2, f), [gn.Dense(3), gn.LayerNorm()]]),
    "branch, added": lambda f: gn.Branch([gn.Dense(4, f), gn.Identity(), gn.Dense(4)], merge="add"),
    "columns": lambda f: gn.Branch([gn.Columns(0, 1), [gn.Columns(1, 3), gn.Dense(4, f)], gn.Columns(2, 4)]),
    "reshape": lambda f: gn.Sequential([gn.Reshape((2, 2)), gn.Flatten(), gn.Dense(4, f)]),
}

LOSSES = (
    gn.SquaredError(), gn.SquaredError(reduction="sum"), gn.AbsoluteError(), gn.Huber(0.4), gn.NLL(), gn.NLLM(),
    gn.BinaryCrossEntropy(), gn.CrossEntropy(), gn.CrossEntropy(0.1), gn.CrossEntropy(reduction="sum"),
)  # fmt: skip

PROBABILITIES = {gn.NLL: "sigmoid", gn.NLLM: "softmax"}  # what the last layer must end in


def targets(loss: Any, rows: int, width: int, seed: int = 0) -> Any:
    """Something this loss can be fitted to."""
    rng = np.random.default_rng(seed)
    if loss.target in ("classes", "one_hot"):
        return rng.integers(0, width, rows)
    if loss.target == "probabilities":
        return rng.integers(0, 2, (rows, width)).astype(float)
    return rng.normal(size=(rows, width))


def network(layer: Any, loss: Any, *, inputs: int = 3, width: int = 3, before: Any = (), **options: Any) -> gn.Network:
    """The layer between two others that learn."""
    layers = [gn.Dense(4, "tanh"), *before, layer, gn.Dense(width, PROBABILITIES.get(type(loss)))]
    return gn.Network(layers, inputs, **options)
