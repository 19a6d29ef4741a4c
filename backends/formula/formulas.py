"""The elementwise formulas that the operations use."""

from __future__ import annotations

import math
from typing import Any

from gpunn.backends.formula.tracing import elementwise


@elementwise
def add(xp: Any, a: Any, b: Any) -> Any:
    return a + b


@elementwise
def subtract(xp: Any, a: Any, b: Any) -> Any:
    return a - b


@elementwise
def multiply(xp: Any, a: Any, b: Any) -> Any:
    return a * b


@elementwise
def divide(xp: Any, a: Any, b: Any) -> Any:
    return a / b


@elementwise
def scaled_product(xp: Any, a: Any, b: Any, scale: Any) -> Any:
    return a * b * scale


@elementwise
def scaled_difference(xp: Any, X: Any, mean: Any, scale: Any) -> Any:
    return (X - mean) * scale


@elementwise
def scale_shift(xp: Any, X: Any, G: Any, B: Any) -> Any:
    return X * G + B


@elementwise
def inverse_deviation(xp: Any, var: Any, eps: Any, outside: Any) -> Any:
    """1/√(σ²+ε), or 1/(σ+ε) if `outside`, as in the lecture notes."""
    return 1.0 / (xp.sqrt(var) + eps) if outside else 1.0 / xp.sqrt(var + eps)


@elementwise
def _second_term_factor(xp: Any, var: Any, inverse: Any, outside: Any) -> Any:
    """The factor r of X̂ mean(g X̂) in dX: s, or 1/σ if `outside`, kept finite for σ = 0, where X̂ is 0."""
    return 1.0 / xp.sqrt(xp.maximum(var, 1e-30)) if outside else inverse


@elementwise
def normalized_gradient(
    xp: Any, dZ: Any, G: Any, Xhat: Any, inverse: Any, var: Any, gradient_mean: Any, product_mean: Any, eps: Any,
    outside: Any,
) -> Any:  # fmt: skip
    """dX of `normalize_gradient`; `eps` is not used."""
    return inverse * (dZ * G - gradient_mean) - _second_term_factor(xp, var, inverse, outside) * product_mean * Xhat


@elementwise
def uncentred_gradient(
    xp: Any, dZ: Any, G: Any, Xhat: Any, inverse: Any, var: Any, gradient_mean: Any, product_mean: Any, eps: Any,
    outside: Any,
) -> Any:  # fmt: skip
    """dX of `normalize_gradient` without centring; `gradient_mean` and `eps` are not used."""
    return inverse * (dZ * G) - _second_term_factor(xp, var, inverse, outside) * product_mean * Xhat


@elementwise
def normal_pair(xp: Any, u: Any, v: Any) -> Any:
    """Two standard normal numbers from two uniform ones (Box and Muller); u < 1, so the logarithm is finite."""
    radius = xp.sqrt(-2.0 * xp.log(1.0 - u))
    angle = (2.0 * math.pi) * v
    return radius * xp.cos(angle), radius * xp.sin(angle)


@elementwise
def dropout(xp: Any, X: Any, bits: Any, threshold: Any, scale: Any) -> Any:
    """`scale` X where 16 random bits are at least the threshold, else 0; the gradient is the same formula of dA."""
    return xp.where(bits >= threshold, X * scale, 0.0)


@elementwise
def softmax_gradient(xp: Any, dA: Any, A: Any, inner: Any) -> Any:
    """`inner` is the row sum of dA A."""
    return A * (dA - inner)


@elementwise
def log_softmax_gradient(xp: Any, dA: Any, A: Any, total: Any) -> Any:
    """`total` is the row sum of dA."""
    return dA - xp.exp(A) * total


@elementwise
def soft_cross_entropy_gradient(xp: Any, E: Any, norm: Any, mass: Any, T: Any, scale: Any) -> Any:
    return scale * (E / norm * mass - T)


@elementwise
def standardize(xp: Any, X: Any, mean: Any, var: Any, eps: Any, outside: Any) -> Any:
    return (X - mean) * inverse_deviation(xp, var, eps, outside)


@elementwise
def running_statistics(
    xp: Any, mean: Any, var: Any, batch_mean: Any, batch_var: Any, factor: Any, momentum: Any
) -> Any:  # fmt: skip
    """Move both towards those of the batch by the fraction `momentum`; `factor` makes the batch's variance unbiased."""
    return mean + momentum * (batch_mean - mean), var + momentum * (factor * batch_var - var)


@elementwise
def add_scaled(xp: Any, a: Any, b: Any, scale: Any) -> Any:
    return a + b * scale


@elementwise
def fixed_gradient(xp: Any, dZ: Any, G: Any, var: Any, eps: Any, outside: Any) -> Any:
    return dZ * G * inverse_deviation(xp, var, eps, outside)
