"""Network: what users hold."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from gpunn import metrics as scores
from gpunn.backends import formulas, get_backend
from gpunn.backends.base import Backend
from gpunn.errors import ConfigurationError, GpunnError, ShapeError
from gpunn.frame import Planned, Setting, bytes_needed, plan_layer
from gpunn.hyper import choice, number, whole
from gpunn.inputs import as_array, check_inputs, checked_targets, to_device
from gpunn.layers.activation import resolve
from gpunn.layers.base import Layer, walk
from gpunn.layers.composite import Sequential
from gpunn.losses import Loss, checked_loss
from gpunn.parameters import ParameterStore
from gpunn.passes import Pass, check_indices
from gpunn.randomness import check_seeds
from gpunn.summary import summary_table
from gpunn.training.batches import examples
from gpunn.training.evaluation import Evaluator
from gpunn.types import Array, Shape
from gpunn.value import from_json, to_json

CHUNK_BYTES = 64 * 1024 * 1024  # what the activations of one chunk of a prediction may take
KEPT_PASSES = 4


class Network:
    """Layers, one vector of parameters, and a device; `models=K` makes it K networks of one architecture.

    Inputs are multiplied by `scale` as they are cast to `dtype`: 1/255 lets images stay bytes until then.
    """

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
        self.ops = device if isinstance(device, Backend) else get_backend(device)
        self.dtype = self._checked_dtype(dtype)
        self.models = None if models is None else whole("Network models", models)
        self.seeds = check_seeds(seed, self.models)
        self.scale = number("Network scale", scale)
        self.reads_indices = self.network.integer_input  # then X stays whole numbers, neither cast nor scaled
        self.loss: Loss | None = None
        self._inputs: Shape | None = None
        self._passes: OrderedDict[tuple[Any, ...], Pass] = OrderedDict()
        self._check_per_model()
        if inputs is not None:
            given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
            self._build(tuple(whole("Network inputs", extent) for extent in given))

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self.network.layers))
        parts = [f"[{layers}]", f"inputs={self._inputs}", f"device={self.ops.device!r}", f"dtype={self.dtype.name!r}"]
        parts += [f"models={self.models}"] if self.models else []
        return f"Network({', '.join(parts)})"

    # Construction

    def _checked_dtype(self, dtype: Any) -> np.dtype[Any]:
        name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype))
        names = ("float32", "float64", *(("complex128",) if self.ops.name == "reference" else ()))
        checked: np.dtype[Any] = np.dtype(choice("Network dtype", name, names))
        return checked

    def _check_per_model(self) -> None:
        for path, layer in walk(self.network):
            for name in layer.per_model:
                value = getattr(layer, name)
                if isinstance(value, tuple) and len(value) != self.models:
                    raise ConfigurationError(
                        f"layers.{path} {type(layer).__name__} {name}",
                        expected=f"one number or {self.models} of them" if self.models else "one number",
                        got=f"{len(value)} numbers",
                        fix="give one for each model and set models= to their count",
                    )

    def _build(self, inputs: Shape) -> None:
        planned = plan_layer(self.network, inputs)
        check_indices(planned)
        self.store = ParameterStore(
            planned.parameters, planned.state, self.ops, self.dtype, self.seeds, self.models
        )  # fmt: skip
        self.planned, self._inputs = planned, inputs
        self.step = self.ops.zeros((1,), np.uint64)

    def _built(self) -> Planned:
        if self._inputs is None:
            raise ConfigurationError(
                "Network",
                expected="a known input width",
                got="inputs=None and no data yet",
                fix="pass inputs=width, or call fit, predict or gradients first",
            )
        return self.planned

    def checked_inputs(self, X: Any) -> Array:
        """X checked against the network, which takes its input shape from the first X if it has none."""
        array = as_array("X", X, self.ops)
        shape = tuple(array.shape[1:]) or (1,) if self._inputs is None else self._inputs
        if 0 in shape:
            raise ShapeError("X", expected="at least one column", got=f"{array.shape}", fix="pass data")
        planned = plan_layer(self.network, shape) if self._inputs is None else self.planned
        check_inputs(array, planned, self.ops, self.models if self._inputs else None, self.dtype)
        if self._inputs is None:
            self._build(shape)
        return array

    def _on_device(self, X: Array) -> Array:
        array = to_device(X, self.ops, np.int64 if self.reads_indices else self.dtype)
        if self.scale == 1.0:
            return array
        scaled = self.ops.empty(array.shape, self.dtype)
        self.ops.elementwise(formulas.multiply, (array, self.scale), (scaled,))
        return scaled

    def compile(
        self, rows: int, loss: Loss | None = None, *, training: bool = True, backward: bool = True, track: bool = True
    ) -> Pass:
        """The pass for batches of this many rows, its buffers allocated; the last few are kept."""
        key = (rows, loss, training, backward, track)
        if key not in self._passes:
            planned = self._built()
            setting = Setting(self.ops, self.store, rows, self.step, training, training or backward, track)
            self._passes[key] = Pass(self.network, planned.shape, loss, setting)
            if len(self._passes) > KEPT_PASSES:
                self._passes.popitem(last=False)
        self._passes.move_to_end(key)
        return self._passes[key]

    # Parameters

    @property
    def lead(self) -> Shape:
        """What stands before the rows in the shape of an activation: nothing, or (K,)."""
        return () if self.models is None else (self.models,)

    @property
    def inputs(self) -> Shape:
        """The shape of one input."""
        return self._built().shape

    @property
    def outputs(self) -> Shape:
        """The shape of one output."""
        return self._built().plan.output

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Writable views of `vector` by name; their gradients have the same names in `gradients`."""
        self._built()
        return MappingProxyType(self.store.views)

    @property
    def state(self) -> Mapping[str, Array]:
        """Writable views of what training keeps beside the parameters, such as running means."""
        self._built()
        return MappingProxyType(self.store.state_views)

    @property
    def vector(self) -> Array:
        """All parameters as one vector, (P,) or (K, P); padding between them is 0 and stays 0."""
        self._built()
        return self.store.values

    @property
    def gradient_vector(self) -> Array:
        """The gradient of the last backward pass, element for element beside `vector`."""
        self._built()
        return self.store.gradients

    def load_parameters(self, values: Mapping[str, Any]) -> None:
        """Write all parameters and state from arrays by name; refuses unless every name and shape is right."""
        self._built()
        self.store.load(values)

    def member(self, k: int) -> Network:
        """Model k of a population as a network of its own, with a copy of its parameters and state."""
        planned = self._built()
        whole_number = isinstance(k, (int, np.integer)) and not isinstance(k, bool)
        if self.models is None or not whole_number or not -self.models <= k < self.models:
            raise ConfigurationError(
                "Network.member",
                expected=f"an index below {self.models}" if self.models else "a population",
                got=repr(k) if self.models else "a single network",
                fix="make the network with models=K",
            )
        k %= self.models
        single = Network(
            self.network.of_model(k).layers,
            planned.shape,
            device=self.ops,
            dtype=self.dtype.name,
            seed=self.seeds[k],
            scale=self.scale,
        )
        self.ops.copy(self.store.values[k], out=single.store.values)
        self.ops.copy(self.store.state[k], out=single.store.state)
        self.ops.copy(self.step, out=single.step)
        single.loss = self.loss
        return single

    # Computing

    def predict(self, X: Any, *, batch_size: int | None = None) -> Array:
        """The last layer's output for X, of shape (n, ...) or (K, n, ...). NumPy in, NumPy out; CuPy in, CuPy out."""
        return self._outputs(X, batch_size, link=None)

    def predict_probability(self, X: Any, *, loss: Loss | None = None, batch_size: int | None = None) -> Array:
        """Outputs through the link of the trained loss, or of the given one: softmax, sigmoid, or none."""
        loss = loss or self.loss
        if loss is None:
            raise ConfigurationError(
                "predict_probability",
                expected="a loss whose link makes probabilities",
                got="a network that was not trained",
                fix="train it, or pass loss=gn.CrossEntropy()",
            )
        return self._outputs(X, batch_size, checked_loss("predict_probability loss", loss).link)

    def _outputs(self, X: Any, batch_size: int | None, link: str | None) -> Array:
        array = self.checked_inputs(X)
        planned = self._built()
        axis = array.ndim - len(planned.shape) - 1
        n, chunk = array.shape[axis], self.chunk(batch_size)
        stays = self.ops.owns(X)
        shape = (*self.lead, n, *planned.plan.output)
        out = self.ops.empty(shape, self.dtype) if stays else np.empty(shape, self.dtype)
        function = resolve(link, "link")
        for start in range(0, n, chunk):
            rows = slice(start, min(start + chunk, n))
            part = self._on_device(array[(slice(None),) * axis + (rows,)])
            A = self.compile(part.shape[axis], training=False, backward=False).forward(part)
            if function is not None:
                P = self.ops.empty(A.shape, self.dtype)  # A may be X itself
                function.value(self.ops, A, None, out=P)
                A = P
            place = (slice(None),) * len(self.lead) + (rows,)
            if stays:
                self.ops.copy(A, out=out[place])
            else:
                out[place] = self.ops.to_host(A)
        return out

    def chunk(self, batch_size: int | None) -> int:
        """Rows that are computed at once where no gradient is needed."""
        if batch_size is not None:
            return whole("batch_size", batch_size)
        row = bytes_needed(self.planned, 1, False, self.dtype.itemsize, self.models or 1)
        return max(1, CHUNK_BYTES // max(row, 1))

    def evaluate(
        self,
        X: Any,
        y: Any,
        *,
        metrics: Sequence[str] = (),
        loss: Loss | None = None,
        sample_weight: Any = None,
        batch_size: int | None = None,
    ) -> dict[str, Any]:
        """The loss (the trained one unless given) and metrics on a set, as numbers, or arrays of one for each model."""
        loss = loss or self.loss
        if loss is None:
            raise ConfigurationError(
                "evaluate", expected="a loss", got="a network that was not trained", fix="pass loss=gn.CrossEntropy()"
            )
        checked_loss("evaluate loss", loss)
        wanted = scores.resolve(metrics)
        data = examples(self, "evaluate", X, y, loss, weight=sample_weight)
        evaluator = Evaluator(self, data, loss, wanted, self.chunk(batch_size))
        evaluator.run()
        results = evaluator.read()
        return {name: float(value[0]) if self.models is None else value for name, value in results.items()}

    def gradients(self, X: Any, y: Any, loss: Loss, *, training: bool = True) -> tuple[Any, dict[str, Array]]:
        """The loss of one batch and its gradient, an array for each name in `parameters`.

        Layers behave as in training (dropout drops, BatchNorm uses the batch) unless training=False, but running
        statistics stay as they are. The gradients are copies; `gradient_vector` holds them until the next pass.
        """
        run, value = self._run(X, y, loss, training)
        run.backward()
        copies = {name: self._copy(view, self.ops.owns(X)) for name, view in self.store.gradient_views.items()}
        return value, copies

    def loss_of(self, X: Any, y: Any, loss: Loss, *, training: bool = False) -> Any:
        """The loss of one batch, a number or one for each model."""
        return self._run(X, y, loss, training)[1]

    def _run(self, X: Any, y: Any, loss: Loss, training: bool) -> tuple[Pass, Any]:
        checked_loss("loss", loss)
        array = self.checked_inputs(X)
        axis = array.ndim - len(self.inputs) - 1
        run = self.compile(array.shape[axis], loss, training=training, track=False)
        target = checked_targets(y, loss, array.shape[: axis + 1], self.outputs, self.ops, self.dtype)
        value = self.ops.to_host(run.value(run.forward(self._on_device(array)), target))
        return run, (value if self.models else value.item())

    def _copy(self, view: Array, on_device: bool) -> Array:
        if not on_device:
            return self.ops.to_host(view)
        out = self.ops.empty(view.shape, self.dtype)
        self.ops.copy(view, out=out)
        return out

    # Descriptions

    def summary(self, batch: int = 128) -> str:
        """A table of layers with output shapes, parameters and the memory of a training batch."""
        return summary_table(self._built(), whole("summary batch", batch), self.dtype.itemsize, self.models)

    def to_json(self) -> str:
        """The architecture, without values, as JSON."""
        inputs = None if self._inputs is None else list(self._inputs)
        return json.dumps({
            "layers": to_json(self.network.layers), "inputs": inputs, "dtype": self.dtype.name,
            "models": self.models, "seeds": list(self.seeds), "scale": self.scale,
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str, *, device: str | Backend = "auto") -> Network:
        """A network of the architecture that `to_json` wrote, with fresh initial values."""
        try:
            data = json.loads(text)
            inputs = None if data["inputs"] is None else tuple(data["inputs"])
            models = data["models"]
            return cls(
                from_json(data["layers"]), inputs, device=device, dtype=data["dtype"], models=models,
                seed=data["seeds"] if models else data["seeds"][0], scale=data["scale"],
            )  # fmt: skip
        except GpunnError:
            raise
        except Exception as error:  # the text may come from anywhere and be anything
            raise ConfigurationError(
                "Network.from_json",
                expected="the JSON that Network.to_json writes",
                got=f"{type(error).__name__}: {str(error)[:100]}",
                fix="write it again from the network",
            ) from error
