"""Network: what users hold."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from gpunn import metrics as scores
from gpunn.backends import get_backend
from gpunn.backends.base import Backend
from gpunn.errors import ConfigurationError
from gpunn.frame import Planned, Setting, bytes_needed, plan_layer
from gpunn.hyper import choice, whole
from gpunn.inputs import as_array, check_inputs, checked_targets, to_device
from gpunn.layers.activation import resolve
from gpunn.layers.base import Layer, walk
from gpunn.layers.composite import Sequential
from gpunn.layers.embedding import Embedding
from gpunn.losses import Loss
from gpunn.parameters import ParameterStore
from gpunn.passes import Pass
from gpunn.randomness import check_seeds
from gpunn.summary import summary_table
from gpunn.types import Array, Shape
from gpunn.value import from_json, to_json

CHUNK_BYTES = 64 * 1024 * 1024  # what the activations of one chunk of a prediction may take
KEPT_PASSES = 4


class Network:
    """Layers, one vector of parameters, and a device; `models=K` makes it K networks of one architecture."""

    def __init__(
        self,
        layers: Sequence[Layer] | Sequential,
        inputs: int | Shape | None = None,
        *,
        device: str | Backend = "auto",
        dtype: str = "float32",
        models: int | None = None,
        seed: int | Sequence[int] = 0,
    ) -> None:
        self.network = layers if isinstance(layers, Sequential) else Sequential(layers)
        self.ops = device if isinstance(device, Backend) else get_backend(device)
        self.dtype = self._checked_dtype(dtype)
        self.models = None if models is None else whole("Network models", models)
        self.seeds = check_seeds(seed, self.models)
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
        self.store = ParameterStore(
            planned.parameters, planned.state, self.ops, self.dtype, self.seeds, self.models
        )  # fmt: skip
        self.planned, self._inputs = planned, inputs
        self.step = self.ops.zeros((1,), np.uint64)
        self._embeddings = tuple((n.path, n.layer) for n in planned.walk() if isinstance(n.layer, Embedding))

    def _built(self) -> Planned:
        if self._inputs is None:
            raise ConfigurationError(
                "Network",
                expected="a known input width",
                got="inputs=None and no data yet",
                fix="pass inputs=width, or call fit, predict or gradients first",
            )
        return self.planned

    def _checked(self, X: Any) -> Array:
        """X checked against the network, which takes its input shape from the first X if it has none."""
        array = as_array("X", X, self.ops)
        if self._inputs is None:
            self._build(tuple(array.shape[1:]) or (1,))
        assert self._inputs is not None
        check_inputs(array, self._inputs, self.ops, self.models, self._embeddings)
        return array

    def _on_device(self, X: Array) -> Array:
        whole_numbers = bool(self._embeddings) and X.dtype.kind in "iub"
        return to_device(X, self.ops, np.int64 if whole_numbers else self.dtype)

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
        if self.models is None or not -self.models <= k < self.models:
            raise ConfigurationError(
                "Network.member",
                expected=f"an index below {self.models}" if self.models else "a population",
                got=repr(k) if self.models else "a single network",
                fix="make the network with models=K",
            )
        k %= self.models
        single = Network(
            self.network.of_model(k).layers, planned.shape, device=self.ops, dtype=self.dtype.name, seed=self.seeds[k]
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
        return self._outputs(X, batch_size, loss.link)

    def _outputs(self, X: Any, batch_size: int | None, link: str | None) -> Array:
        array = self._checked(X)
        planned = self._built()
        axis = array.ndim - len(planned.shape) - 1
        n, chunk = array.shape[axis], self._chunk(batch_size)
        lead = () if self.models is None else (self.models,)
        stays = self.ops.owns(X)
        shape = (*lead, n, *planned.plan.output)
        out = self.ops.empty(shape, self.dtype) if stays else np.empty(shape, self.dtype)
        function = resolve(link, "link")
        for start in range(0, n, chunk):
            rows = slice(start, min(start + chunk, n))
            part = self._on_device(array[(slice(None),) * axis + (rows,)])
            A = self.compile(part.shape[axis], training=False, backward=False).forward(part)
            if function is not None:
                function.value(self.ops, A, None, out=A)
            place = (slice(None),) * len(lead) + (rows,)
            if stays:
                self.ops.copy(A, out=out[place])
            else:
                out[place] = self.ops.to_host(A)
        return out

    def _chunk(self, batch_size: int | None) -> int:
        if batch_size is not None:
            return whole("batch_size", batch_size)
        row = bytes_needed(self.planned, 1, False, self.dtype.itemsize, self.models or 1)
        return max(1, CHUNK_BYTES // max(row, 1))

    def evaluate(
        self, X: Any, y: Any, *, metrics: Sequence[str] = (), loss: Loss | None = None, batch_size: int | None = None
    ) -> dict[str, Any]:
        """The loss (the trained one unless given) and metrics on a set, as numbers, or arrays of one for each model."""
        loss = loss or self.loss
        if loss is None:
            raise ConfigurationError(
                "evaluate", expected="a loss", got="a network that was not trained", fix="pass loss=gn.CrossEntropy()"
            )
        wanted = scores.resolve(metrics)
        array = self._checked(X)
        axis = array.ndim - len(self.inputs) - 1
        n, chunk = array.shape[axis], self._chunk(batch_size)
        target = checked_targets(y, loss, array.shape[: axis + 1], self.outputs, self.ops, self.dtype)
        totals = {name: np.zeros(() if self.models is None else (self.models,)) for name in ("loss", *wanted)}
        for start in range(0, n, chunk):
            part = (slice(None),) * axis + (slice(start, min(start + chunk, n)),)
            X_part = self._on_device(array[part])
            labels = target[part if target.shape[: axis + 1] == array.shape[: axis + 1] else part[-1]]
            for name, value in self._scores(X_part, labels, loss, wanted, X_part.shape[axis]).items():
                share = 1.0 if name == "loss" and loss.reduction == "sum" else X_part.shape[axis] / n
                totals[name] += share * value
        results = {"loss": totals["loss"]}
        host = self.ops.to_host(target)
        results |= {name: metric.finish(totals[name], host) for name, metric in wanted.items()}
        return {name: float(value) if self.models is None else value for name, value in results.items()}

    def _scores(
        self, X: Array, y: Array, loss: Loss, metrics: Mapping[str, scores.Metric], n: int
    ) -> dict[str, Any]:  # fmt: skip
        run = self.compile(n, loss, training=False, backward=False)
        A = run.forward(X)
        results = {"loss": self.ops.to_host(run.value(A, y))}
        decision = loss.decision
        if metrics and run.fused is not None:
            run.fused.value(self.ops, A, None, out=A)
        lead = () if self.models is None else (self.models,)
        rows, value = self.ops.empty((*lead, n, 1), self.dtype), self.ops.empty(lead, self.dtype)
        for name, metric in metrics.items():
            metric.rows(self.ops, A, y, decision, out=rows)
            results[name] = self.ops.to_host(self.ops.total(rows, 1.0 / n, out=value))
        return results

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
        array = self._checked(X)
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
            "models": self.models, "seeds": list(self.seeds),
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str, *, device: str | Backend = "auto") -> Network:
        """A network of the architecture that `to_json` wrote, with fresh initial values."""
        data = json.loads(text)
        inputs = None if data["inputs"] is None else tuple(data["inputs"])
        models = data["models"]
        return cls(
            from_json(data["layers"]), inputs, device=device, dtype=data["dtype"], models=models,
            seed=data["seeds"] if models else data["seeds"][0],
        )  # fmt: skip
