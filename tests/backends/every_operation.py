"""A formula that uses every operation which formulas may use, and numbers for it."""

from typing import Any

import numpy as np

from gpunn.backends.formula.tracing import elementwise
from tests.backends.calls import random


@elementwise
def everything(xp: Any, x: Any, y: Any, bits: Any, scale: Any) -> Any:
    """Every operation that a formula may use."""
    chosen = xp.where((x > 0.5) & (y <= 0.25) | ~(x >= y), xp.maximum(x, y), xp.minimum(x, 2.0))
    smooth = xp.tanh(x) + xp.exp(-xp.absolute(y)) + xp.log1p(y * y) + xp.expm1(x * 0.125) + xp.erf(x)
    rest = xp.sqrt(xp.absolute(x)) * xp.sin(y) - xp.cos(x) / (1.0 + xp.log(1.5 + y * y)) + xp.sign(x) * (y**2)
    masked = xp.where(bits >= 40000, x * scale, 0.0)
    powers = xp.power(1.5 + x * x, y) + xp.where(xp.equal(x, 0.0), 1.0, xp.where(xp.not_equal(bits, 3), x, 3.0))
    return chosen + smooth, rest + masked, powers, xp.less(x, y), 1e-30 + 0.0 * x


def everything_inputs(shape: tuple[int, ...] = (5, 40)) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(20)
    x, y = random(rng, *shape), random(rng, *shape[-1:])
    x[0, :3], y[:3] = (0.0, -0.0, 0.5), (0.25, 0.0, -0.5)
    return x, y, rng.integers(0, 2**16, shape).astype(np.uint16)
