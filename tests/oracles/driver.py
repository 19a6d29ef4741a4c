"""One layer or one loss by itself, planned and run as a network runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.backends.reference.backend import Backend
from gpunn.frame import Frame, Planned, Setting, plan_layer
from gpunn.layers import Layer
from gpunn.losses import Loss
from gpunn.parameters import ParameterStore
from gpunn.passes import check_rows

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LayerRun:
    A: np.ndarray
    dX: np.ndarray | None
    gradients: dict[str, np.ndarray]
    state: dict[str, np.ndarray]


def setting_of(ops: Backend, planned: Planned, dtype: Any, rows: int, training: bool, models: int | None) -> Setting:
    store = ParameterStore(planned.parameters, planned.state, ops, dtype, tuple(range(models or 1)), models)
    return Setting(ops, store, rows, ops.zeros((1,), np.uint64), training, backward=True, track=True)


def layer_forward_backward(
    ops: Backend,
    layer: Layer,
    X: np.ndarray,
    dA: np.ndarray,
    values: Values | None = None,
    *,
    training: bool = True,
    models: int | None = None,
) -> LayerRun:
    """Forward on X (n, *shape) and backward from dA, with parameters and state as given and all others as they start.

    With models=K, X may also be (K, n, *shape): then dA has one axis more than the layer's output for one model.
    """
    own = models is not None and X.ndim == dA.ndim
    planned = plan_layer(layer, X.shape[2:] if own else X.shape[1:])
    setting = setting_of(ops, planned, dA.dtype, X.shape[1 if own else 0], training, models)
    store = setting.store
    store.load(
        {name: ops.to_host(view) for name, view in (store.views | store.state_views).items()} | dict(values or {})
    )
    check_rows(planned, setting)
    frame = Frame(setting, planned, wants_dX=True)
    X_device, dA_device = ops.from_host(X), ops.from_host(dA)
    A = ops.to_host(layer.forward(frame, X_device))  # copied: backward may write over it
    assert A.shape == dA.shape
    assert A.dtype == dA.dtype
    dX = layer.backward(frame, dA_device)
    np.testing.assert_array_equal(ops.to_host(dA_device), dA, err_msg="backward changed dA")
    return LayerRun(
        A,
        None if dX is None else ops.to_host(dX),
        {name: ops.to_host(view) for name, view in store.gradient_views.items()},
        {name: ops.to_host(view) for name, view in store.state_views.items()},
    )


@dataclass(frozen=True)
class LossRun:
    value: np.ndarray
    terms: np.ndarray  # what the value is the (scaled) sum of: one number for each output or each row
    dA: np.ndarray


def loss_forward_backward(
    ops: Backend, loss: Loss, A: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None
) -> LossRun:
    """The loss of outputs A (n, *shape) and its gradient; `weight` is one factor for each row."""
    planned = Planned(Layer(), "loss", A.shape[1:], loss.plan(A.shape[1:]), {})
    frame = Frame(setting_of(ops, planned, A.dtype, A.shape[0], True, None), planned, wants_dX=False)
    dA = loss.evaluate(
        frame, ops.from_host(A), ops.from_host(y), None if weight is None else ops.from_host(weight, A.dtype)
    )
    return LossRun(ops.to_host(frame.value), ops.to_host(frame.L), ops.to_host(dA))
