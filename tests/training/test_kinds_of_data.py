"""Data that `Network.fit` takes beside float arrays: bytes, lists, a set for each model."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from tests.training.small_set import CLASSES, INPUTS, LABELS, LOSS, ROWS, WEIGHT, X, Y, network, plain, train, vector


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_on_bytes_with_a_scale_equals_fit_on_scaled_floats(backend: Any, dtype: str) -> None:
    """uint8 images with scale=1/255 train as the same numbers scaled beforehand."""
    images = np.random.default_rng(3).integers(0, 256, (ROWS, 4, 4)).astype("uint8")
    layers = [gn.Flatten(), gn.Dense(5, "relu"), gn.Dense(CLASSES)]
    as_bytes = gn.Network(layers, (4, 4), device=backend, dtype=dtype, scale=1 / 255)
    as_floats = gn.Network(layers, (4, 4), device=backend, dtype=dtype)
    scaled = images.astype(dtype) * np.dtype(dtype).type(1 / 255)
    a = train(as_bytes, images, validation=(images[:9], LABELS[:9]), batch_size=15)
    b = train(as_floats, scaled, validation=(scaled[:9], LABELS[:9]), batch_size=15)
    atol = 1e-13 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(vector(as_bytes), vector(as_floats), rtol=0, atol=atol)
    np.testing.assert_allclose(a["validation_loss"], b["validation_loss"], rtol=0, atol=atol)
    raw = gn.Network(layers, (4, 4), device=backend, dtype=dtype)
    train(raw, images, batch_size=15)
    assert np.abs(vector(raw) - vector(as_floats)).max() > 1e-2


@pytest.mark.parametrize("own_y", [False, True])
@pytest.mark.parametrize("target", ["classes", "numbers"])
def test_a_population_trains_each_model_on_a_set_of_its_own(backend: Any, target: str, own_y: bool) -> None:
    """X of shape (K, n, features); y for all, or for each model too. Each trains as it would alone."""
    several = np.stack([INPUTS, INPUTS[::-1] * 0.5])
    ys = [LABELS, LABELS[::-1]] if target == "classes" else [Y, 0.5 * Y]
    options: dict[str, Any] = {"batch_size": 15, "loss": LOSS if target == "classes" else gn.SquaredError()}
    outputs = CLASSES if target == "classes" else 2
    net = plain(backend, models=2, seed=[3, 8], outputs=outputs)
    history = train(net, several, np.stack(ys) if own_y else ys[0], **options)
    for k, seed in enumerate((3, 8)):
        one = plain(backend, seed=seed, outputs=outputs)
        alone = train(one, several[k], ys[k] if own_y else ys[0], **options)
        np.testing.assert_allclose(vector(net)[k], vector(one), rtol=0, atol=1e-13)
        np.testing.assert_allclose(history.loss[:, k], alone.loss, rtol=1e-13)


def test_fit_takes_lists_and_integers() -> None:
    a, b = network(), network()
    train(a, X.astype("float32").tolist(), LABELS.tolist())
    train(b, X.astype("float32"), LABELS.astype("int8"))
    np.testing.assert_array_equal(vector(a), vector(b))


@pytest.mark.parametrize("sampling", ["shuffle", "sequential"])
def test_fit_does_not_write_into_its_data(sampling: str) -> None:
    X_, y, weight = X.copy(), LABELS.copy(), WEIGHT.copy()
    for array in (X_, y, weight):
        array.flags.writeable = False
    train(network(), X_, y, sample_weight=weight, sampling=sampling, validation=(X_, y, weight))
    np.testing.assert_array_equal(X_, X)
