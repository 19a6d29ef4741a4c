"""A pass: a network planned for one loss and batch size, with all buffers for forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gpunn.backends.formula import formulas
from gpunn.errors import ConfigurationError, DataError
from gpunn.frame import Buffer, Frame, Planned, Setting, plan_layer
from gpunn.layers.activation import LogSoftmax, Nonlinearity, Softmax, resolve
from gpunn.layers.base import Layer
from gpunn.layers.columns import Columns
from gpunn.layers.composite import Branch, Sequential
from gpunn.layers.dense import Dense
from gpunn.layers.dropout import Dropout
from gpunn.layers.embedding import Embedding
from gpunn.layers.noise import GaussianNoise
from gpunn.layers.normalization import Normalization
from gpunn.layers.pointwise import Identity, Sigmoid
from gpunn.layers.shape import Flatten
from gpunn.losses import NLL, NLLM, BinaryCrossEntropy, CrossEntropy, Loss, checked_loss
from gpunn.precision import Precision
from gpunn.types import Array, Shape
from gpunn.value import is_own

# A loss on probabilities, the activation that makes them, and the loss that computes both from logits.
FUSED: dict[type[Loss], tuple[type[Layer], type[Loss]]] = {
    NLLM: (Softmax, CrossEntropy),
    NLL: (Sigmoid, BinaryCrossEntropy),
}

# By what a loss takes: outputs that would have the right shape and give nonsense.
MISREAD: dict[str, tuple[str, ...]] = {
    "logits": ("probabilities", "separate probabilities"),  # softmax of log-probabilities gives the probabilities
    "log-odds": ("probabilities", "separate probabilities", "log-probabilities"),
    "probabilities": ("log-probabilities", "numbers"),
    "probabilities that add up to 1": ("separate probabilities", "log-probabilities", "numbers"),
}
ALONE = "end the network in sigmoid and use NLL(), or in no activation and use BinaryCrossEntropy()"
KNOWN = (Dense, Nonlinearity, Normalization)


def loss_of_network(where: str, given: Any, network: Layer) -> Loss:
    """The loss; raise an error unless it is one and fits the network's last activation."""
    loss = checked_loss(where, given)
    (path, last), *before = _backwards(network)
    name, function = f"layers.{path} {type(last).__name__}", _function(last)
    width = _width([last, *(layer for _, layer in before)])
    if width == 1 and isinstance(function, (Softmax, LogSoftmax)):
        always = "1" if isinstance(function, Softmax) else "0"
        raise ConfigurationError(
            name, expected=f"2 outputs or more for {function}", got=f"one, which is always {always}", fix=ALONE
        )
    makes = network.makes
    known = makes != "numbers" or (isinstance(last, KNOWN) and is_own(last))  # a user's layer may make anything
    if makes in MISREAD.get(loss.takes, ()) and known:
        raise ConfigurationError(
            name,
            expected=f"{loss.takes} for {type(loss).__name__}"
            + f", which applies {loss.link} itself" * bool(loss.link),
            got=_outputs_in_words(makes, function),
            fix=ALONE if width == 1 else _repair_in_words(makes, function, loss),
        )
    return loss


def _outputs_in_words(makes: str, function: Any) -> str:
    """For a message: what a network's outputs mean."""
    if function is None:
        return "numbers without an activation"
    return f"the {makes} of {'its branches' if isinstance(function, Branch) else function}"


def _repair_in_words(makes: str, function: Any, loss: Loss) -> str:
    """For a message: how to repair a network whose last activation does not fit the loss."""
    if makes == "log-probabilities":
        return "use CrossEntropy(), or end the network in softmax and use NLLM()"
    if loss.takes == "probabilities":
        return "end the network in sigmoid, or in no activation and use BinaryCrossEntropy()"
    if loss.takes == "probabilities that add up to 1":
        return "end the network in softmax, or in no activation and use CrossEntropy()"
    if makes == "separate probabilities" and loss.takes == "logits":
        return "leave that activation out, or end the network in softmax and use NLLM()"
    fits = "NLL()" if makes == "separate probabilities" else "NLLM()"
    return f"leave that activation out, or use {fits}"


