"""What the estimators minimise is a mean over examples of sums over their outputs."""

import pytest

from gpunn.estimators.objectives import (
    AbsoluteErrors,
    BinaryCrossEntropies,
    HalfSquaredErrors,
    Hubers,
    PoissonDeviances,
)
from gpunn.losses import Loss


@pytest.mark.parametrize(
    ("loss", "factor"),
    [
        (HalfSquaredErrors(), 0.5), (AbsoluteErrors(), 1.0), (Hubers(), 1.0), (BinaryCrossEntropies(), 1.0),
        (PoissonDeviances(), 1.0),
    ],
    ids=repr,
)  # fmt: skip
def test_the_mean_is_over_examples_whatever_the_number_of_outputs(loss: Loss, factor: float) -> None:
    assert loss.scale(4, (1,)) == loss.scale(4, (3,)) == factor / 4
