"""A thousand steps on the CPU and on CUDA: the same random numbers to the bit, the same losses to 1e-10."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends import get_backend
from gpunn.randomness import Purpose, stream_key
from tests.conftest import backend_named

RNG = np.random.default_rng(3)
X = RNG.normal(size=(128, 6))
Y = RNG.integers(0, 3, 128)
STEPS, BATCH = 1000, 16


@pytest.fixture(params=["strict", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> Any:
    return backend_named(request.param)


def network(device: Any) -> gn.Network:
    layers = [gn.Dense(12, "tanh"), gn.BatchNorm(activation="relu"), gn.Dropout(0.2), gn.Dense(8, "gelu"), gn.Dense(3)]
    return gn.Network(layers, 6, device=device, dtype="float64", seed=5)


def test_a_thousand_steps_on_cuda_give_the_losses_of_the_cpu(device: Any) -> None:
    curves = []
    for ops in (get_backend("cpu"), device):
        net = network(ops)
        history = net.fit(
            X, Y, loss=gn.CrossEntropy(), optimizer=gn.Adam(3e-3), steps=STEPS, batch_size=BATCH, keep="last"
        )  # fmt: skip
        curves.append(history["loss"])
    assert len(curves[0]) == STEPS // (len(X) // BATCH)
    assert curves[0][-1] < 0.8 * curves[0][0]  # something was learnt, so that something could go apart
    np.testing.assert_allclose(curves[1], curves[0], rtol=0, atol=1e-10)


def test_initial_values_shuffles_and_masks_on_cuda_have_the_bits_of_the_cpu(device: Any) -> None:
    drawn = []
    for ops in (get_backend("cpu"), device):
        net = network(ops)
        step = ops.from_host(np.array([7], np.uint64))
        order = ops.from_host(np.arange(1000))
        ops.permutation(ops.from_host(stream_key(5, Purpose.SHUFFLE)), step, out=order)
        run = net.compile(32, gn.CrossEntropy())
        run.forward(ops.from_host(RNG.normal(size=(32, 6)) * 0))
        mask = run.frame.children["2"].bits
        drawn.append([ops.to_host(array).tobytes() for array in (net.vector, order, mask)])
    assert drawn[0] == drawn[1]
