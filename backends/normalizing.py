"""The normalising part of every backend, in plain `xp`."""

from __future__ import annotations

from typing import Any, Protocol

from gpunn.backends import formulas
from gpunn.types import COLUMNS, ROWS, Array


class Nonlinearity(Protocol):
    """What `affine` and its relatives need to know of an activation; `layers/activation.py` has them all."""

    @property
    def keeps_output(self) -> bool: ...

    @property
    def ending(self) -> str | None: ...

    def value(self, ops: Any, Z: Array, b: Array | None, out: Array) -> None: ...

    def gradient(self, ops: Any, dA: Array, kept: Array, out: Array) -> None: ...


class Normalizing:
    """Mixed into `Backend`, whose sums and formulas it uses."""

    sum: Any
    sum_product: Any
    elementwise: Any
    copy: Any

    def normalize(
        self,
        X: Array,
        axis: int,
        center: bool,
        eps: float,
        outside: bool,
        mean: Array,
        var: Array,
        scale: Array,
        out: Array,
    ) -> Array:
        """X̂ = (X - μ) s along an axis, with s = 1/√(σ²+ε), or 1/(σ+ε) where ε stands `outside` the root.

        Also writes μ, the mean square σ² of what is left after the (optional) centring, in two passes, and s. Sums run
        over differences from the first element, so that a mean of 1e5 with a deviation of 1 loses nothing in float32.
        `out` must not be X.
        """  # fmt: skip
        n = X.shape[axis]
        if center:
            pilot = X[..., :1, :] if axis == COLUMNS else X[..., :1]
            self.elementwise(formulas.subtract, (X, pilot), (out,))
            self.sum(out, axis, out=mean)
            self.elementwise(formulas.multiply, (mean, 1.0 / n), (mean,))
            self.elementwise(formulas.subtract, (out, mean), (out,))
            self.elementwise(formulas.add, (mean, pilot), (mean,))
        else:
            self.copy(X, out=out)
        self.sum_product(out, out, axis, out=var)
        self.elementwise(formulas.multiply, (var, 1.0 / n), (var,))
        self.elementwise(formulas.inverse_deviation, (var, eps, outside), (scale,))
        self.elementwise(formulas.multiply, (out, scale), (out,))
        return out

    def scale_shift(
        self, X: Array, G: Array | None, B: Array | None, activation: Nonlinearity | None, out: Array, Z: Array | None
    ) -> Array:
        """A = f(X G + B), keeping Z = X G + B where the activation's derivative needs it."""
        kept = out if Z is None else Z
        if G is None:
            self.copy(X, out=kept)
        elif B is None:
            self.elementwise(formulas.multiply, (X, G), (kept,))
        else:
            self.elementwise(formulas.scale_shift, (X, G, B), (kept,))
        if activation is not None:
            activation.value(self, kept, None, out)
        return out

    def normalize_gradient(
        self, dZ: Array, Xhat: Array, G: Array | None, axis: int, center: bool, eps: float, outside: bool,
        var: Array, scale: Array, dG: Array, dB: Array, first: Array, second: Array, out: Array | None,
    ) -> Array | None:  # fmt: skip
        """Gradients of A = X̂ G + B: dG = Σ dZ X̂, dB = Σ dZ over the rows, and with g = dZ G,

        dX = s (g - mean g) - r X̂ mean(g X̂), where r = s, or 1/σ for ε outside the root; uncentred: without mean g.
        `first` and `second` hold the two means; `dG` and `dB` are column sums even where G and B do not exist.
        """
        self.sum_product(dZ, Xhat, COLUMNS, out=dG)
        self.sum(dZ, COLUMNS, out=dB)
        if out is None:
            return None
        n = Xhat.shape[axis]
        gain: Any = 1.0 if G is None else G
        if axis == COLUMNS:  # G is the same down a column, so the two sums are known already
            self.elementwise(formulas.scaled_product, (dB, gain, 1.0 / n), (first,))
            self.elementwise(formulas.scaled_product, (dG, gain, 1.0 / n), (second,))
        else:
            self._row_means(dZ, Xhat, G, first, second)
        formula = formulas.normalized_gradient if center else formulas.uncentred_gradient
        self.elementwise(formula, (dZ, gain, Xhat, scale, var, first, second, eps, outside), (out,))
        return out

    def _row_means(self, dZ: Array, Xhat: Array, G: Array | None, first: Array, second: Array) -> None:
        g = dZ if G is None else dZ * G
        first[...] = g.mean(axis=ROWS, keepdims=True)
        second[...] = (g * Xhat).mean(axis=ROWS, keepdims=True)
