"""Consecutive dense layers: backward through all at once equals backward through each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.reference.backend import Backend
from tests import zoo
from tests.strict.epilogues import Epilogue
from tests.training.stage import prepared

DEEP = [
    gn.Dense(16, "relu"),
    gn.Dense(8, gn.GELU("tanh")),
    gn.Dense(8, "tanh", bias=False),
    gn.Dense(24, "relu"),
    gn.Dense(3),
]
STACKS = {
    "deep": DEEP,
    "broken": [*DEEP[:2], gn.BatchNorm(), *DEEP[2:4], gn.Dropout(0.2), gn.Dense(3)],
    "nested": [gn.Residual([gn.Dense(8, "relu"), gn.Dense(8, "relu")], shortcut=gn.Dense(8)), *DEEP[1:]],
    "one output": [gn.Dense(8, "relu"), gn.Dense(1, "relu"), gn.Dense(3)],
}  # fmt: skip


def gradients(device: Any, layers: Any, models: int | None = None, dtype: str = "float64", like: Any = None) -> Any:
    """The network and all its gradients one after another, from the values of another network where one is given."""
    network, run, (X, y) = prepared(layers, device, models, dtype=dtype)
    if like is not None:
        network.load_parameters({**like.parameters, **like.state})
    A = run.forward(X)
    run.value(A, y)
    run.backward()
    views = network.store.gradient_views.values()
    return network, np.concatenate([network.ops.to_host(view).ravel() for view in views])


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("activation", zoo.ACTIVATIONS, ids=str)
def test_consecutive_dense_layers_on_the_cpu_have_the_bits_of_single_layers(
    activation: Any, stack: str, models: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [gn.Dense(5, activation), gn.Dense(4, activation), *STACKS[stack]]
    for dtype in ("float32", "float64"):
        together = gradients("cpu", layers, models, dtype)[1]
        with monkeypatch.context() as patch:
            single = property(lambda self: tuple(slice(i, i + 1) for i in reversed(range(len(self.layers)))))
            patch.setattr(gn.Sequential, "groups", single)
            np.testing.assert_array_equal(together, gradients("cpu", layers, models, dtype)[1])


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("stack", STACKS)
def test_gradients_through_consecutive_dense_layers_agree_with_the_reference(
    backend: Any, stack: str, models: int | None
) -> None:
    reference, expected = gradients(Backend(), STACKS[stack], models)
    for dtype, tolerance in (("float64", 1e-12), ("float32", 2e-5)):
        _, result = gradients(backend, STACKS[stack], models, dtype, like=reference)
        np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@dataclass(frozen=True)
class Doubled(gn.Dense):
    """A dense layer of a user with a backward method of its own."""

    def backward(self, t: Any, dA: Any) -> Any:
        dX = gn.Dense.backward(self, t, dA)
        t.dW[...] = 2 * t.dW
        return dX


def test_sequential_groups_consecutive_dense_layers() -> None:
    dense, other, own = gn.Dense(3), gn.LayerNorm(), Doubled(3)
    for layers, expected in (
        ([dense], [[0]]),
        ([other, other], [[1], [0]]),
        ([dense, dense, dense], [[0, 1, 2]]),
        ([dense, other, dense, dense, own, dense], [[5], [4], [2, 3], [1], [0]]),
    ):
        assert [list(range(6))[group] for group in gn.Sequential(layers).groups] == expected


def test_the_backward_method_of_a_user_defined_dense_layer_is_called() -> None:
    plain, once = gradients("cpu", [gn.Dense(4, "relu"), gn.Dense(4, "relu"), gn.Dense(3)])
    own, twice = gradients("cpu", [gn.Dense(4, "relu"), Doubled(4, "relu"), gn.Dense(3)])
    W = own.store.gradient_views["1.W"]
    np.testing.assert_array_equal(W, 2 * plain.store.gradient_views["1.W"])
    assert (once != twice).sum() == np.count_nonzero(W)


@pytest.mark.parametrize("models", [None, 3])
def test_a_step_through_consecutive_dense_layers_is_one_launch_for_each_product(
    strict: Any, models: int | None
) -> None:
    layers = [gn.Dense(16, "relu"), gn.Dense(8, gn.GELU("tanh")), gn.Dense(3)]
    network, run, (X, y) = prepared(layers, strict, models)
    counters, launched = strict.xp.counters, strict.cublaslt.module.launched
    for _ in range(2):
        counters.reset()
        del launched[:]
        A = run.forward(X)
        assert counters.launches == 3
        run.value(A, y)
        counters.reset()
        run.backward()
    assert counters.launches == 5
    assert counters.transfers == counters.synchronisations == counters.allocations == 0
    E = Epilogue
    assert launched == [E.RELU_AUX_BIAS, E.GELU_AUX_BIAS, E.BIAS, E.BGRADA, E.DGELU, E.BGRADA, E.DRELU, E.BGRADA]
    assert network.ops is strict


@pytest.mark.parametrize("models", [None, 3])
def test_relu_masks_are_kept_on_cuda_if_a_backward_pass_may_follow(backend: Any, models: int | None) -> None:
    network, run, (_, _) = prepared([gn.Dense(130, "relu"), gn.Dense(3)], backend, models)
    frame = run.frame.children["0"]
    if backend.name == "cuda":
        assert frame.mask.shape == (*network.model_axes, 6, 32)
        assert frame.mask.dtype == np.uint8
    else:
        assert frame.mask is None
    evaluation = network.compile(6, training=False, backward=False)
    assert evaluation.frame.children["0"].mask is None
    with pytest.raises(AttributeError, match="this frame has no 'mask'"):
        _ = run.frame.children["1"].mask
