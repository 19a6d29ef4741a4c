"""`Plan`: what a layer needs. `Frame`: the object `t` in which a layer finds its arrays.

A network is planned once, as a tree of `Planned` nodes; for each batch size a tree of frames is made from it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.backends.reference.backend import Backend
from gpunn.errors import GpunnError
from gpunn.hyper import check_shape
from gpunn.parameters import Parameter, ParameterStore, State
from gpunn.per_model import Number, as_array
from gpunn.randomness import Purpose, stream_key
from gpunn.types import Array, Shape

if TYPE_CHECKING:
    from gpunn.layers.base import Layer


# As the dtype of a buffer it stands for the dtype of sums: float32 in a network of half precision, else the network's.
SUMS = "sums"


@dataclass(frozen=True)
class Buffer:
    """A work array of a layer: `shape` for each row, or, with rows=False, `shape` for each model.

    `device` is the name of a backend, such as "cuda": on others the frame has None instead of the array.
    """

    shape: Shape
    dtype: str | None = None  # None: the dtype that the network computes in
    rows: bool = True
    device: str | None = None


@dataclass(frozen=True)
class DeviceNumber:
    """A number on the device that formulas read: one for all models, or one for each."""

    value: Number
    dtype: str | None = None


@dataclass(frozen=True)
class Plan:
    """Everything a layer needs for inputs of one shape, by name; a shape alone means `Buffer(shape)`.

    `backward` holds the arrays that only training and gradients need, such as dX, or a mask that forward writes in
    training. dX is left out if no layer before needs a gradient.
    A child is a layer with the shape of its input, and with its plan if the layer around it has that already: planning
    each child twice would take 2^depth plans.
    """

    output: Shape
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    state: Mapping[str, State] = field(default_factory=dict)
    buffers: Mapping[str, Shape | Buffer] = field(default_factory=dict)
    backward: Mapping[str, Shape | Buffer] = field(default_factory=dict)
    constants: Mapping[str, DeviceNumber] = field(default_factory=dict)
    children: Mapping[str, tuple[Layer, Shape] | tuple[Layer, Shape, Plan]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_shape("output", self.output)
        for name, array in {**self.buffers, **self.backward, **self.parameters, **self.state}.items():
            check_shape(name, array if isinstance(array, (tuple, list)) else array.shape)


@dataclass(frozen=True)
class Planned:
    """A layer with its plan, its path in the network, and its planned children."""

    layer: Layer
    path: str
    shape: Shape
    plan: Plan
    children: Mapping[str, Planned]
    trains: bool = field(init=False)  # whether it or a layer inside has parameters

    def __post_init__(self) -> None:
        below = any(child.trains for child in self.children.values())
        object.__setattr__(self, "trains", bool(self.plan.parameters) or below)

    def walk(self) -> Iterator[Planned]:
        """This node and all nodes inside it, in forward order."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(list(node.children.values()))

    def named(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    @property
    def parameters(self) -> dict[str, Parameter]:
        return {node.named(n): p for node in self.walk() for n, p in node.plan.parameters.items()}

    @property
    def state(self) -> dict[str, State]:
        return {node.named(n): s for node in self.walk() for n, s in node.plan.state.items()}


@contextmanager
def planning(path: str) -> Iterator[None]:
    """Adds to an error in this block the path of the layer it came from."""
    try:
        yield
    except GpunnError as error:
        inside = error.where.removeprefix("layers.")  # an error of a child has the path inside this layer only
        joint = f"layers.{path}{' ' if inside == error.where else '.'}" if path else ""
        where = joint + inside if path else error.where
        raise type(error)(where, expected=error.expected, got=error.got, fix=error.fix) from None


def plan_layer(layer: Layer, shape: Shape, path: str = "") -> Planned:
    """Plan a layer and its children; an error says which layer it came from."""
    with planning(path):
        check_shape("input", shape)
        plan = layer.plan(shape)
    return _placed(layer, path, shape, plan)


def _placed(layer: Layer, path: str, shape: Shape, plan: Plan) -> Planned:
    """A planned layer and its planned children, with their paths in the network."""
    children = {}
    prefix = f"{path}." if path else ""
    for name, (child, child_shape, *planned) in plan.children.items():
        if not planned:
            with planning(prefix + name):
                planned = [child.plan(child_shape)]
        children[name] = _placed(child, prefix + name, child_shape, planned[0])
    return Planned(layer, path, shape, plan, children)


class Frame:
    """A layer's arrays for one batch size: `t.W`, `t.dW`, `t.mean`, `t.A` and all others that its plan names.

    Also `t.ops` (the backend), `t.training`, `t.track` (whether to update running statistics), `t.wants_dX`,
    `t.shape` (of one input) and `t.children` (frames by name). For random numbers: `t.key`, the layer's own key, and
    `t.step`, the random counter of the network, an array on the device that grows with every batch of a training.
    """

    X: Any  # set by layers in forward, for backward
    columns: Any

    def __init__(self, setting: Setting, planned: Planned, wants_dX: bool) -> None:
        self._make(setting, planned, wants_dX)

    def _make(self, setting: Setting, planned: Planned, wants_dX: bool) -> None:
        """Make all arrays, and the frames of children: one nested call per level, where `Frame(...)` would take two."""
        self.ops, self.training, self.track = setting.ops, setting.training, setting.track
        self.wants_dX, self.shape, self.step = wants_dX and setting.backward, planned.shape, setting.step
        self.path = planned.path
        plan, store = planned.plan, setting.store
        for name in plan.parameters:
            setattr(self, name, store.layer_views[planned.named(name)])
            setattr(self, f"d{name}", store.gradient_views[planned.named(name)])
        for name in plan.state:
            setattr(self, name, store.state_views[planned.named(name)])
        held = planned_buffers(plan, setting.backward, self.wants_dX, setting.ops.name)
        for name, buffer in {**plan.buffers, **plan.backward}.items():
            if name in held:
                setattr(self, name, setting.allocate(held[name]))
            elif isinstance(buffer, Buffer) and buffer.device:
                setattr(self, name, None)
        for name, number in plan.constants.items():
            setattr(self, name, setting.on_device(number, len(plan.output)))
        self.key = setting.key(planned.path)
        self.children: dict[str, Frame] = {}
        below = wants_dX
        for name, child in planned.children.items():
            self.children[name] = frame = Frame.__new__(Frame)
            frame._make(setting, child, planned.layer.child_wants_dX(wants_dX, below))
            below = below or child.trains

    def walk(self) -> Iterator[Frame]:
        """This frame and all frames inside it."""
        waiting = [self]
        while waiting:
            frame = waiting.pop()
            yield frame
            waiting += frame.children.values()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this frame has no {name!r}: name it in the layer's plan")


def planned_buffers(plan: Plan, backward: bool, wants_dX: bool, device: str = "cpu") -> dict[str, Buffer]:
    """The buffers that such a frame holds on a device."""
    named = {**plan.buffers, **(plan.backward if backward else {})}
    if not wants_dX:
        named.pop("dX", None)
    buffers = {name: b if isinstance(b, Buffer) else Buffer(b) for name, b in named.items()}
    return {name: b for name, b in buffers.items() if b.device in (None, device)}


@dataclass(frozen=True)
class Setting:
    """What all frames of one pass share."""

    ops: Backend
    store: ParameterStore
    rows: int
    step: Array
    training: bool  # whether dropout drops and BatchNorm looks at the batch
    backward: bool  # whether a backward pass may follow; training needs its buffers too
    track: bool  # whether training updates the running statistics
    loss_scale: Array | None = None  # (1,) or (K, 1): the factor of gradients in half precision

    @property
    def model_axes(self) -> Shape:
        return () if self.store.models is None else (self.store.models,)

    def allocate(self, buffer: Buffer) -> Array:
        rows = (self.rows,) if buffer.rows else ()
        return self.ops.empty((*self.model_axes, *rows, *buffer.shape), self.dtype(buffer))

    def dtype(self, buffer: Buffer) -> Any:
        """The dtype of a buffer's array."""
        return {None: self.store.compute, SUMS: self.store.dtype}.get(buffer.dtype, buffer.dtype)

    def on_device(self, number: DeviceNumber, rank: int) -> Array:
        """The number as an array that fits to arrays whose rows have `rank` axes."""
        dtype = number.dtype or self.store.dtype
        return self.ops.from_host(as_array(number.value, self.store.models, rank + 1, dtype))

    def key(self, path: str) -> Array:
        """The random key of the layer at this path, or one for each model."""
        number = zlib.crc32(path.encode())
        keys = np.stack([stream_key(seed, Purpose.LAYER, number) for seed in self.store.seeds])
        return self.ops.from_host(keys if self.model_axes else keys[0])


def bytes_needed(planned: Planned, rows: int, backward: bool, itemsize: int, models: int = 1) -> int:
    """The bytes that a pass of this many rows allocates for its buffers."""
    total = 0
    for node in planned.walk():
        for buffer in planned_buffers(node.plan, backward, True).values():
            size = itemsize if buffer.dtype in (None, SUMS) else np.dtype(buffer.dtype).itemsize
            total += models * math.prod(buffer.shape) * size * (rows if buffer.rows else 1)
    return total
