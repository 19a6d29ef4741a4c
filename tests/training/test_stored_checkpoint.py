"""A checkpoint that an earlier version wrote goes on to where that version came."""

from pathlib import Path

import numpy as np

import gpunn as gn
from tests.training.stored_training import X, Y, network, options

STORED = Path(__file__).parent / "stored"


def test_an_earlier_checkpoint_is_resumed_to_the_same_end() -> None:
    net = network()
    history = net.fit(X, Y, **options(), resume=STORED / "population.gpunn")
    with np.load(STORED / "population.npz") as expected:
        np.testing.assert_allclose(net.vector, expected["vector"], rtol=1e-9, atol=1e-12)
        for name in ("loss", "validation_loss"):
            np.testing.assert_allclose(history[name], expected[name], rtol=1e-9)
            assert len(history[name]) == 7


def test_an_earlier_checkpoint_is_read_as_a_network() -> None:
    net = gn.load(STORED / "population.gpunn", device="cpu")
    assert net.models == 2 and net.predict(X).shape == (2, 90, 3)
    assert np.isfinite(net.vector).all()
