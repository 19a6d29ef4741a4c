"""`Engine`: layers planned for one input shape, their parameters on a device, and passes over batches."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Self

import numpy as np

from gpunn.backends import get_backend
from gpunn.backends.formula import formulas
from gpunn.backends.reference.backend import Backend
from gpunn.dataframes import arranged, column_names
from gpunn.errors import ConfigurationError, DeviceMemoryError, ShapeError
from gpunn.frame import Planned, Setting, bytes_needed, plan_layer
from gpunn.hyper import number, whole, whole_shape
from gpunn.inputs import as_array, check_inputs, to_device
from gpunn.layers.base import Layer, walk
from gpunn.layers.composite import Sequential
from gpunn.loss_scale import LossScale
from gpunn.losses import Loss
from gpunn.memory import Rehearsal, memory_errors
from gpunn.parameters import ParameterStore, Views
from gpunn.passes import Pass, check_tables, tables
from gpunn.per_model import check_models
from gpunn.precision import precision
from gpunn.randomness import check_seeds
from gpunn.summary import summary_table
from gpunn.types import Array, Shape
from gpunn.uses import Uses
from gpunn.value import Value, check_depth, to_json
from gpunn.words import METHODS, missing, of_rows, own_words

CHUNK_BYTES = 64 * 1024 * 1024  # for the activations of one chunk of a prediction
MOST_MODELS = 2**20  # their seeds alone take 40 MB


class Engine:
    """Layers planned for one input shape, their parameters on one device, and passes over batches.

    Inputs are multiplied by `scale` when they are cast to `dtype`: with 1/255, images can stay bytes until then.
    """

    @own_words("Network")
    @memory_errors("Network")
    def __init__(
        self,
        layers: Sequence[Layer] | Sequential,
        inputs: int | Shape | None = None,
        *,
        device: str | Backend = "auto",
        dtype: str = "float32",
        models: int | None = None,
        seed: int | Sequence[int] = 0,
        scale: float = 1.0,
    ) -> None:
        self.network = layers if isinstance(layers, Sequential) else Sequential(layers)
        check_depth("Network layers", self.network)
        self.ops = device if isinstance(device, Backend) else get_backend(device)
        self.precision = precision(dtype, self.ops)
        self.ops, self.dtype = self.ops.of_precision(self.precision.name), self.precision.dtype
        self.models = None if models is None else whole("Network models", models, high=MOST_MODELS)
        self.seeds = check_seeds(seed, self.models)
        self.scale = number("Network scale", scale)
        self.reads_indices = self.network.integer_input  # then X holds whole numbers, which are not cast or scaled
        self.loss: Loss | None = None
        self.preprocessing: Value | None = None  # turns tables into inputs; saved with the network
        self.columns: tuple[str, ...] | None = None  # names of a table's columns, if any; saved with the network
        self._inputs: Shape | None = None
        self._building = threading.Lock()  # several threads may bring the first inputs at once
        self._differentiating = threading.Lock()  # there is only one gradient vector
        self.uses = Uses()
        for path, layer in walk(self.network):
            check_models(layer, self.models, f"layers.{path} {type(layer).__name__}", unit=" numbers")
        if inputs is not None:
            given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
            self.build(whole_shape("Network inputs", given))

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self.network.layers))
        parts = [
            f"[{layers}]",
            f"inputs={self._inputs}",
            f"device={self.ops.device!r}",
            f"dtype={self.precision.name!r}",
        ]
        parts += [f"models={self.models}"] if self.models else []
        return f"{type(self).__name__}({', '.join(parts)})"

    def __getattr__(self, name: str) -> Any:
        """Raise an error; for names from other libraries, it says what to write here."""
        raise missing(type(self).__name__, name, METHODS)

    # Construction

    def build(self, inputs: Shape) -> None:
        """Plan for inputs of this shape and draw the initial parameters."""
        if self.is_built:
            with self.uses.training("build"):
                self._build(inputs)
        else:
            with self._building:
                self._build(inputs)

    def _build(self, inputs: Shape) -> None:
        planned = plan_layer(self.network, inputs)
        self.tables = tables(planned)
        check_tables(planned, self.scale, None if self.reads_indices else self.precision)
        try:
            self.store = ParameterStore(
                planned.parameters, planned.state, self.ops, self.dtype, self.seeds, self.models, self.precision.compute
            )  # fmt: skip
        except DeviceMemoryError as error:
            raise DeviceMemoryError(
                "Network parameters", expected=error.expected, got=error.got, fix="use smaller layers, or fewer models"
            ) from None
        self.planned = planned
        self.step = self.ops.zeros((1,), np.uint64)
        self.loss_scale = LossScale(self.ops, self.store) if self.precision.scales_loss else None
        self._row_bytes = bytes_needed(planned, 1, False, self.dtype.itemsize, self.models or 1)
        self._inputs = inputs  # last: from now on other threads may use the network

    @property
    def is_built(self) -> bool:
        """Whether the input shape is known and the parameters exist."""
        return self._inputs is not None

    def built(self) -> Planned:
        """The planned layers; raises an error if the input shape is not known yet."""
        if self._inputs is None:
            raise ConfigurationError(
                "Network",
                expected="a known input width",
                got="inputs=None and no data yet",
                fix="pass inputs=width, or call fit, predict or gradients first",
            )
        return self.planned

    def checked_inputs(self, X: Any) -> Array:
        """X as an array, checked against the network."""
        array = self.as_inputs(X)
        self.require_inputs(array)
        return array

    def as_inputs(self, X: Any) -> Array:
        """The user's X as an array; of a table, the columns that the network was trained on."""
        return as_array("X", arranged("X", X, self.columns), self.ops)

    def require_inputs(self, array: Array) -> None:
        """Raise an error unless this is an input of the network; the first one sets the input shape, if unknown."""
        if self._inputs is None:
            with self._building:
                if self._inputs is None:
                    self._build_for(array)
        check_inputs(array, self.inputs, self.tables, self.ops, self.models, self.precision.range)

    def _build_for(self, array: Array) -> None:
        """Plan for inputs like these, shared by all models."""
        shape = tuple(array.shape[1:]) or (1,)
        if 0 in shape:
            raise ShapeError("X", expected="at least one column", got=f"{array.shape}", fix="pass data")
        check_inputs(array, shape, tables(plan_layer(self.network, shape)), self.ops, None, self.precision.range)
        self._build(shape)

    def columns_for(self, X: Any) -> tuple[str, ...] | None:
        """The names of columns for a training on X: those of an earlier training, or else those of X."""
        return column_names("X", X) if self.columns is None else self.columns

    def on_device(self, X: Array) -> Array:
        """Checked inputs on the device, cast and scaled for the first layer."""
        computed = np.dtype(np.int64) if self.reads_indices else self.precision.compute
        array = to_device(X, self.ops, computed if self.scale == 1.0 else self.dtype)
        if self.scale == 1.0:
            return array
        scaled = self.ops.empty(array.shape, computed)
        self.ops.elementwise(formulas.multiply, (array, self.scale), (scaled,))
        return scaled

    @of_rows
    def compile(
        self, rows: int, loss: Loss | None = None, *, training: bool = True, backward: bool = True, track: bool = True
    ) -> Pass:
        """The pass for batches of this many rows, with its buffers and up-to-date copies of weights.

        The last few passes are kept for later calls; `Uses` says which thread may use one.
        """
        self.built()
        self.store.refresh()
        scale = None if self.loss_scale is None else self.loss_scale.scale
        setting = Setting(self.ops, self.store, rows, self.step, training, training or backward, track, scale)
        key = (rows, loss, training, backward, track)
        return self.uses.take(key, lambda: self._made(self.planned.shape, loss, setting))

    def _made(self, shape: Shape, loss: Loss | None, setting: Setting) -> Pass:
        """A new pass; if there is no room for it, the kept ones are freed first."""
        try:
            return Pass(self.network, shape, loss, setting)
        except DeviceMemoryError:
            if not len(self.uses):
                raise
        self.forget_passes()
        return Pass(self.network, shape, loss, setting)

    def keeps(
        self, rows: int, loss: Loss | None = None, *, training: bool = True, backward: bool = True, track: bool = True
    ) -> bool:
        """Whether `compile` would return a pass that exists already."""
        return self.uses.has((rows, loss, training, backward, track))

    def forget_passes(self) -> None:
        """Free the passes that nobody uses; they are made again when needed."""
        self.uses.forget()

    def rehearsed(self) -> tuple[Self, Rehearsal]:
        """A hollow copy of this network, whose arrays take no memory, and a backend that counts their bytes."""
        hollow, rehearsal = object.__new__(type(self)), Rehearsal(self.ops)
        vars(hollow).update(vars(self), ops=rehearsal, uses=Uses(), store=copy(self.store))
        hollow.store.ops = rehearsal
        return hollow, rehearsal

    @property
    def smallest_batch(self) -> int:
        """The fewest rows that every layer can be trained on."""
        return max(node.layer.minimum_rows for node in self.built().walk())

    # Parameters

    @property
    def model_axes(self) -> Shape:
        """The axes before the rows in the shape of an activation: (), or (K,) for a population."""
        return () if self.models is None else (self.models,)

    @property
    def inputs(self) -> Shape:
        """The shape of one input."""
        return self.built().shape

    @property
    def outputs(self) -> Shape:
        """The shape of one output."""
        return self.built().plan.output

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Writable views of `vector` by name; their gradients have the same names in `gradients`."""
        self.built()
        return Views(self.store.views)

    @property
    def state(self) -> Mapping[str, Array]:
        """Writable views of what training keeps besides the parameters, such as running means."""
        self.built()
        return Views(self.store.state_views)

    @property
    def vector(self) -> Array:
        """All parameters as one vector, (P,) or (K, P); padding between them is 0 and stays 0."""
        self.built()
        return self.store.values

    @property
    def gradient_vector(self) -> Array:
        """The gradient of the last backward pass, with the same layout as `vector`."""
        self.built()
        return self.store.gradients

    def load_parameters(self, values: Mapping[str, Any]) -> None:
        """Write all parameters and state from arrays by name; raises an error unless every name and shape is right."""
        self.built()
        self.uses.require_writing("load_parameters")
        self.store.load(values)

    # Computing

    def chunk(self, batch_size: int | None) -> int:
        """How many rows to compute at once if no gradient is needed."""
        if batch_size is not None:
            return whole("batch_size", batch_size)
        return max(1, CHUNK_BYTES // max(self._row_bytes, 1))

    # Descriptions

    def summary(self, batch: int = 128) -> str:
        """A table of layers with output shapes, parameters and the memory of a training batch."""
        planned = self.built()
        hollow, rehearsal = self.rehearsed()
        batch_pass = hollow.compile(whole("summary batch", batch), training=False)
        return summary_table(planned, batch_pass, rehearsal.bytes, self.store, batch)

    def to_json(self) -> str:
        """The architecture, without values, as JSON."""
        inputs = None if self._inputs is None else list(self._inputs)
        return json.dumps({
            "layers": to_json(self.network.layers), "inputs": inputs, "dtype": self.precision.name,
            "models": self.models, "seeds": list(self.seeds), "scale": self.scale,
        })  # fmt: skip
