"""Do two versions of gpunn compute the same, to the bit?

    python -m benchmarks.bits              # prints a digest of what each of some forty short trainings leaves
    python -m benchmarks.bits FILE         # and compares them with those of a file that such a run has printed

Before a change of what should not change results, print them to a file; compare after it. Bits depend on the
processor's kernels and on the number of threads, so these are fixed in the environment of a process of its own, to what
every processor with AVX2 has; they also depend on the versions of NumPy and SciPy, which are told beside the digests.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy

import gpunn as gn
from gpunn.estimators import MLPClassifier, MLPRegressor

rng = np.random.default_rng(0)
X = rng.normal(size=(203, 6)).astype(np.float32)
CLASSES = (X[:, 0] * X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 0.5)
NUMBERS = np.stack([X[:, 0] * X[:, 1], np.sin(X[:, 2])], axis=1).astype(np.float32)
EITHER = (X[:, 0] > X[:, 1]).astype(np.float32)[:, None]
WEIGHT = rng.uniform(0.5, 2.0, len(X)).astype(np.float32)
CODES = rng.integers(0, 5, (len(X), 3))

CROSS, SQUARED = gn.CrossEntropy(), gn.SquaredError()
DENSE = (gn.Dense(16, "relu"), gn.Dense(3))
NORMED = (gn.Dense(16, bias=False), gn.BatchNorm(activation="relu"), gn.Dropout(0.3), gn.Dense(3))
MIXED = (
    gn.GaussianNoise(0.1), gn.Dense(12, "gelu"), gn.LayerNorm(), gn.Residual([gn.Dense(12, "tanh"), gn.RMSNorm()]),
    gn.Branch([[gn.Dense(4, "elu")], [gn.Dense(5, "silu"), gn.Dropout(0.2)]]), gn.Dense(3),
)  # fmt: skip
OF_CODES = (gn.Embedding(5, 4), gn.Flatten(), gn.Dense(8, "selu"), gn.Dense(3))
THREE = (0.3, 0.1, 0.03)


def training(layers: Any = DENSE, optimizer: Any = None, X: Any = X, y: Any = CLASSES, **options: Any) -> str:
    """Two epochs of batches of 32, unless told otherwise."""
    network = {name: options.pop(name) for name in ("models", "dtype", "seed", "scale") if name in options}
    net = gn.Network(layers, X.shape[1], device="cpu", **network)
    settings: dict[str, Any] = {"loss": CROSS, "batch_size": 32, "progress": False, **options}
    if "steps" not in settings:
        settings.setdefault("epochs", 2)
    history = net.fit(X, y, optimizer=optimizer or gn.Adam(1e-2), **settings)
    return digest(net.vector, *net.state.values(), history["loss"])


def resumed() -> str:
    """Interrupted within its second epoch and gone on with."""
    options: dict[str, Any] = {"loss": CROSS, "optimizer": gn.Adam(1e-2), "batch_size": 32, "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.gpunn")
        first, second = (gn.Network(NORMED, 6, device="cpu") for _ in range(2))
        first.fit(X, CLASSES, steps=10, checkpoint=path, **options)
        history = second.fit(X, CLASSES, steps=21, resume=path, **options)
    return digest(second.vector, *second.state.values(), history["loss"])


def estimator(kind: Any, y: Any, calls: int = 1, partly: bool = False, **options: Any) -> str:
    model = kind(hidden_layer_sizes=(9,), random_state=0, max_iter=4, device="cpu", **options)
    with warnings.catch_warnings(action="ignore"):  # so few epochs do not converge
        for _ in range(calls):
            model.partial_fit(X, y, **({"classes": np.unique(y)} if kind is MLPClassifier else {})) if partly else (
                model.fit(X, y)
            )
    return digest(model.network_.vector, model.predict(X))


def digest(*arrays: Any) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


OPTIMIZERS = (
    gn.SGD(0.1), gn.SGD(0.05, momentum=0.9, nesterov=True), gn.Adagrad(0.05), gn.Adadelta(1.0),
    gn.RMSprop(1e-2, centered=True, momentum=0.5), gn.Adam(1e-2, amsgrad=True), gn.AdamW(1e-2, weight_decay=0.1),
    gn.Adamax(1e-2), gn.NAdam(1e-2), gn.RAdam(1e-2), gn.Lion(1e-3), gn.LBFGS(),
)  # fmt: skip
HELD_OUT = {"validation": 0.25, "metrics": ["accuracy"], "stopping": gn.EarlyStopping(2), "epochs": 6}
FOLDS = [(np.setdiff1d(np.arange(201), held), held) for held in np.split(np.arange(201), 3)]

TRAININGS: dict[str, Callable[[], str]] = {
    **{f"{i} {type(o).__name__}": partial(training, optimizer=o) for i, o in enumerate(OPTIMIZERS)},
    "batch norm and dropout": partial(training, NORMED),
    "many kinds of layers": partial(training, MIXED, epochs=3),
    "many kinds of layers in float64": partial(training, MIXED, dtype="float64"),
    "embedding": partial(training, OF_CODES, X=CODES),
    "squared error": partial(training, (gn.Dense(8, "silu"), gn.Dense(2)), y=NUMBERS, loss=SQUARED),
    "huber": partial(training, (gn.Dense(8, "softplus"), gn.Dense(2)), y=NUMBERS, loss=gn.Huber(0.5)),
    "absolute error, sum": partial(
        training, (gn.Dense(2),), gn.SGD(1e-3), y=NUMBERS, loss=gn.AbsoluteError(reduction="sum")
    ),
    "binary cross-entropy": partial(
        training, (gn.Dense(8, "sigmoid"), gn.Dense(1)), y=EITHER, loss=gn.BinaryCrossEntropy()
    ),
    "sigmoid and NLL": partial(training, (gn.Dense(8, "relu"), gn.Dense(1, "sigmoid")), y=EITHER, loss=gn.NLL()),
    "softmax and NLLM": partial(training, (gn.Dense(8, "relu"), gn.Dense(3, "softmax")), loss=gn.NLLM()),
    "label smoothing": partial(training, loss=gn.CrossEntropy(smoothing=0.1)),
    "schedule": partial(training, optimizer=gn.SGD(gn.schedules.OneCycle(0.2, 14), momentum=0.9)),
    "penalties and clipping": partial(training, regularization=gn.regularization.L2(1e-3), clip_norm=0.5),
    "accumulation": partial(training, NORMED, accumulate=3),
    "weights": partial(training, sample_weight=WEIGHT, class_weight={0: 1.0, 1: 2.0, 2: 0.5}),
    "held-out part and early stopping": partial(training, NORMED, **HELD_OUT),
    "plateau": partial(training, plateau=gn.schedules.ReduceOnPlateau(patience=1), epochs=5),
    "one row at a time": partial(training, optimizer=gn.SGD(0.05), batch_size=1, steps=70, sampling="replacement"),
    "bytes": partial(training, X=(np.abs(X) * 60).astype(np.uint8), scale=1 / 255),
    "streamed": partial(training, NORMED, memory=2000),
    "population": partial(training, NORMED, gn.AdamW(THREE, weight_decay=0.01), models=3),
    "population that stops early": partial(
        training, DENSE, gn.SGD(THREE, momentum=0.9), models=3, seed=[5, 6, 7], **HELD_OUT
    ),
    "population on folds": partial(training, NORMED, gn.Adam(THREE), models=3, folds=FOLDS),
    "resumed": resumed,
    "classifier": partial(estimator, MLPClassifier, CLASSES, alpha=0.01),
    "classifier with sgd that stops early": partial(
        estimator, MLPClassifier, CLASSES, solver="sgd", early_stopping=True
    ),
    "classifier with lbfgs": partial(estimator, MLPClassifier, CLASSES, solver="lbfgs"),
    "classifier in parts": partial(estimator, MLPClassifier, CLASSES, calls=3, partly=True),
    "regressor": partial(estimator, MLPRegressor, NUMBERS, dropout=0.2, batch_norm=True),
}


FIXED = {
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "GPUNN_JIT": "0",
    "NPY_DISABLE_CPU_FEATURES": " ".join(
        f"AVX512{part}" for part in ("F", "CD", "_SKX", "_CLX", "_CNL", "_ICL", "_SPR")
    ),
}


def main(file: str | None = None) -> int:
    """The status: 1 where a digest differs from the file's."""
    if any(os.environ.get(name) != value for name, value in FIXED.items()):
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.bits", *sys.argv[1:]]
        return subprocess.run(command, env={**os.environ, **FIXED}).returncode
    found = {
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        **{name: train() for name, train in TRAININGS.items()},
    }
    if file is None:
        print(json.dumps(found, indent=1))
        return 0
    before = json.loads(Path(file).read_text(encoding="utf-8"))
    differing = [name for name in found.keys() | before.keys() if found.get(name) != before.get(name)]
    for name in sorted(differing):
        print(f"{name}: {before.get(name, 'nothing')} before, {found.get(name, 'nothing')} now")
    print(f"{len(TRAININGS)} trainings, {len(differing)} differences")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
