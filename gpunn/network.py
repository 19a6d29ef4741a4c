"""`Network`, the class that users work with."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from gpunn import archive
from gpunn.backends.reference.backend import Backend
from gpunn.engine import Engine
from gpunn.errors import ConfigurationError, GpunnError
from gpunn.gradients import loss_and_gradients, loss_of_batch
from gpunn.hyper import choice
from gpunn.losses import Loss
from gpunn.memory import Need, give_back, memory_errors, require_room
from gpunn.metrics import resolve as resolve_metrics
from gpunn.optimizers import Optimizer
from gpunn.passes import loss_of_network
from gpunn.prediction import outputs
from gpunn.schedules import ReduceOnPlateau
from gpunn.training.batches import examples
from gpunn.training.evaluation import Evaluator, check_metrics
from gpunn.training.history import History
from gpunn.training.options import Options
from gpunn.training.prepare import prepare
from gpunn.training.resume import network_parts
from gpunn.types import Array
from gpunn.uses import Block, Uses
from gpunn.value import Value, from_json, too_deep
from gpunn.words import check_words

Method = TypeVar("Method", bound=Callable[..., Any])


def _use(block: Callable[[Uses, str], Block], method: Method) -> Method:
    """The method, run inside a block of `Uses`.

    The error for an argument that only other libraries have names ours. If memory runs out, unused passes are freed.
    """
    name, known = method.__name__, frozenset(inspect.signature(method).parameters)
    what = {"__reduce__": "copy and pickle"}.get(name, name)

    @functools.wraps(method)
    def call(self: Network, *arguments: Any, **options: Any) -> Any:
        if not options.keys() <= known:
            check_words(name, options, known)
        try:
            with block(self.uses, what):
                return method(self, *arguments, **options)
        except MemoryError as error:
            give_back(self, error)

    return call  # type: ignore[return-value]


def reads(method: Method) -> Method:
    """Decorate a method that reads the parameters and changes none."""
    return _use(Uses.reading, method)


def trains(method: Method) -> Method:
    """Decorate a method that changes parameters."""
    return _use(Uses.training, method)


class Network(Engine):
    """Layers, one vector of parameters, and a device; `models=K`, up to 2**20, makes K networks of one architecture.

    Data are NumPy arrays or anything that NumPy can read, such as a PyTorch tensor in host memory; a network on a GPU
    uploads them once. It uses arrays of CuPy, PyTorch, JAX or cuDF on its GPU without a copy, and then returns CuPy.
    Tables of pandas, Polars and pyarrow work too: `fit` keeps the names of their columns in `columns`. Later tables may
    have the columns in any order, and others besides; an array must have them in the order of `columns`.
    Inputs are multiplied by `scale` when they are cast to `dtype`: with 1/255, images can stay bytes until then.
    """

    @reads
    def predict(self, X: Any, *, batch_size: int | None = None) -> Array:
        """The last layer's output for X, (n, ...) or (K, n, ...): NumPy for NumPy arrays, CuPy for CuPy arrays."""
        return outputs(self, X, batch_size, link=None)

    @reads
    def predict_probability(self, X: Any, *, loss: Loss | None = None, batch_size: int | None = None) -> Array:
        """Outputs after the link of the given loss, or of the trained one: softmax, sigmoid, or none."""
        loss = loss or self.loss
        if loss is None:
            raise ConfigurationError(
                "predict_probability",
                expected="a loss whose link makes probabilities",
                got="a network that was not trained",
                fix="train it, or pass loss=gn.CrossEntropy()",
            )
        link = loss_of_network("predict_probability loss", loss, self.network).link
        return outputs(self, X, batch_size, link)

    @reads
    def evaluate(
        self,
        X: Any,
        y: Any,
        *,
        metrics: Any = (),
        loss: Loss | None = None,
        sample_weight: Any = None,
        batch_size: int | None = None,
    ) -> dict[str, Any]:
        """The loss (by default the trained one) and metrics on a set, as numbers, or as arrays with one for each model.

        Metrics are names, metrics of `gn.metrics`, or functions of y and the result of `predict_probability`. mse, mae,
        rmse and r2 use the network's outputs (logits with CrossEntropy and BinaryCrossEntropy); auc, average_precision,
        log_loss and functions use probabilities. Weights change the loss but no metric.
        """
        loss = loss or self.loss
        if loss is None:
            raise ConfigurationError(
                "evaluate", expected="a loss", got="a network that was not trained", fix="pass loss=gn.CrossEntropy()"
            )
        loss_of_network("evaluate loss", loss, self.network)
        wanted = resolve_metrics(metrics)
        data = examples(self, "evaluate", X, y, loss, weight=sample_weight)
        check_metrics(self, wanted, loss, data)

        def evaluator(network: Engine, size: int) -> Evaluator:
            return Evaluator(network, data.to(network.ops), loss, wanted, size)

        chunk, need = self.chunk(batch_size), Need(self.rehearsed, evaluator)
        require_room("evaluate batch_size", "batch_size={}", self, need, chunk, data.size)
        made = evaluator(self, chunk)
        made.run()
        results = made.read()
        return {name: float(value[0]) if self.models is None else value for name, value in results.items()}

    @trains
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        loss: Loss,
        optimizer: Optimizer,
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int = 128,
        validation: Any = None,
        folds: Any = None,
        metrics: Any = (),
        stopping: Any = None,
        callbacks: Any = None,
        sampling: str = "shuffle",
        sample_weight: Any = None,
        class_weight: Any = None,
        regularization: Any = None,
        clip_norm: Any = None,
        clip_value: Any = None,
        accumulate: int = 1,
        drop_last: bool = False,
        plateau: ReduceOnPlateau | None = None,
        keep: str = "best",
        checkpoint: Any = None,
        every: int = 1,
        every_steps: int | None = None,
        resume: Any = None,
        deterministic: bool = False,
        memory: int | None = None,
        progress: bool | None = None,
    ) -> History:
        """Train; at the end the network has the best weights, whatever ended the training.

        `epochs` (default 20) or `steps` (updates) say how long; `stopping` are criteria that end it earlier.
        `validation` is (X, y), (X, y, weight) or the fraction to hold out. The best weights are those with the lowest
        loss on it, without penalties, or else on the training set; or with the best value of what EarlyStopping
        watches. keep="last" keeps the last weights instead.
        `folds` gives each model of a population its own (training rows, held-out rows), as KFold(K).split(X) does. An
        epoch has as many rows for each model as the smallest fold; larger folds take other rows in each epoch.
        `sampling` is "shuffle", "replacement" or "sequential". `accumulate` batches of `batch_size` make one update. A
        last, smaller batch is left out with `drop_last`, or if it is too small for BatchNorm.
        `metrics` are as in `evaluate`; auc, average_precision, f1 and functions need a validation set.
        `sample_weight` and `class_weight` ("balanced", or a dict of classes and weights) multiply an example's loss and
        gradient but change no metric; the mean still divides by the number of examples.
        `regularization` is one or a list of `gn.regularization`. Then `clip_value` limits each element of the gradient,
        and `clip_norm` its length. `plateau` is a ReduceOnPlateau, which lowers the rate between epochs.
        `callbacks` are `gn.Callback`s or functions f(epoch, record). `progress` shows a line: True always, False never,
        None on a terminal only.
        `checkpoint` is a path, written every `every` epochs and every `every_steps` updates; `resume` goes on from such
        a file, bit for bit.
        A set of more than `memory` bytes is streamed (default: 256 MiB if memory-mapped, else most of a GPU's free
        memory). If a GPU has no room, an error names the largest batch size that fits, before anything is allocated.
        On the CPU larger steps use fewer threads while other programs need the cores, which changes the last bits of
        results; a resumed training starts with the usual number. With `deterministic` the number never changes, and a
        GPU runs only operations that repeat bit for bit. Trainings at the same time in one process share the number of
        threads: then the same seed gives the same result up to rounding.
        """
        options = Options(
            loss, optimizer, epochs, steps, batch_size, validation, folds, metrics, stopping, callbacks, sampling,
            sample_weight, class_weight, regularization, clip_norm, clip_value, accumulate, drop_last, plateau,
            keep, checkpoint, every, every_steps, resume, deterministic, memory, progress,
        )  # fmt: skip
        return prepare(self, X, y, options).run()

    @reads
    def save(self, path: Any) -> None:
        """Write architecture, parameters and state to one file; `gn.load` reads it on any device."""
        arrays, meta = network_parts(self)
        archive.write(path, arrays, {"network": meta})

    @reads
    def gradients(self, X: Any, y: Any, loss: Loss, *, training: bool = True) -> tuple[Any, dict[str, Array]]:
        """The loss of one batch and its gradient, an array for each name in `parameters`.

        Layers work as in training (dropout drops, BatchNorm uses the batch) unless training=False, but running
        statistics do not change. The gradients are copies; `gradient_vector` holds them until the next pass. If several
        threads call it at the same time, they wait for one another.
        """
        choice("gradients training", training, (True, False))
        with self._differentiating:
            return loss_and_gradients(self, X, y, loss, training)

    @reads
    def loss_of(self, X: Any, y: Any, loss: Loss, *, training: bool = False) -> Any:
        """The loss of one batch, a number or one for each model."""
        return loss_of_batch(self, X, y, loss, training)

    @reads
    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles hold what a saved file holds, and the name of the device."""
        if not self.is_built:
            return _rebuilt, (self.to_json(), self.ops.device, None, None, self.preprocessing, self.columns)
        arrays, meta = network_parts(self)
        values = {name.removeprefix("network/"): array for name, array in arrays.items()}
        rest = self.loss, meta["step"]
        return _rebuilt, (self.to_json(), self.ops.device, values, rest, self.preprocessing, self.columns)

    @reads
    def member(self, k: int) -> Network:
        """Model k of a population as a separate network, with a copy of its parameters and state."""
        planned = self.built()
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
            dtype=self.precision.name,
            seed=self.seeds[k],
            scale=self.scale,
        )
        self.ops.copy(self.store.values[k], out=single.store.values)
        self.ops.copy(self.store.state[k], out=single.store.state)
        self.ops.copy(self.step, out=single.step)
        single.loss, single.preprocessing, single.columns = self.loss, self.preprocessing, self.columns
        return single

    @classmethod
    @memory_errors("Network.from_json")
    def from_json(cls, text: str, *, device: str | Backend = "auto") -> Network:
        """A network of the architecture that `to_json` wrote, with new initial values."""
        try:
            data = json.loads(text)
            inputs = None if data["inputs"] is None else tuple(data["inputs"])
            models = data["models"]
            return cls(
                from_json(data["layers"]), inputs, device=device, dtype=data["dtype"], models=models,
                seed=data["seeds"] if models else data["seeds"][0], scale=data["scale"],
            )  # fmt: skip
        except (GpunnError, MemoryError):
            raise
        except RecursionError:
            raise too_deep("Network.from_json") from None
        except Exception as error:  # the text may come from anywhere and contain anything
            raise ConfigurationError(
                "Network.from_json",
                expected="the JSON that Network.to_json writes",
                got=f"{type(error).__name__}: {str(error)[:100]}",
                fix="write it again from the network",
            ) from error


def _rebuilt(
    text: str,
    device: str,
    values: Mapping[str, Array] | None,
    rest: tuple[Loss | None, int] | None,
    preprocessing: Value | None,
    columns: tuple[str, ...] | None = None,
) -> Network:
    """The network from what `Network.__reduce__` returned; older pickles have no columns."""
    network = Network.from_json(text, device=device)
    network.preprocessing, network.columns = preprocessing, columns
    if values is not None and rest is not None:
        network.load_parameters(values)
        network.loss = rest[0]
        network.step[...] = rest[1]
    return network
