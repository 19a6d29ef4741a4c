"""What a network is made of: layers planned for one input shape, parameters on a device, passes over batches."""

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

CHUNK_BYTES = 64 * 1024 * 1024  # what the activations of one chunk of a prediction may take
MOST_MODELS = 2**20  # the seeds of so many take 40 MB


class Engine:
    """Layers planned for one input shape, their parameters on one device, and passes over batches.

    Inputs are multiplied by `scale` as they are cast to what it computes in: 1/255 lets images stay bytes until then.
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
        self.reads_indices = self.network.integer_input  # then X stays whole numbers, neither cast nor scaled
        self.loss: Loss | None = None
        self.preprocessing: Value | None = None  # how tables become its inputs; saved with it
        self.columns: tuple[str, ...] | None = None  # names of its inputs, if it was trained on a table; saved with it
        self._inputs: Shape | None = None
        self._building = threading.Lock()  # the first inputs may come from several threads at once
        self._differentiating = threading.Lock()  # all gradients are made in one vector
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
        """Nothing: of what networks of other libraries have, the error says what it is called here."""
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
        self._inputs = inputs  # last: now other threads may use all of this

    @property
    def is_built(self) -> bool:
        """Whether the input shape is known, and with it all parameters."""
        return self._inputs is not None

    def built(self) -> Planned:
        """The planned layers; refuses where the input shape is not known yet."""
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
        """What a user hands in, as an array; of a table, the columns by which the network was trained."""
        return as_array("X", arranged("X", X, self.columns), self.ops)

    def require_inputs(self, array: Array) -> None:
        """Refuse what is no input of the network, which takes its input shape from the first array if it has none."""
        if self._inputs is None:
            with self._building:
                if self._inputs is None:
                    self._build_for(array)
        check_inputs(array, self.inputs, self.tables, self.ops, self.models, self.precision.range)

    def _build_for(self, array: Array) -> None:
        """Plan for inputs like these, which are the same for all models."""
        shape = tuple(array.shape[1:]) or (1,)
        if 0 in shape:
            raise ShapeError("X", expected="at least one column", got=f"{array.shape}", fix="pass data")
        check_inputs(array, shape, tables(plan_layer(self.network, shape)), self.ops, None, self.precision.range)
        self._build(shape)

    def columns_for(self, X: Any) -> tuple[str, ...] | None:
        """What the columns of tables are to be called in a training on X: as in an earlier one, or else as in X."""
        return column_names("X", X) if self.columns is None else self.columns

    def on_device(self, X: Array) -> Array:
        """Checked inputs as the first layer takes them."""
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
        """The pass for batches of this many rows, its buffers allocated and its copies of weights up to date. The last
        few are kept; whose it is meanwhile, see `Uses`."""
        self.built()
        self.store.refresh()
        scale = None if self.loss_scale is None else self.loss_scale.scale
        setting = Setting(self.ops, self.store, rows, self.step, training, training or backward, track, scale)
        key = (rows, loss, training, backward, track)
        return self.uses.take(key, lambda: self._made(self.planned.shape, loss, setting))

    def _made(self, shape: Shape, loss: Loss | None, setting: Setting) -> Pass:
        """A new pass; the kept ones are given up for it where there is no room beside them."""
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
        """Whether the pass that `compile` would give is there already."""
        return self.uses.has((rows, loss, training, backward, track))

    def forget_passes(self) -> None:
        """Give back the memory of those that nobody uses; they are made again where they are needed."""
        self.uses.forget()

    def rehearsed(self) -> tuple[Self, Rehearsal]:
        """This network where arrays take no memory, and what counts the bytes that they would take."""
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
        """What stands before the rows in the shape of an activation: nothing, or (K,)."""
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
        """Writable views of what training keeps beside the parameters, such as running means."""
        self.built()
        return Views(self.store.state_views)

    @property
    def vector(self) -> Array:
        """All parameters as one vector, (P,) or (K, P); padding between them is 0 and stays 0."""
        self.built()
        return self.store.values

    @property
    def gradient_vector(self) -> Array:
        """The gradient of the last backward pass, element for element beside `vector`."""
        self.built()
        return self.store.gradients

    def load_parameters(self, values: Mapping[str, Any]) -> None:
        """Write all parameters and state from arrays by name; refuses unless every name and shape is right."""
        self.built()
        self.uses.require_writing("load_parameters")
        self.store.load(values)

    # Computing

    def chunk(self, batch_size: int | None) -> int:
        """Rows that are computed at once where no gradient is needed."""
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
