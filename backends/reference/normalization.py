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
    """How to normalise: X̂ = (X - μ) s along an axis, with s = 1/√(σ²+ε), or s = 1/(σ+ε) if `eps_outside`."""

    axis: int  # COLUMNS: statistics of a batch; ROWS: of an example
    center: bool  # whether μ is subtracted
    eps: float
    eps_outside: bool


class Statistics(NamedTuple):
    """Statistics: `normalize` writes the first three, `normalize_gradient` reads them and writes the others."""

    mean: Array  # μ; not written without centring
    var: Array  # σ²: the mean square of X - μ, or of X without centring
    inverse: Array  # s
    gradient_mean: Array | None = None  # the mean of g = dZ G along the axis
    product_mean: Array | None = None  # the mean of g X̂ along the axis


@operation(writes=["statistics", "out"], composed=True, X=2, statistics=2, out=2)
def normalize(ops: Backend, X: Array, norm: Norm, statistics: Statistics, out: Array) -> Array:
    """Write X̂ to `out`, and μ, σ² and s, which take two passes over X, to `statistics`.

    Sums are over differences from the first element, so that float32 loses nothing where the mean is 1e5 and the
    deviation 1. `out` must not be X.
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


@operation(writes=["out", "Z"], composed=True, X=2, G=2, B=2, out=2, Z=2)
def scale_shift(
    ops: Backend,
    X: Array,
    G: Array | None,
    B: Array | None,
    activation: ActivationFunction | None,
    out: Array,
    Z: Array | None,
) -> Array:
    """A = f(X G + B) in `out`; Z = X G + B is kept in `Z` if the activation's derivative needs it."""
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
    writes=["statistics", "dG", "dB", "out"], composed=True,
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
    """Gradients of Z = X̂ G + B: dG = Σ dZ X̂ and dB = Σ dZ over the rows, and with g = dZ G, in `out`,

    dX = s (g - mean g) - r X̂ mean(g X̂), where r = s, or 1/σ if `eps_outside`; without centring there is no mean g.
    `dG` and `dB` are written even without G and B. Without `out`, dX is not computed. `out` may be dZ or Xhat.
    """
    ops.sum_product(dZ, Xhat, COLUMNS, out=dG)
    ops.sum(dZ, COLUMNS, out=dB)
    if out is None:
        return None
    _, var, inverse, gradient_mean, product_mean = statistics
    n = Xhat.shape[norm.axis]
    gain: Any = 1.0 if G is None else G
    if norm.axis == COLUMNS:  # G is the same for a whole column, so dB G and dG G are the sums of g and g X̂
        ops.elementwise(formulas.scaled_product, (dB, gain, 1.0 / n), (gradient_mean,))
        ops.elementwise(formulas.scaled_product, (dG, gain, 1.0 / n), (product_mean,))
    else:
        ops.row_means(dZ, Xhat, G, gradient_mean, product_mean)
    formula = formulas.normalized_gradient if norm.center else formulas.uncentred_gradient
    arguments = (dZ, gain, Xhat, inverse, var, gradient_mean, product_mean, norm.eps, norm.eps_outside)
    ops.elementwise(formula, arguments, (out,))
    return out


@operation(writes=["gradient_mean", "product_mean"], dZ=2, Xhat=2, G=2, gradient_mean=2, product_mean=2)
def row_means(ops: Backend, dZ: Array, Xhat: Array, G: Array | None, gradient_mean: Array, product_mean: Array) -> None:
    """The means of g = dZ G and of g X̂ over each row."""
    g = dZ if G is None else dZ * G
    gradient_mean[...] = g.mean(axis=ROWS, keepdims=True)
    product_mean[...] = (g * Xhat).mean(axis=ROWS, keepdims=True)
