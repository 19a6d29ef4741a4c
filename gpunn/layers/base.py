"""The contract of a layer, in a dozen lines.

- A layer is a frozen dataclass: it says what it is, in fields that keep `field_rules`, and holds no array.
- `plan(shape)` takes the shape of one input and names all it needs: parameters, state, buffers, children. To know
  what a child returns, ask for its plan once, `with planning(name):`, and hand that plan on beside the child.
- `forward(t, X)` reads X (n, *shape), or (K, n, *shape) for K models, and returns its output.
- `backward(t, dA)` is called after it, in reverse order. It writes `t.dW` for each parameter W (gradients
  overwrite) and returns dX, or None where `t.wants_dX` is false. It must leave dA as it found it.
- The frame `t` has everything the plan named, and `t.ops`, `t.training`; `t.X = X` keeps X for backward.
- A layer reads and writes the last axes only; what stands before them is its caller's business.
- All that it does to numbers it does through `t.ops`, and the same in every step: then a step is recorded and asks
  it no more. One that calls NumPy, looks at numbers or counts in Python is found out and runs call by call.
- Write with `out=` into planned buffers. In backward a layer may write over its own output: by then every
  layer that read it is done. So dZ commonly takes the place of A.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from gpunn.errors import ShapeError
from gpunn.frame import Frame, Plan
from gpunn.per_model import of_model
from gpunn.types import Array, Shape
from gpunn.value import Value


@dataclass(frozen=True)
class Layer(Value, abstract=True):
    """Base of all layers; see the contract at the top of this file."""

    family: ClassVar[str] = "layer"
    integer_input: ClassVar[bool] = False  # whether X holds indices rather than numbers
    minimum_rows: ClassVar[int] = 1  # the smallest batch that can be trained on
    # What its outputs are: "numbers", "probabilities" that add up to 1, "separate probabilities", "log-probabilities",
    # or "inputs" where they mean what its inputs mean.
    makes: ClassVar[str] = "numbers"

    def plan(self, shape: Shape) -> Plan:
        raise NotImplementedError(f"{type(self).__name__} needs a plan method")

    def forward(self, t: Frame, X: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} needs a forward method")

    def backward(self, t: Frame, dA: Array) -> Array | None:
        raise NotImplementedError(f"{type(self).__name__} needs a backward method")

    def child_wants_dX(self, own: bool, below: bool) -> bool:
        """Whether a child must return dX: `own` is this layer's wish, `below` adds what stands before the child."""
        return own

    def of_model(self, k: int) -> Self:
        """This layer as model k of a population has it, with its own numbers."""
        return of_model(self, k)


def vector_width(layer: Layer, shape: Shape) -> int:
    """The width of a layer's input, which must be a vector."""
    if len(shape) != 1:
        raise ShapeError(
            type(layer).__name__,
            expected="x of shape (n, features)",
            got=f"({', '.join(['n', *map(str, shape)])}{'' if shape else ','})",
            fix="insert Flatten() before it",
        )
    return shape[0]


def walk(layer: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """A layer and all layers inside it, each with its path as in the names of its parameters."""
    waiting = [(path, layer)]
    while waiting:
        path, layer = waiting.pop()
        yield path, layer
        prefix = f"{path}." if path else ""
        inside = []
        for field in fields(layer):
            value = getattr(layer, field.name)
            several = enumerate(value) if isinstance(value, tuple) else [(field.name, value)]
            inside += [(f"{prefix}{name}", item) for name, item in several if isinstance(item, Layer)]
        waiting += reversed(inside)
