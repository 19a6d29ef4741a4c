"""A network with a layer of nearly every kind, its data, and the arguments of a training that uses every option."""

from typing import Any

import numpy as np

import gpunn as gn

OPTIMIZERS = (
    gn.SGD(0.1), gn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01), gn.Adagrad(0.1), gn.Adadelta(1.0),
    gn.RMSprop(1e-2, centered=True, momentum=0.5), gn.Adam(1e-2), gn.Adam(1e-2, epsilon="hat", amsgrad=True),
    gn.AdamW(1e-2), gn.Adamax(1e-2), gn.NAdam(1e-2), gn.RAdam(1e-2), gn.Lion(1e-3),
)  # fmt: skip
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(45, 6)), RNG.integers(0, 3, 45)


def network(backend: Any, models: int | None) -> gn.Network:
    layers = [gn.Dense(8, "relu"), gn.BatchNorm(), gn.Dropout(0.2), gn.Residual([gn.Dense(8, "gelu")]), gn.Dense(3)]
    return gn.Network(layers, 6, device=backend, models=models)


def everything(optimizer: Any) -> dict[str, Any]:
    return {
        "loss": gn.CrossEntropy(), "optimizer": optimizer, "epochs": 3, "batch_size": 10, "metrics": ["accuracy"],
        "validation": 0.2, "clip_norm": 1.0, "accumulate": 2, "sample_weight": np.linspace(1, 2, 45),
        "regularization": [gn.regularization.L2(1e-3), gn.regularization.MaxNorm(3.0)],
        "callbacks": [gn.GradientFlow()], "stopping": gn.GradientTolerance(1e-9),
    }  # fmt: skip