def _backwards(network: Layer) -> list[tuple[str, Layer]]:
    """The layers with their paths, backwards from the last one that gives its outputs a meaning.

    Layers of a `Sequential` are listed separately. If no layer gives a meaning, as in `[Flatten()]`, all are listed.
    """
    found: list[tuple[str, Layer]] = []
    waiting = [("", network)]
    while waiting:
        path, layer = waiting.pop()
        if isinstance(layer, Sequential):
            waiting += [(f"{path}.{i}" if path else f"{i}", inner) for i, inner in enumerate(layer.layers)]
        else:
            found.append((path, layer))
    start = next((i for i, (_, layer) in enumerate(found) if layer.makes != "inputs"), 0)
    return found[start:]


def _function(layer: Layer) -> Any:
    """The activation that a layer is or applies last; None if there is none."""
    if isinstance(layer, (Dense, Normalization)):
        return layer.function
    return getattr(layer, "resolved", layer)


def _width(layers: Sequence[Layer]) -> int | None:
    """The number of outputs of the first layer, if these layers, listed backwards, tell it."""
    for layer in layers:
        if isinstance(layer, Dense):
            return layer.units
        if not isinstance(layer, (Nonlinearity, Normalization, Dropout, GaussianNoise)):
            return None
    return None


def fuse(network: Layer, loss: Loss) -> tuple[Layer, Loss]:
    """Replace softmax + NLLM and sigmoid + NLL at the end of a network by a loss on the logits.

    It computes ∂L/∂Z directly, without ∂L/∂A and ∂A/∂Z: the same gradient, finite at any logits.
    """
    if type(loss) not in FUSED:
        return network, loss
    activation, on_logits = FUSED[type(loss)]
    stripped = _without(network, activation)
    return (network, loss) if stripped is None else (stripped, on_logits(reduction=loss.reduction))


def _without(layer: Layer, activation: type[Layer]) -> Layer | None:
    """The layer without this activation at its end; None if it ends differently."""
    if isinstance(layer, Sequential):
        *first, last = layer.layers
        if isinstance(getattr(last, "resolved", last), activation):
            return Sequential(tuple(first) or (Identity(),))
        stripped = _without(last, activation)
        return None if stripped is None else Sequential((*first, stripped))
    if isinstance(layer, (Dense, Normalization)) and isinstance(layer.function, activation):
        return replace(layer, activation=None)
    return None


