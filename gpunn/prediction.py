"""A network's outputs for any number of rows, computed in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.engine import Engine
from gpunn.inputs import Checked
from gpunn.layers.activation import resolve
from gpunn.memory import Need, cut, require_room
from gpunn.types import Array


def outputs(network: Engine, X: Any, batch_size: int | None, link: str | None) -> Array:
    """The last layer's output, or the activation `link` of it; checks first that the device has room.

    `rehearse` does the same with a hollow network (see `Engine.rehearsed`), to count the bytes.
    """
    array = network.checked_inputs(X)
    planned = network.built()
    axis = array.ndim - len(planned.shape) - 1
    n, chunk = array.shape[axis], network.chunk(batch_size)
    stays = network.ops.owns(array)
    shape = (*network.model_axes, n, *planned.plan.output)
    function = resolve(link, "link")
    inputs = Checked(array, network.dtype, len(planned.shape))

    def rehearse(hollow: Engine, size: int) -> None:
        for rows in cut(n, size):
            hollow.compile(rows, training=False, backward=False)
        hollow.on_device(inputs.head(size).array)
        if function is not None:
            hollow.ops.empty((*network.model_axes, min(n, size), *planned.plan.output), network.dtype)
        if stays:
            hollow.ops.empty(shape, network.dtype)

    if not all(network.keeps(rows, training=False, backward=False) for rows in cut(n, chunk)):
        require_room("predict batch_size", "batch_size={}", network, Need(network.rehearsed, rehearse), chunk, n)
    out = network.ops.empty(shape, network.dtype) if stays else np.empty(shape, network.dtype)

    def compute(rows: slice) -> None:
        part = network.on_device(array[(slice(None),) * axis + (rows,)])
        A = network.compile(part.shape[axis], training=False, backward=False).forward(part)
        if function is not None:
            P = network.ops.empty(A.shape, network.dtype)  # A may be X itself
            function.value(network.ops, A, None, out=P)
            A = P
        place = (slice(None),) * len(network.model_axes) + (rows,)
        if stays:
            network.ops.copy(A, out=out[place])
        else:
            out[place] = network.ops.to_host(A)

    for start in range(0, n, chunk):
        compute(slice(start, min(start + chunk, n)))
    return out
