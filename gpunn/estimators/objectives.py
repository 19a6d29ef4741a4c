"""What the estimators minimise: the mean over examples of the sum over an example's outputs, as scikit-learn does.

gpunn's own losses take the mean over the outputs, too. None of these classes is named in a file: the trained network
has gpunn's loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunn.backends.formula.tracing import elementwise
from gpunn.losses import TINY, AbsoluteError, BinaryCrossEntropy, Elementwise, Huber, SquaredError
from gpunn.types import Shape


@dataclass(frozen=True)
class HalfSquaredErrors(SquaredError, abstract=True):
    """½ Σ (a - y)²."""

    def scale(self, rows: int, shape: Shape) -> float:
        return 0.5 / rows


@dataclass(frozen=True)
class AbsoluteErrors(AbsoluteError, abstract=True):
    """Σ |a - y|."""

    elementwise = False


@dataclass(frozen=True)
class Hubers(Huber, abstract=True):
    """Σ of Huber's loss."""

    elementwise = False


@dataclass(frozen=True)
class BinaryCrossEntropies(BinaryCrossEntropy, abstract=True):
    """-Σ (y log σ(z) + (1 - y) log(1 - σ(z)))."""

    elementwise = False


@elementwise
def half_poisson_deviance(xp: Any, Z: Any, y: Any, scale: Any) -> Any:
    mean = xp.exp(Z)
    return y * (xp.log(xp.maximum(y, TINY)) - Z) - y + mean, scale * (mean - y)


@dataclass(frozen=True)
class PoissonDeviances(Elementwise, abstract=True):
    """Σ y log(y / e^z) - y + e^z: half the deviance of counts y from the mean e^z."""

    elementwise = False
    formula = half_poisson_deviance