class Pass:
    """Forward, loss and backward for batches of one size."""

    def __init__(self, network: Layer, shape: Shape, loss: Loss | None, setting: Setting) -> None:
        self.ops, self.rows = setting.ops, setting.rows
        self.loss: Loss | None = None
        self.fused: Nonlinearity | None = None  # the last activation, if the loss computes it
        self.network = network
        if loss is not None:
            self.network, self.loss = fuse(network, loss)
            if self.network is not network:
                self.fused = resolve(self.loss.link, "link")
        self.planned = plan_layer(self.network, shape)
        check_rows(self.planned, setting)
        self.frame = Frame(setting, self.planned, wants_dX=False)
        output = self.planned.plan.output
        # Returns the last layer's output, or the logits if the loss computes the last activation. It is no method, so
        # that only layers stand between a step and the first product.
        self.forward: Callable[[Array], Array] = partial(self.network.forward, self.frame)
        if setting.model_axes and not self.planned.trains:
            self.forward = partial(_forward_for_each, self.network, self.frame, setting.allocate(Buffer(output)))
        if self.loss is not None:
            leaf = Planned(self.network, "loss", output, self.loss.plan(output), {})
            self.loss_frame = Frame(setting, leaf, wants_dX=False)
        self.seed: Array | None = None  # ∂L/∂A in half precision, if the network computes in that
        if self.loss is not None and setting.backward and setting.store.compute != setting.store.dtype:
            self.seed = self.ops.empty((*setting.model_axes, setting.rows, *output), setting.store.compute)
            self.loss_scale: Array | float = 1.0
            if setting.loss_scale is not None:
                self.loss_scale = setting.loss_scale.reshape(-1, *(1,) * (self.seed.ndim - 1))

    def value(self, A: Array, y: Array, weight: Array | None = None) -> Array:
        """The loss of outputs A for each model, on the device; it also computes dA, which `backward` starts from."""
        assert self.loss is not None
        self.dA = self.loss.evaluate(self.loss_frame, A, y, weight)
        return self.loss_frame.value

    def forget_inputs(self) -> None:
        """Drop references to the last inputs, which may be a user's array or a mapped file."""
        for frame in self.frame.walk():
            vars(frame).pop("X", None)

    def backward(self) -> None:
        """Compute all gradients from the dA of the last `value`; in float16 they are multiplied by the loss scale."""
        if self.seed is None:
            self.network.backward(self.frame, self.dA)
        else:
            self.ops.elementwise(formulas.multiply, (self.dA, self.loss_scale), (self.seed,))
            self.network.backward(self.frame, self.seed)


def _forward_for_each(network: Layer, frame: Frame, out: Array, X: Array) -> Array:
    """The output of a population without parameters: a copy of the same output for each model."""
    frame.ops.copy(network.forward(frame, X), out=out)
    return out


def check_rows(planned: Planned, setting: Setting) -> None:
    """Raise an error if a training batch is too small for some layer."""
    for node in planned.walk():
        if setting.training and setting.rows < node.layer.minimum_rows:
            raise DataError(
                f"layers.{node.path} {type(node.layer).__name__}",
                expected=f"a training batch of at least {node.layer.minimum_rows} examples",
                got=f"{setting.rows}",
                fix="use a larger batch, or LayerNorm or RMSNorm, which do not look across the batch",
            )


def check_tables(planned: Planned, scale: float, cast: Precision | None) -> None:
    """Raise an error if `scale` or the cast would change row numbers of an Embedding; None means no cast."""
    most = math.inf if cast is None else cast.whole
    for node in planned.walk():
        if isinstance(node.layer, Embedding) and (scale != 1.0 or node.layer.categories > most):
            raise ConfigurationError(
                f"layers.{node.path} Embedding",
                expected="scale=1 beside it" if scale != 1.0 else f"at most {most} categories beside layers of numbers",
                got=f"scale={scale:g}" if scale != 1.0 else f"{node.layer.categories}",
                fix="scale the other columns yourself" if scale != 1.0 else "give it a network of its own",
            )


def tables(planned: Planned) -> list[tuple[Planned, range]]:
    """The layers that take indices, each with the range of the flattened input that it reads.

    Raises an error if indices come from another layer: nobody checks those, and no gradient passes.
    """
    found: list[tuple[Planned, range]] = []
    _follow(planned, range(math.prod(planned.shape)), found)
    return found


def _follow(planned: Planned, places: range | None, found: list[tuple[Planned, range]]) -> range | None:
    """Which of the data's numbers a layer returns unchanged, or None; `places` are those that it gets."""
    layer = planned.layer
    if planned.children:
        for child in planned.children.values():
            after = _follow(child, places, found)
            places = after if isinstance(layer, Sequential) else places
        return places if isinstance(layer, Sequential) else None
    if layer.integer_input:
        if places is None:
            raise ConfigurationError(
                f"layers.{planned.path} {type(layer).__name__}",
                expected="indices from the data",
                got="the output of another layer",
                fix="put it first",
            )
        found.append((planned, places))
    if isinstance(layer, Columns) and places is not None:
        return places[layer.start : layer.stop]
    return places if isinstance(layer, Flatten) else None
