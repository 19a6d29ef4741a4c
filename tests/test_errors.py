"""Every error of gpunn has four parts and is also a built-in error of Python."""

import pickle

import pytest

from gpunn.errors import ArrayTypeError, ConfigurationError, DataError, DeviceError, GpunnError, ShapeError


@pytest.mark.parametrize("kind", [ConfigurationError, ShapeError, DataError, ArrayTypeError, DeviceError, GpunnError])
def test_an_error_says_where_what_was_expected_what_came_and_what_to_do(kind: type[GpunnError]) -> None:
    error = kind("X", expected="a", got="b", fix="do c")
    copy = pickle.loads(pickle.dumps(error))
    for one in (error, copy):
        assert type(one) is kind
        assert str(one) == "X: expected a, got b; do c"
        assert (one.where, one.expected, one.got, one.fix) == ("X", "a", "b", "do c")


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ConfigurationError, ValueError), (ShapeError, ValueError), (DataError, ValueError),
        (ArrayTypeError, TypeError), (DeviceError, RuntimeError),
    ],
)  # fmt: skip
def test_errors_of_gpunn_are_also_errors_of_python(kind: type[GpunnError], builtin: type[Exception]) -> None:
    assert issubclass(kind, builtin)
    assert issubclass(kind, GpunnError)
