"""A line search on the host: it finds a step that meets the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

DECREASE = 1e-4  # a step must bring this share of the decrease that the first slope promises
CURVATURE = 0.9  # the slope at its end may be at most this share of the first one


class Point(NamedTuple):
    """A point on the line, with the loss and its slope there."""

    step: float
    loss: float
    slope: float


@dataclass
class _Search:
    at: Callable[[float], Point]
    start: Point
    rounding: float
    budget: int

    def evaluate(self, step: float) -> Point:
        self.budget -= 1
        return self.at(step)

    def falls(self, p: Point) -> bool:
        """Whether the loss falls enough. If its fall is smaller than rounding errors, the slopes decide, which are more
        exact (Hager and Zhang's approximate condition)."""
        if p.loss <= self.start.loss + DECREASE * p.step * self.start.slope:
            return True
        same = abs(p.loss - self.start.loss) <= self.rounding * abs(self.start.loss)
        return same and p.slope <= (2.0 * DECREASE - 1.0) * self.start.slope

    def flat(self, p: Point) -> bool:
        return abs(p.slope) <= -CURVATURE * self.start.slope

    def run(self, first: float) -> Point | None:
        """Nocedal and Wright's Algorithm 3.5: take longer steps until a good one must lie between the last two."""
        before, p = self.start, self.evaluate(first)
        while True:
            if not self.falls(p) or not math.isfinite(p.slope) or (p.loss >= before.loss and before.step > 0.0):
                return self.between(before, p)
            if self.flat(p):
                return p
            if p.slope >= 0.0:
                return self.between(p, before)
            if self.budget <= 0:
                return p
            before, p = p, self.evaluate(_clamp(_minimum(before, p), 2.0 * p.step, 10.0 * p.step))

    def between(self, low: Point, high: Point) -> Point | None:
        """Algorithm 3.6: `low` is the best point so far that falls enough; from there the loss falls towards `high`."""
        while self.budget > 0 and high.step != low.step:
            width = high.step - low.step
            near, far = sorted((low.step + 0.1 * width, high.step - 0.1 * width))
            p = self.evaluate(_clamp(_minimum(low, high), near, far))
            if not self.falls(p) or not math.isfinite(p.slope) or p.loss > low.loss + self.rounding * abs(low.loss):
                high = p
            else:
                if self.flat(p):
                    return p
                if p.slope * width >= 0.0:
                    high = low
                low = p
        return low if low.loss < self.start.loss else None


def _minimum(a: Point, b: Point) -> float:
    """The minimum of the cubic through two points with their slopes; the middle if there is none."""
    if math.isfinite(b.loss) and math.isfinite(b.slope):
        left, right = (a, b) if a.step <= b.step else (b, a)
        d = left.slope + right.slope - 3.0 * (left.loss - right.loss) / (left.step - right.step)
        square = d * d - left.slope * right.slope
        if square >= 0.0:
            root = math.sqrt(square)
            bottom = right.slope - left.slope + 2.0 * root
            if bottom != 0.0:
                return right.step - (right.step - left.step) * ((right.slope + root - d) / bottom)
    return (a.step + b.step) / 2.0


def _clamp(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def wolfe_search(
    at: Callable[[float], Point], start: Point, first: float, budget: int, rounding: float
) -> Point | None:
    """A point where f(α) <= f(0) + 10⁻⁴ α f'(0) and |f'(α)| <= 0.9 |f'(0)|, trying `first` first.

    After `budget` evaluations it is the best point where f falls enough, or None. `rounding` is the relative error
    of f.
    """
    return _Search(at, start, rounding, budget).run(first)
