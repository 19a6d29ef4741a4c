"""One vector for all parameters, one for gradients, one for state, and named views of them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError, DataError, ShapeError
from gpunn.initializers import Initializer, Zeros
from gpunn.randomness import Purpose, stream_key
from gpunn.types import Array, Shape

ZEROS = Zeros()
ALIGNMENT = 256  # bytes: enough for the widest vector instructions of CPUs and GPUs


@dataclass(frozen=True)
class Parameter:
    """A parameter of a layer: a shape of two axes, its initial values, and whether weight decay applies."""

    shape: Shape
    initializer: Initializer = ZEROS
    decay: bool = True
    exact: bool = False  # whether its layer reads the value itself, not a copy in half precision


@dataclass(frozen=True)
class State:
    """A value that training changes but no optimizer does, such as a running mean."""

    shape: Shape
    value: float = 0.0


class Views(Mapping[str, Array]):
    """Arrays by name, to read and to write in place; a name cannot get another array."""

    def __init__(self, views: Mapping[str, Array]) -> None:
        self._views = views

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._views!r})"

    def __call__(self) -> None:
        """Raise an error: in PyTorch `parameters` is a method."""
        raise ConfigurationError(
            "Network.parameters",
            expected="no parentheses",
            got="a call",
            fix="it is a mapping from names to arrays; an optimizer takes no parameters here: gn.Adam(1e-3)",
        )


class ParameterStore:
    """`values`, `gradients` of shape (P,) or (K, P) and `state` likewise; `[name]` is a writable view.

    Decaying parameters come first, so that weight decay is the slice `[:decaying]`. Between views there may be
    padding for the alignment; it is 0 and has gradient 0. If `compute` is another dtype, layers read copies of the
    values in this dtype, `layer_views`; after a change of values, call `refresh`.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        state: Mapping[str, State],
        ops: Backend,
        dtype: Any,
        seeds: tuple[int, ...],
        models: int | None,
        compute: Any = None,
    ) -> None:
        self.ops, self.dtype, self.seeds, self.models = ops, np.dtype(dtype), seeds, models
        self.parameters, self.state_values = dict(parameters), dict(state)
        ordered = sorted(
            parameters, key=lambda name: not parameters[name].decay
        )  # a stable sort: the order of layers stays
        places, size = _places({name: parameters[name].shape for name in ordered}, self.dtype.itemsize)
        self.places = places
        last = [name for name in ordered if parameters[name].decay][-1:]
        self.decaying = places[last[0]].stop if last else 0
        self.values, self.gradients = self._buffer(size), self._buffer(size)
        state_places, state_size = _places({name: s.shape for name, s in state.items()}, self.dtype.itemsize)
        self.state, self.state_places = self._buffer(state_size), state_places
        self.views = {name: self._view(self.values, places[name], parameters[name].shape) for name in parameters}
        self.gradient_views = {
            name: self._view(self.gradients, places[name], parameters[name].shape) for name in parameters
        }
        self.state_views = {name: self._view(self.state, state_places[name], s.shape) for name, s in state.items()}
        self.layer_views, self.copies = self.views, None
        self.compute = self.dtype if compute is None else np.dtype(compute)
        if self.compute != self.dtype:
            self.copies = ops.zeros(self.values.shape, self.compute)
            self.layer_views = {
                name: self.views[name] if p.exact else self._view(self.copies, places[name], p.shape)
                for name, p in parameters.items()
            }
        self.reset()

    def refresh(self) -> None:
        """Update the copies in half precision, if there are any."""
        if self.copies is not None:
            self.ops.copy(self.values, out=self.copies)

    @property
    def count(self) -> int:
        """The number of parameters of one model, without padding."""
        return sum(math.prod(parameter.shape) for parameter in self.parameters.values())

    def reset(self) -> None:
        """Draw initial values and clear the state."""
        for name, parameter in self.parameters.items():
            self.set(name, self._initial(name, parameter))
        for name, state in self.state_values.items():
            self.state_views[name][...] = state.value

    def set(self, name: str, value: Any) -> None:
        """Write one parameter or state from a NumPy array."""
        view = self.views[name] if name in self.views else self.state_views[name]
        self.ops.copy(self.ops.from_host(np.asarray(value), self.dtype), out=view)

    def load(self, values: Mapping[str, Any]) -> None:
        """Write every parameter and state. Nothing is written unless all names and shapes are right."""
        views = {**self.views, **self.state_views}
        if not isinstance(values, Mapping):
            raise ConfigurationError(
                "parameters",
                expected="a mapping of names to arrays",
                got=type(values).__name__,
                fix="pass a dict such as net.parameters",
            )
        host = {name: self._on_host(name, value) for name, value in values.items() if name in views}
        problems = [f"missing {name}" for name in views if name not in values]
        problems += [f"unexpected {name}" for name in values if name not in views]
        problems += [
            f"{name} of shape {host[name].shape} instead of {tuple(view.shape)}"
            for name, view in views.items()
            if name in host and host[name].shape != tuple(view.shape)
        ]
        if problems:
            raise ShapeError(
                "parameters",
                expected=f"the {len(views)} arrays {', '.join(views)}",
                got="; ".join(problems),
                fix="load them into a network of the same architecture",
            )
        for name in views:
            self.set(name, host[name])

    def _on_host(self, name: str, value: Any) -> Array:
        """A value as a NumPy array of this store's dtype."""
        try:
            array = self.ops.to_host(value) if self.ops.owns(value) else np.asarray(value)
        except (ValueError, TypeError) as error:
            array = np.array(str(error))  # no number: the next lines raise the error
        fits = array.dtype.kind in "fiub" or array.dtype.kind == self.dtype.kind
        largest = np.finfo(self.dtype).max
        if not fits or np.ma.is_masked(value) or bool((np.isfinite(array) & (abs(array) > largest)).any()):
            raise DataError(
                f"parameters {name}",
                expected=f"an array of {self.dtype.name} numbers",
                got=f"{type(value).__name__} of dtype {array.dtype}",
                fix="pass numbers that this dtype can hold",
            )
        return array.astype(self.dtype)

    def _initial(self, name: str, parameter: Parameter) -> Array:
        number = zlib.crc32(name.encode())
        drawn = {
            seed: parameter.initializer.values(stream_key(seed, Purpose.INITIAL, number), parameter.shape)
            for seed in set(self.seeds)
        }
        return drawn[self.seeds[0]] if self.models is None else np.stack([drawn[seed] for seed in self.seeds])

    def _buffer(self, size: int) -> Array:
        return self.ops.zeros((size,) if self.models is None else (self.models, size), self.dtype)

    def _view(self, buffer: Array, place: slice, shape: Shape) -> Array:
        return buffer[..., place].reshape(*buffer.shape[:-1], *shape)


def _places(shapes: Mapping[str, Shape], itemsize: int) -> tuple[dict[str, slice], int]:
    """The place of each array in a flat buffer, and the buffer's length, both in elements."""
    step = ALIGNMENT // itemsize
    places, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        places[name] = slice(start, start + size)
        start += -(-size // step) * step
    return places, start
