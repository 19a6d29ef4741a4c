"""The numbers that an embedding takes for rows of its table."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError, DataError
from gpunn.testing import check_gradients
from tests.faults import exactly, placed, unchanged
from tests.refusals import SQUARED

TABLE = gn.Embedding(5, 2)
INDEX_FAULTS = {
    "negative": (np.array([[0, -1, -2]]), "-1 at [0, 1] and 1 more"),
    "beyond": (np.array([[0, 1, 5]]), "5 at [0, 2]"),
    "fraction": (np.array([[0.0, 0.5, 1.0]]), "0.5 at [0, 1]"),
    "unsigned beyond": (np.array([[2**63 + 1, 0, 1]], np.uint64), "9223372036854775809 at [0, 0]"),
}


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("fault", INDEX_FAULTS)
@pytest.mark.parametrize("before", [[], [gn.Reshape((3, 1))]], ids=["first", "reshaped"])
def test_an_embedding_refuses_indices_outside_its_table(
    backend: Any, before: list[gn.Layer], fault: str, place: str
) -> None:
    indices, got = INDEX_FAULTS[fault]
    network = gn.Network([*before, TABLE, gn.Flatten()], 3, device=backend)
    message = (
        f"X for layers.{len(before)} Embedding: expected whole numbers from 0 to 4, got {got}; "
        "raise categories, or map the column to 0, 1, 2, ..."
    )
    with unchanged(network), pytest.raises(DataError, match=exactly(message)):
        network.gradients(placed(backend, indices, place), np.zeros((1, 6)), SQUARED)


def test_an_embedding_refuses_a_missing_index() -> None:
    network = gn.Network([TABLE], 3, device="cpu")
    with pytest.raises(DataError, match=exactly("X: expected finite numbers, got nan at [0, 1]; drop or fill them")):
        network.predict([[0, np.nan, 1]])


@pytest.mark.parametrize("indices", [[[0.0, 4.0, 2.0]], [[False, True, True]]], ids=["floats", "bools"])
def test_an_embedding_takes_whole_numbers_of_any_dtype(backend: Any, indices: list[list[Any]]) -> None:
    network = gn.Network([TABLE], 3, device=backend)
    table = network.ops.to_host(network.parameters["0.E"])
    np.testing.assert_array_equal(network.predict(indices), table[np.array(indices, int)])


def test_an_embedding_and_a_dense_layer_may_read_the_same_numbers(backend: Any) -> None:
    network = gn.Network([gn.Branch([[TABLE, gn.Flatten()], gn.Dense(2)])], 3, device=backend)
    numbers = np.array([[1, 2, 3], [0, 4, 0]])
    np.testing.assert_array_equal(network.predict(numbers), network.predict(numbers.astype("float32")))


def test_only_the_columns_that_an_embedding_reads_must_be_indices(backend: Any) -> None:
    """The other columns may hold any numbers."""
    tables = gn.Branch([gn.Columns(0, 2), [gn.Columns(1, 4), gn.Columns(1, 3), TABLE, gn.Flatten()]])
    network = gn.Network([tables, gn.Dense(2)], 4, device=backend, dtype="float64", models=2)
    X = np.array([[-0.5, 1e9, 4, 0], [7.25, -3, 2, 1]])
    check_gradients(network, X, [[1.0, 0.0], [0.0, 1.0]], SQUARED)
    table = network.ops.to_host(network.parameters["0.1.2.E"])
    first = gn.Network([tables], 4, device=backend, dtype="float64", models=2)
    first.load_parameters({"0.1.2.E": table})
    A = first.predict(X)
    np.testing.assert_array_equal(A[1, 0], [-0.5, 1e9, *table[1, 4], *table[1, 0]])
    for own, place in ((X, "[0, 0]"), (np.stack([X, X]), "[0, 0, 0]")):
        wrong = own.copy()
        wrong[..., 0, 2] = 5
        more = "" if own.ndim == 2 else " and 1 more"
        message = (
            f"X[:, 2:4] for layers.0.1.2 Embedding: expected whole numbers from 0 to 4, got 5.0 at {place}{more}; "
            "raise categories, or map the column to 0, 1, 2, ..."
        )
        with unchanged(network), pytest.raises(DataError, match=exactly(message)):
            network.predict(wrong)


def test_only_the_numbers_of_an_image_that_an_embedding_reads_must_be_indices() -> None:
    layers = [gn.Flatten(), gn.Columns(4, 6), TABLE, gn.Flatten()]
    network = gn.Network(layers, (2, 3), device="cpu")
    X = np.array([[[0.5, 9, 9], [9, 3, 1]]])
    np.testing.assert_array_equal(network.predict(X)[0], network.parameters["2.E"][[3, 1]].reshape(-1))
    with pytest.raises(DataError, match=r"^X\[:, 4:6\] for layers\.2 Embedding: .* got 9\.0 at \[0, 0\]; raise"):
        network.predict(np.array([[[0.5, 9, 9], [9, 9, 1]]]))


def test_large_indices_of_an_embedding_are_not_rounded() -> None:
    categories = 2**24 + 2
    network = gn.Network([gn.Embedding(categories, 1)], 1, device="cpu")
    network.parameters["0.E"][-1] = 7.0
    assert network.predict(np.array([[categories - 1.0]])).item() == 7.0


@pytest.mark.parametrize(
    "before",
    [gn.Dense(3), gn.Dropout(0.5), gn.GaussianNoise(5.0), gn.LayerNorm(affine=False), gn.Sigmoid()],
    ids=repr,
)
def test_an_embedding_after_a_computing_layer_is_refused(before: gn.Layer) -> None:
    """X is checked, but not what a layer computes from it; on CUDA a wrong index would read foreign memory."""
    with pytest.raises(ConfigurationError, match=r"^layers\.1 Embedding: expected indices from the data, got .*; put"):
        gn.Network([before, TABLE, gn.Flatten()], 3, device="cpu").gradients([[1, 2, 3]], np.zeros((1, 6)), SQUARED)
