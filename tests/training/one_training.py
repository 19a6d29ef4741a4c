"""One training on the data of the drawn ones, for tests that need no drawing."""

from typing import Any

import gpunn as gn
from tests.training.drawn_trainings import BETAS, X, Y


def network(layers: Any = None, **options: Any) -> gn.Network:
    layers = layers or [gn.Dense(6), gn.BatchNorm(), gn.Tanh(), gn.Dropout(0.2), gn.Dense(3)]
    return gn.Network(layers, 4, **{"device": "cpu", "dtype": "float64", **options})


def fit(net: gn.Network, **changes: Any) -> gn.History:
    settings = {
        "X": X, "y": Y, "loss": gn.CrossEntropy(), "optimizer": gn.Adam(0.05, betas=BETAS), "epochs": 5,
        "batch_size": 8, "stopping": gn.EarlyStopping(3), "progress": False,
    }  # fmt: skip
    return net.fit(**{**settings, **changes})
