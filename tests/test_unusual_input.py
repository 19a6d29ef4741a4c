"""Inputs and targets that look unusual and are right: they give the results of a clean copy."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.inputs import as_array
from tests.conftest import backend_named
from tests.faults import placed
from tests.refusals import CLASSES, CROSS, ENDS, LABELS, NUMBERS, PROBABILITIES, X, network_on


class Frame:
    """Like a pandas table: it is no array but can become one."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return X


class OldFrame:
    """The same, written before NumPy 2."""

    def __array__(self, dtype: Any = None) -> np.ndarray:
        return X


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def matrix(array: np.ndarray) -> np.ndarray:
    return array.view(np.matrix)


INTEGERS = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 1, 0]])
ODD_ARRAYS: dict[str, np.ndarray] = {
    "float16": X.astype("float16"),
    "float64": X.astype("float64"),
    "bool": X > 0,
    "uint8": INTEGERS.astype("uint8"),
    "int64": -INTEGERS,
    "uint64 far out": INTEGERS.astype("uint64") * 2**60,
    "big-endian": X.astype(">f4"),
    "big-endian integers": INTEGERS.astype(">i2"),
    "Fortran order": np.asfortranarray(X),
    "negative stride": X[::-1, ::-1],
    "every other row": np.repeat(X, 2, axis=0)[::2],
    "one row for all": np.broadcast_to(X[0], (4, 3)),
    "read-only": read_only(X),
}
ODD_VALUES: dict[str, Any] = {
    **ODD_ARRAYS,
    "lists": X.tolist(),
    "tuples": tuple(map(tuple, X.tolist())),
    "a list of arrays": list(X),
    "long double": X.astype(np.longdouble),
    "nothing masked": np.ma.masked_array(X),
    "a matrix": matrix(X),
    "a frame": Frame(),
    "an old frame": OldFrame(),
}


def clean(value: Any, dtype: str) -> np.ndarray:
    return np.array(np.asarray(value), dtype, order="C")


def assert_same_results(network: gn.Network, given: Any, usual: np.ndarray, y: Any, loss: gn.losses.Loss) -> None:
    """Bit for bit."""
    host = network.ops.to_host if network.ops.owns(given) else np.asarray
    np.testing.assert_array_equal(host(network.predict(given)), network.predict(usual))
    value, gradients = network.gradients(given, y, loss)
    expected_value, expected = network.gradients(usual, y, loss)
    assert value == expected_value
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(host(gradient), expected[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ODD_VALUES)
def test_unusual_inputs_give_the_results_of_a_clean_copy(backend: Any, kind: str, dtype: str) -> None:
    given = ODD_VALUES[kind]
    before = np.array(np.asarray(given))
    assert_same_results(network_on(backend, dtype=dtype), given, clean(given, dtype), LABELS, CROSS)
    np.testing.assert_array_equal(np.asarray(given), before)


@pytest.mark.parametrize("kind", [kind for kind in ODD_ARRAYS if not kind.startswith("big-endian")])
def test_unusual_inputs_on_a_device_give_the_results_of_a_clean_copy(strict: Any, kind: str) -> None:
    host = ODD_ARRAYS[kind]
    given = strict.from_host(np.ascontiguousarray(host))
    if kind == "negative stride":
        given = strict.from_host(np.ascontiguousarray(X))[::-1, ::-1]
    elif kind == "Fortran order":
        given = strict.from_host(np.ascontiguousarray(X.T)).T
    assert_same_results(network_on(strict), given, clean(host, "float32"), LABELS, CROSS)


@pytest.mark.parametrize("kind", ["big-endian", "big-endian integers"])
def test_big_endian_arrays_are_converted_when_they_come_in(kind: str) -> None:
    """CuPy has no kernels for it."""
    array = as_array("X", ODD_ARRAYS[kind], backend_named("cpu"))
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, ODD_ARRAYS[kind])


