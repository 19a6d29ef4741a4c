"""The loss of one batch, and its gradient by name."""

from __future__ import annotations

from typing import Any

from gpunn.engine import Engine
from gpunn.inputs import Checked, checked_targets
from gpunn.losses import Loss
from gpunn.memory import Need, require_room
from gpunn.passes import Pass, loss_of_network
from gpunn.types import Array


def loss_and_gradients(network: Engine, X: Any, y: Any, loss: Loss, training: bool) -> tuple[Any, dict[str, Array]]:
    """The loss, and a copy of each gradient: on the device if X came from there, else on the host."""
    batch_pass, value, stays = _pass_over(network, X, y, loss, training, copies=True)
    batch_pass.backward()
    if network.loss_scale is not None:
        network.loss_scale.unscale_or_repeat(lambda: _pass_over(network, X, y, loss, training)[0].backward())
    return value, {name: _copy(network, view, stays) for name, view in network.store.gradient_views.items()}


def loss_of_batch(network: Engine, X: Any, y: Any, loss: Loss, training: bool) -> Any:
    """The loss as a number, or an array with one for each model."""
    return _pass_over(network, X, y, loss, training)[1]


def _pass_over(
    network: Engine, X: Any, y: Any, loss: Loss, training: bool, copies: bool = False
) -> tuple[Pass, Any, bool]:
    """Run forward and the loss; return the pass, the loss, and whether X came from the device."""
    loss_of_network("loss", loss, network.network)
    array, ops = network.checked_inputs(X), network.ops
    axis = array.ndim - len(network.inputs) - 1
    rows, row_axes = array.shape[axis], array.shape[: axis + 1]
    target = checked_targets(y, loss, row_axes, network.outputs, ops, network.dtype)
    inputs = Checked(array, network.dtype, len(network.inputs))

    def rehearse(hollow: Engine, n: int) -> None:
        hollow.compile(n, loss, training=training, track=False)
        hollow.on_device(inputs.head(n).array)
        target.head(n).to(hollow.ops)
        if copies and ops.owns(array):
            hollow.ops.empty(network.gradient_vector.shape, network.dtype)

    if not network.keeps(rows, loss, training=training, track=False):
        require_room("X", "a batch of {}", network, Need(network.rehearsed, rehearse), rows, rows, whole=True)
    batch_pass = network.compile(rows, loss, training=training, track=False)
    A = batch_pass.forward(network.on_device(array))
    value = ops.to_host(batch_pass.value(A, target.to(ops)))
    return batch_pass, (value if network.models else value.item()), ops.owns(array)


def _copy(network: Engine, view: Array, on_device: bool) -> Array:
    if not on_device:
        return network.ops.to_host(view)
    out = network.ops.empty(view.shape, network.dtype)
    network.ops.copy(view, out=out)
    return out
