"""Compares an operation with the reference in float64."""

from typing import Any

import numpy as np

from gpunn.backends.reference.backend import Backend
from tests.backends.calls import Call, Placed

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


def assert_close(actual: Any, expected: Any, dtype: str, what: str = "") -> None:
    """Equal to the tolerance of the dtype, relative to the largest element: sums cancel."""
    assert actual.shape == expected.shape
    size = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype] * size, err_msg=what)


def check(backend: Any, call: Call, dtype: str, strided: bool = False) -> None:
    expected, actual = Placed(Backend(), call, "float64"), Placed(backend, call, dtype, strided)
    expected.run()
    actual.run()
    for got, wanted in zip(actual.results(), expected.results(), strict=True):
        assert_close(got, wanted, dtype, call.name)
