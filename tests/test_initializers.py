"""Initializers: their distributions, their streams, and what they refuse."""

import math
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import initializers
from gpunn.errors import ConfigurationError
from gpunn.initializers import (
    Constant,
    Gaussian,
    Glorot,
    He,
    Initializer,
    LeCun,
    Orthogonal,
    Uniform,
    Zeros,
    for_activation,
)
from gpunn.randomness import Purpose, stream_key
from tests.faults import FORM

KEY = stream_key(3, Purpose.INITIAL, 1)
SHAPE = (200, 300)
ALL = (Constant(0.5), Zeros(), Gaussian(), Uniform(), Glorot(), He(), LeCun(), Orthogonal())


def test_all_initializers_are_tested() -> None:
    public = {cls for cls in vars(initializers).values() if isinstance(cls, type) and issubclass(cls, Initializer)}
    assert {type(one) for one in ALL} == public - {Initializer}


@pytest.mark.parametrize(
    ("initializer", "deviation"),
    [
        (Gaussian(), 0.01), (Gaussian(2.0), 2.0), (Glorot(), math.sqrt(2 / 500)), (Glorot(3.0), 3 * math.sqrt(2 / 500)),
        (He(), math.sqrt(2 / 200)), (LeCun(), math.sqrt(1 / 200)),
    ],
    ids=repr,
)  # fmt: skip
def test_normal_initializers_have_their_deviation(initializer: Initializer, deviation: float) -> None:
    values = initializer.values(KEY, SHAPE) / deviation
    count = values.size
    assert abs(values.mean()) < 5 / math.sqrt(count)
    assert abs(values.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((values**3).mean()) < 5 * math.sqrt(15 / count)
    assert abs((values**4).mean() - 3) < 5 * math.sqrt(96 / count)


def test_the_uniform_initializer_fills_its_interval_evenly() -> None:
    values = Uniform(0.2).values(KEY, SHAPE)
    assert values.min() >= -0.2
    assert values.max() < 0.2
    counts = np.histogram(values, 10, (-0.2, 0.2))[0]
    expected = values.size / 10
    assert (np.square(counts - expected) / expected).sum() < 40  # 9 degrees of freedom: above once in 1e5


def test_constant_initializers_give_their_constant() -> None:
    assert (Constant(0.25).values(KEY, (2, 3)) == 0.25).all()
    assert (Zeros().values(KEY, (2, 3)) == 0).all()


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (1, 4), (4, 1)], ids=str)
def test_the_orthogonal_initializer_gives_orthogonal_rows_or_columns(shape: tuple[int, int]) -> None:
    Q = Orthogonal(2.0).values(KEY, shape)
    product = Q @ Q.T if shape[0] <= shape[1] else Q.T @ Q
    np.testing.assert_allclose(product, 4 * np.eye(min(shape)), atol=1e-14)


def test_the_orthogonal_initializer_prefers_no_direction() -> None:
    """A QR factorisation alone would always give the first diagonal element the same sign."""
    signs = [np.sign(Orthogonal().values(stream_key(s, Purpose.INITIAL), (3, 3))[0, 0]) for s in range(200)]
    assert 60 < signs.count(1.0) < 140


@pytest.mark.parametrize("initializer", ALL, ids=repr)
def test_the_stream_decides_what_an_initializer_draws(initializer: Initializer) -> None:
    values = initializer.values(KEY, (4, 5))
    assert values.dtype == np.float64
    assert values.shape == (4, 5)
    np.testing.assert_array_equal(initializer.values(KEY.copy(), (4, 5)), values)
    other = initializer.values(stream_key(4, Purpose.INITIAL, 1), (4, 5))
    assert (other == values).all() == isinstance(initializer, (Constant, Zeros))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, He()) for name in ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus")),
        ("selu", LeCun()), ("tanh", Glorot()), ("sigmoid", Glorot()), ("softmax", Glorot()), (None, Glorot()),
    ],
)  # fmt: skip
def test_the_default_initializer_is_chosen_for_the_activation(name: str | None, expected: Initializer) -> None:
    assert for_activation(name) == expected
    assert gn.Dense(4, name).plan((3,)).parameters["W"].initializer == expected
    assert gn.Dense(4, name, initializer=Zeros()).plan((3,)).parameters["W"].initializer == Zeros()


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initial_values_are_the_same_on_every_device(backend: Any, dtype: str, models: int | None) -> None:
    layers = [gn.Dense(4, initializer=one) for one in ALL]
    network = gn.Network(layers, 3, device=backend, dtype=dtype, models=models, seed=5)
    reference = gn.Network(layers, 3, device="cpu", dtype=dtype, models=models, seed=5)
    assert backend.to_host(network.vector).tobytes() == reference.vector.tobytes()


def test_two_equal_layers_start_with_different_weights() -> None:
    network = gn.Network([gn.Dense(3), gn.Dense(3)], 3, device="cpu")
    assert (network.parameters["0.W"] != network.parameters["1.W"]).all()


@pytest.mark.parametrize("bad", ["a", None, True, math.nan, math.inf, [1.0], 10**400, 1j], ids=lambda v: repr(v)[:9])
@pytest.mark.parametrize(
    ("kind", "field"),
    [(Constant, "value"), (Gaussian, "deviation"), (Uniform, "limit"), (Glorot, "gain"), (Orthogonal, "gain")],
)
def test_initializers_refuse_what_is_not_a_number(kind: type[Initializer], field: str, bad: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{kind.__name__} {field}: expected a finite number, got .*; "):
        kind(bad)


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(1), 1], ids=repr)
def test_numbers_of_an_initializer_become_python_floats(number: Any) -> None:
    made = Constant(number)
    assert type(made.value) is float
    assert made == Constant(float(number))
    assert repr(made) == f"Constant({float(number)})"


@pytest.mark.parametrize("bad", ["he", He, 5, gn.Dense(2)], ids=repr)
def test_layers_refuse_what_is_not_an_initializer(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match=FORM):
        gn.Dense(3, initializer=bad)


def test_a_user_defined_initializer_needs_a_values_method() -> None:
    class Nothing(Initializer, abstract=True):
        pass

    with pytest.raises(NotImplementedError, match="Nothing needs a values method"):
        Nothing().values(KEY, (1, 1))