LAYERS_IN_FRONT = [
    gn.Dense(2), gn.Dropout(0.5), gn.GaussianNoise(), gn.BatchNorm(), gn.LayerNorm(), gn.RMSNorm(), gn.ReLU(),
    gn.Softmax(), gn.Flatten(), gn.Reshape((3,)), gn.Residual(gn.Dense(3)), gn.Branch([gn.Dense(2), gn.ReLU()]),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS_IN_FRONT, ids=repr)
def test_no_layer_writes_into_the_data_of_the_user(backend: Any, layer: gn.Layer) -> None:
    """An array of the right dtype and order is used without a copy."""
    network = gn.Network([layer], 3, device=backend)
    given = backend.from_host(X)
    y = np.zeros((4, *network.outputs))
    network.predict(given)
    network.gradients(given, y, gn.SquaredError())
    loss = gn.NLLM() if isinstance(layer, gn.Softmax) else CROSS
    network.predict_probability(given, loss=loss)
    network.evaluate(given, LABELS, loss=loss, metrics=["accuracy"])
    assert backend.to_host(given).tobytes() == X.tobytes()


def test_a_softmax_fused_with_its_loss_does_not_write_into_the_data(backend: Any) -> None:
    network, given = gn.Network([gn.Flatten(), gn.Softmax()], 3, device=backend), backend.from_host(X)
    network.evaluate(given, LABELS, loss=gn.NLLM(), metrics=["accuracy"])
    assert backend.to_host(given).tobytes() == X.tobytes()


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("loss", CLASSES, ids=repr)
@pytest.mark.parametrize(
    "y",
    [
        LABELS.astype("float64"), LABELS.astype("uint8"), LABELS.astype("int8"), LABELS.astype(bool),
        LABELS.astype(">i4"), LABELS.astype("float16"), np.eye(2)[LABELS], np.eye(2, dtype=int)[LABELS],
        np.repeat(LABELS, 2)[::2],
    ],
    ids=["floats", "uint8", "int8", "bool", "big-endian", "float16", "one-hot", "integer one-hot", "strided"],
)  # fmt: skip
def test_classes_of_any_dtype_and_form_give_the_same_loss(
    backend: Any, loss: gn.losses.Loss, y: np.ndarray, place: str
) -> None:
    network = gn.Network([gn.Dense(2, ENDS.get(type(loss)))], 3, device=backend, dtype="float64")
    if place == "device" and not y.dtype.isnative:
        pytest.skip("CuPy has no arrays in a foreign byte order")
    value, gradients = network.gradients(X, placed(backend, y, place), loss)
    expected_value, expected = network.gradients(X, LABELS.tolist(), loss)
    np.testing.assert_allclose(value, expected_value, rtol=1e-14)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-13, atol=1e-15, err_msg=name)


@pytest.mark.parametrize("place", ["host", "device"])
def test_soft_targets_are_a_mixture_of_classes(backend: Any, place: str) -> None:
    network = gn.Network([gn.Dense(2)], 3, device=backend, dtype="float64")
    soft = np.array([[0.25, 0.75]] * 4)
    no, yes = (network.loss_of(X, np.full(4, label), CROSS) for label in (0, 1))
    value = network.loss_of(X, placed(backend, soft, place), CROSS)
    np.testing.assert_allclose(value, 0.25 * no + 0.75 * yes, rtol=1e-14)


@pytest.mark.parametrize("loss", [*NUMBERS, *PROBABILITIES], ids=repr)
@pytest.mark.parametrize("y", [[[0], [1], [1], [0]], np.array([[0], [1], [1], [0]], ">u2"), LABELS[:, None] > 0])
def test_target_columns_of_any_dtype_and_form_give_the_same_loss(backend: Any, loss: gn.losses.Loss, y: Any) -> None:
    network = gn.Network([gn.Dense(1, ENDS.get(type(loss)))], 3, device=backend)
    assert network.loss_of(X, y, loss) == network.loss_of(X, LABELS[:, None].astype("float32"), loss)
