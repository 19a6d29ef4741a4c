"""Data of the package: the digits, and generated tables that depend on size and seed alone."""

import hashlib
from importlib import resources
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError

MADE: dict[str, Any] = {"spirals": gn.data.spirals, "moons": gn.data.moons, "friedman": gn.data.friedman}


def test_the_built_in_digits_have_the_documented_content() -> None:
    table = gn.data.read("digits")
    X, y = table.arrays()
    assert (X.shape, X.dtype, y.dtype) == ((1797, 64), np.uint8, np.uint8)
    assert (X.min(), X.max()) == (0, 16)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert table.target_name == "digit" and table.source == "digits"
    assert X[0].reshape(8, 8)[1].tolist() == [0, 0, 13, 15, 10, 15, 5, 0]  # a zero


def test_the_built_in_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed (extra `sklearn`)")
    X, y = gn.data.digits().arrays()
    wanted = datasets.load_digits(return_X_y=True)
    np.testing.assert_array_equal(X, wanted[0])
    np.testing.assert_array_equal(y, wanted[1])


def test_the_licence_lies_beside_the_digits() -> None:
    folder = resources.files("gpunn.data")
    assert "CC BY 4.0" in folder.joinpath("DIGITS.txt").read_text(encoding="utf-8")
    assert len(folder.joinpath("digits.npz").read_bytes()) < 60_000


@pytest.mark.parametrize("name", MADE)
def test_generated_data_depend_on_size_and_seed_alone(name: str) -> None:
    make = MADE[name]
    X, y = make(300, seed=7).arrays()
    again, other = make(300, seed=7).arrays(), make(300, seed=8).arrays()
    np.testing.assert_array_equal(X, again[0])
    np.testing.assert_array_equal(y, again[1])
    assert (X != other[0]).all()
    assert X.dtype == np.float64 and len(X) == 300
    default = gn.data.read(name)
    assert default.rows == 1000
    np.testing.assert_array_equal(default.arrays()[0], make().arrays()[0])
    with pytest.raises(
        ConfigurationError, match=rf"^{name} n: expected a whole number >= 2, got 1; give such a number"
    ):
        make(1)
    with pytest.raises(ConfigurationError, match=rf"^{name} noise: expected a number with 0 <= value, got -1; choose"):
        make(noise=-1)
    with pytest.raises(ConfigurationError, match=r"expected integers from 0 to 2\*\*63 - 1, got -1; pass seed=0"):
        make(seed=-1)


def test_generated_data_never_change_between_versions() -> None:
    """They are made of counter-based random words, not of a library's generator; the uniform part never changes a
    bit."""
    X = gn.data.friedman(100, seed=1).arrays()[0]
    assert hashlib.sha256(X.tobytes()).hexdigest()[:16] == "2cff016a1d632041"


def test_spirals_makes_two_spirals_of_equal_size() -> None:
    X, y = gn.data.spirals(2000, noise=0.0).arrays()
    assert np.bincount(y).tolist() == [1000, 1000]
    radius, angle = np.hypot(*X.T), np.arctan2(X[:, 1], X[:, 0])
    turned = angle - np.pi * y  # the second is the first, half a turn on
    np.testing.assert_allclose(np.cos(radius * 3 * np.pi - turned), 1.0, atol=1e-9)
    assert radius.max() <= 1.0 < 1.01 * np.quantile(radius, 0.999)


def test_moons_makes_two_half_circles() -> None:
    X, y = gn.data.moons(2000, noise=0.0).arrays()
    upper, lower = X[y == 0], X[y == 1]
    np.testing.assert_allclose(np.hypot(*upper.T), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.hypot(lower[:, 0] - 1.0, lower[:, 1] - 0.5), 1.0, rtol=1e-12)
    assert upper[:, 1].min() >= 0.0 and lower[:, 1].max() <= 0.5


def test_friedman_makes_the_function_of_friedman_with_noise() -> None:
    table = gn.data.friedman(4000)
    X, y = table.arrays()
    assert X.shape == (4000, 10) and X.min() >= 0.0 and X.max() < 1.0
    noiseless = gn.data.friedman(4000, noise=0.0).arrays()[1]
    a, b, c, d, e = X[:, :5].T
    np.testing.assert_allclose(noiseless, 10 * np.sin(np.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e, rtol=1e-12)
    assert abs((y - noiseless).std() - 1.0) < 0.05 and abs((y - noiseless).mean()) < 0.05
    assert gn.data.Preprocessing.fit(table).task == "regression"
    assert gn.data.Preprocessing.fit("moons").task == "classification"
