"""The training whose checkpoint lies in `stored/`, written after its third epoch by version 0.1.0 of November 2026."""

from typing import Any

import numpy as np

import gpunn as gn

X = np.random.default_rng(0).normal(size=(90, 6))
Y = np.random.default_rng(1).integers(0, 3, 90)


def network() -> gn.Network:
    layers = [gn.Dense(5, "relu"), gn.BatchNorm(), gn.Dropout(0.2), gn.Dense(3)]
    return gn.Network(layers, 6, device="cpu", dtype="float64", models=2, seed=[3, 4])


def options() -> dict[str, Any]:
    return {
        "loss": gn.CrossEntropy(0.1), "optimizer": gn.AdamW((1e-2, 3e-2), amsgrad=True, weight_decay=0.1),
        "epochs": 7, "batch_size": 16, "validation": 0.2, "metrics": ["accuracy"], "accumulate": 2, "clip_norm": 1.0,
        "regularization": gn.regularization.L2(1e-3), "stopping": gn.EarlyStopping(patience=6),
        "plateau": gn.schedules.ReduceOnPlateau(0.5, 1), "progress": False,
    }  # fmt: skip
