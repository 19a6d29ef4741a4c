"""The README's two pictures, drawn from trainings: `python -m benchmarks.pictures [FOLDER]`."""

import sys
from pathlib import Path

import numpy as np

import gpunn as gn
from gpunn import data

FOLDER = Path(__file__).parent / "results"


def learning_curve() -> gn.History:
    """The digits, a fifth of them held out."""
    table = data.digits()
    prepared = data.Preprocessing.fit(table)
    net = gn.Network([gn.Dense(128), gn.BatchNorm(activation="relu"), gn.Dropout(0.2), gn.Dense(10)])
    rate = gn.schedules.OneCycle(3e-3, steps=40 * 23)
    return net.fit(
        prepared.inputs(table), prepared.targets(table), loss=gn.CrossEntropy(), optimizer=gn.AdamW(rate), epochs=40,
        batch_size=64, validation=0.2, metrics=["accuracy"], progress=False,
    )  # fmt: skip


def gradient_flow() -> gn.GradientFlow:
    """Ten sigmoid layers: the gradients vanish on their way down.

    A gradient is a sum over the batch, and all rows reach the lower layers nearly alike. With inputs around 0 and even
    classes the rows would cancel out as soon as the output bias knows the classes' shares, in every layer but the
    lowest ones, whose gradients would look as if they stood on a floor. Hence positive inputs and a rare class.
    """
    rng = np.random.default_rng(0)
    X = rng.random((1000, 20))
    flow = gn.GradientFlow()
    net = gn.Network([*[gn.Dense(32, "sigmoid")] * 10, gn.Dense(2)], inputs=20)
    net.fit(
        X, (X[:, 0] > 0.8).astype(int), loss=gn.CrossEntropy(), optimizer=gn.SGD(0.01), epochs=5, callbacks=[flow],
        progress=False,
    )  # fmt: skip
    return flow


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    learning_curve().plot(folder / "learning_curve.png")
    gradient_flow().plot(folder / "gradient_flow.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
