"""What is done to a gradient before an update and to the weights after it."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.regularization import L1, L2, MaxNorm
from tests.training.small_set import LABELS, LOSS, ROWS, X, hosts, network, train, values, vector


def first_gradient(net: gn.Network, penalty: float = 0.0) -> Any:
    """The gradient of the loss of the whole set and λ‖W‖², as a vector."""
    net.gradients(X, LABELS, LOSS)
    g = net.ops.to_host(net.gradient_vector)
    g[: net.store.decaying] += 2 * penalty * vector(net)[: net.store.decaying]
    return g


@hosts
@pytest.mark.parametrize("relative", [0.3, 3.0])
def test_fit_with_clip_norm_limits_the_length_of_the_whole_gradient(backend: Any, relative: float) -> None:
    """The gradient with that of the penalty gets at most this length."""
    net = network(backend)
    g, before = first_gradient(net, 0.2), vector(net)
    length = np.linalg.norm(g)
    train(net, epochs=1, batch_size=ROWS, clip_norm=relative * length, regularization=L2(0.2))
    np.testing.assert_allclose(before - vector(net), 0.1 * g * min(1.0, relative), rtol=1e-10, atol=1e-15)


@hosts
def test_fit_clips_values_before_it_clips_the_norm(backend: Any) -> None:
    net = network(backend)
    g, before = first_gradient(net), vector(net)
    limit = np.abs(g).max() / 3
    bounded = np.clip(g, -limit, limit)
    assert (bounded != g).any()
    train(net, epochs=1, batch_size=ROWS, clip_value=limit)
    np.testing.assert_allclose(before - vector(net), 0.1 * bounded, rtol=1e-10, atol=1e-15)
    both = network(backend)
    length = np.linalg.norm(bounded)
    train(both, epochs=1, batch_size=ROWS, clip_value=limit, clip_norm=0.5 * length)
    np.testing.assert_allclose(before - vector(both), 0.05 * bounded, rtol=1e-10, atol=1e-15)


@hosts
def test_a_penalty_changes_steps_but_not_the_recorded_loss(backend: Any) -> None:
    net = network(backend)
    g, before = first_gradient(net), vector(net)
    decaying = np.arange(g.size) < net.store.decaying
    wanted = net.loss_of(X, LABELS, LOSS)
    history = train(net, epochs=1, batch_size=ROWS, regularization=[L1(0.3), L2(0.2)])
    step = 0.1 * (g + decaying * (0.3 * np.sign(before) + 0.4 * before))
    np.testing.assert_allclose(before - vector(net), step, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(history.loss, [wanted], rtol=1e-12)


@hosts
def test_fit_with_max_norm_keeps_the_limit_after_every_update(backend: Any) -> None:
    lengths: list[Any] = []

    class Lengths(gn.Callback):
        def on_step(self, run: Any) -> None:
            lengths.append(np.linalg.norm(values(run.network)["1.W"], axis=0))

    net = network(backend)
    assert (np.linalg.norm(values(net)["1.W"], axis=0) > 0.3).any()
    train(net, batch_size=15, regularization=MaxNorm(0.3), callbacks=[Lengths()], optimizer=gn.SGD(1.0))
    assert len(lengths) == 8 and np.max(lengths) < 0.3 * (1 + 1e-14) and np.max(lengths) > 0.3 * (1 - 1e-14)
