"""The contract of a layer, in a dozen lines.

- A layer is a frozen dataclass. Its fields say what it is and are checked by `field_rules`; it holds no array.
- `plan(shape)` gets the shape of one input and names all the layer needs: parameters, state, buffers, children. To
  know what a child returns, ask for its plan once, `with planning(name):`, and put that plan beside the child.
- `forward(t, X)` reads X of shape (n, *shape), or (K, n, *shape) for K models, and returns the output.
- `backward(t, dA)` is called after all forwards, in reverse order. It overwrites `t.dW` for each parameter W and
  returns dX, or None where `t.wants_dX` is false. It must not change dA.
- The frame `t` has everything that the plan named, and `t.ops`, `t.training`; `t.X = X` keeps X for backward.
- A layer works on the last axes only, whatever axes stand before them.
- It changes numbers through `t.ops` only, in the same way in every step: then a step is recorded and replayed, and the
  layer is not called again. If it calls NumPy, looks at numbers or counts in Python, steps run without a record.
- Write with `out=` into planned buffers. In backward a layer may write over its own output A: no other layer needs
  it any more. So dZ usually takes the place of A.
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
    minimum_rows: ClassVar[int] = 1  # the smallest batch for training
    # What its outputs mean: "numbers", "probabilities" that add up to 1, "separate probabilities", "log-probabilities",
    # or "inputs": the same as its inputs.
    makes: ClassVar[str] = "numbers"

    def plan(self, shape: Shape) -> Plan:
        raise NotImplementedError(f"{type(self).__name__} needs a plan method")

    def forward(self, t: Frame, X: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} needs a forward method")

    def backward(self, t: Frame, dA: Array) -> Array | None:
        raise NotImplementedError(f"{type(self).__name__} needs a backward method")

    def child_wants_dX(self, wants_dX: bool, below: bool) -> bool:
        """Whether a child must return dX. `wants_dX`: this layer must; `below`: it must, or an earlier child trains."""
        return wants_dX

    def of_model(self, k: int) -> Self:
        """The layer of model k alone, with that model's numbers."""
        return of_model(self, k)


def vector_width(layer: Layer, shape: Shape) -> int:
    """The width of a layer's input; raise an error unless it is a vector."""
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
