"""Normalisation along an axis, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from gpunn.backends.formula import formulas
from gpunn.backends.operation import operation
from gpunn.backends.reference.products import ActivationFunction
from gpunn.types import COLUMNS, ROWS, Array

if TYPE_CHECKING:
    from gpunn.backends.reference.backend import Backend


@dataclass(frozen=True)
class Norm:
    """How to normalise: X̂ = (X - μ) s along an axis, with s = 1/√(σ²+ε), or 1/(σ+ε) where ε stands outside the root."""

    axis: int
    center: bool  # whether μ is subtracted
    eps: float
    eps_outside: bool


class Statistics(NamedTuple):
    """What normalising finds, kept for the way back: the first three by `normalize`, the others by its gradient."""

    mean: Array  # μ
    var: Array  # σ²: the mean square of what is left after the centring
    inverse: Array  # s
    gradient_mean: Array | None = None  # the mean of g = dZ G along the axis
    product_mean: Array | None = None  # the mean of g X̂


@operation(writes=["statistics", "out"], elementary=False, X=2, statistics=2, out=2)
def normalize(ops: Backend, X: Array, norm: Norm, statistics: Statistics, out: Array) -> Array:
    """X̂ in `out`, and μ, σ² and s, the statistics are of two passes.

    Sums run over differences from the first element, so that a mean of 1e5 with a deviation of 1 loses nothing in
    float32. `out` must not be X.
    """
    n, axis, (mean, var, inverse) = X.shape[norm.axis], norm.axis, statistics[:3]
    if norm.center:
        pilot = X[..., :1, :] if axis == COLUMNS else X[..., :1]
        ops.elementwise(formulas.subtract, (X, pilot), (out,))
        ops.sum(out, axis, out=mean)
        ops.elementwise(formulas.multiply, (mean, 1.0 / n), (mean,))
        ops.elementwise(formulas.subtract, (out, mean), (out,))
        ops.elementwise(formulas.add, (mean, pilot), (mean,))
    else:
        ops.copy(X, out=out)
    ops.sum_product(out, out, axis, out=var)
    ops.elementwise(formulas.multiply, (var, 1.0 / n), (var,))
    ops.elementwise(formulas.inverse_deviation, (var, norm.eps, norm.eps_outside), (inverse,))
    ops.elementwise(formulas.multiply, (out, inverse), (out,))
    return out


@operation(writes=["out", "Z"], elementary=False, X=2, G=2, B=2, out=2, Z=2)
def scale_shift(
    ops: Backend,
    X: Array,
    G: Array | None,
    B: Array | None,
    activation: ActivationFunction | None,
    out: Array,
    Z: Array | None,
) -> Array:
    """A = f(X G + B), keeping Z = X G + B where the activation's derivative needs it."""
    kept = out if Z is None else Z
    if G is None:
        ops.copy(X, out=kept)
    elif B is None:
        ops.elementwise(formulas.multiply, (X, G), (kept,))
    else:
        ops.elementwise(formulas.scale_shift, (X, G, B), (kept,))
    if activation is not None:
        activation.value(ops, kept, None, out)
    return out


@operation(
    writes=["statistics", "dG", "dB", "out"], elementary=False,
    dZ=2, Xhat=2, G=2, statistics=2, dG=2, dB=2, out=2,
)  # fmt: skip
def normalize_gradient(
    ops: Backend,
    dZ: Array,
    Xhat: Array,
    G: Array | None,
    norm: Norm,
    statistics: Statistics,
    dG: Array,
    dB: Array,
    out: Array | None,
) -> Array | None:
    """Gradients of A = X̂ G + B: dG = Σ dZ X̂, dB = Σ dZ over the rows, and with g = dZ G,

    dX = s (g - mean g) - r X̂ mean(g X̂), where r = s, or 1/σ for ε outside the root; uncentred: without mean g.
    `dG` and `dB` are column sums even where G and B do not exist. Without `out` there is no dX.
    """
    ops.sum_product(dZ, Xhat, COLUMNS, out=dG)
    ops.sum(dZ, COLUMNS, out=dB)
    if out is None:
        return None
    _, var, inverse, first, second = statistics
    n = Xhat.shape[norm.axis]
    gain: Any = 1.0 if G is None else G
    if norm.axis == COLUMNS:  # G is the same down a column, so the two sums are known already
        ops.elementwise(formulas.scaled_product, (dB, gain, 1.0 / n), (first,))
        ops.elementwise(formulas.scaled_product, (dG, gain, 1.0 / n), (second,))
    else:
        ops.row_means(dZ, Xhat, G, first, second)
    formula = formulas.normalized_gradient if norm.center else formulas.uncentred_gradient
    arguments = (dZ, gain, Xhat, inverse, var, first, second, norm.eps, norm.eps_outside)
    ops.elementwise(formula, arguments, (out,))
    return out


@operation(writes=["gradient_mean", "product_mean"], dZ=2, Xhat=2, G=2, gradient_mean=2, product_mean=2)
def row_means(ops: Backend, dZ: Array, Xhat: Array, G: Array | None, gradient_mean: Array, product_mean: Array) -> None:
    """The means of g = dZ G and of g X̂ over each row."""
    g = dZ if G is None else dZ * G
    gradient_mean[...] = g.mean(axis=ROWS, keepdims=True)
    product_mean[...] = (g * Xhat).mean(axis=ROWS, keepdims=True)
