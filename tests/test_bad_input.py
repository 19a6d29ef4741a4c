"""Every kind of input that cannot be right: one exception, its message, and nothing computed."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.formula import formulas
from gpunn.errors import (
    ArrayTypeError,
    ConfigurationError,
    DataError,
    DeviceError,
    GpunnError,
    ShapeError,
)
from gpunn.inputs import as_array
from gpunn.testing import check_gradients
from tests.conftest import backend_named, strict_backend
from tests.faults import FORM, exactly, placed, unchanged

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
LABELS = np.array([0, 1, 1, 0])
NOT_NUMBERS = "encode categories as integers, leave out or fill missing values, and pass numbers"
EVERY = "give every example the shape (3,)"


def network_on(backend: Any, end: str | None = None, **options: Any) -> gn.Network:
    """A network whose vectors, gradients and state are all other than 0."""
    network = gn.Network([gn.Dense(4, "tanh"), gn.BatchNorm(), gn.Dense(2, end)], 3, device=backend, **options)
    network.gradients(X, np.eye(2)[LABELS], gn.SquaredError())
    return network


USES: dict[str, Callable[[gn.Network, Any], Any]] = {
    "predict": lambda network, X: network.predict(X),
    "predict_probability": lambda network, X: network.predict_probability(X, loss=gn.CrossEntropy()),
    "evaluate": lambda network, X: network.evaluate(X, LABELS, loss=gn.CrossEntropy()),
    "gradients": lambda network, X: network.gradients(X, LABELS, gn.CrossEntropy()),
    "loss_of": lambda network, X: network.loss_of(X, LABELS, gn.CrossEntropy()),
}


def with_bad(value: float, *places: tuple[int, int]) -> np.ndarray:
    """X with some values replaced."""
    bad = X.copy()
    for place in places:
        bad[place] = value
    return bad


class Sparse:
    """As SciPy's sparse matrices: NumPy makes an object of it."""

    shape, ndim = (4, 3), 2

    def toarray(self) -> np.ndarray:
        return X


class Attached:
    """As a tensor that takes part in a gradient elsewhere: it refuses to become an array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("call detach() first")


ARRAY_FAULTS: dict[str, tuple[np.ndarray, type[GpunnError], str]] = {
    "one example": (X[0], ShapeError, "expected shape (n, 3), got (3,); for one example pass X[None]"),
    "narrow": (X[:, :2], ShapeError, f"expected shape (n, 3), got (4, 2); {EVERY}"),
    "wide": (np.ones((4, 5)), ShapeError, f"expected shape (n, 3), got (4, 5); {EVERY}"),
    "transposed": (X.T, ShapeError, f"expected shape (n, 3), got (3, 4); {EVERY}"),
    "rank 3": (np.ones((2, 4, 3)), ShapeError, f"expected shape (n, 3), got (2, 4, 3); {EVERY}"),
    "rank 0": (np.array(1.0), ShapeError, f"expected shape (n, 3), got (); {EVERY}"),
    "empty": (np.empty((0, 3)), DataError, "expected at least one example, got shape (0, 3); pass a batch"),
    "NaN": (with_bad(np.nan, (1, 2)), DataError, "expected finite numbers, got nan at [1, 2]; drop or fill them"),
    "infinity": (with_bad(np.inf, (3, 0)), DataError, "expected finite numbers, got inf at [3, 0]; drop or fill them"),
    "minus infinity": (
        with_bad(-np.inf, (2, 1), (3, 1)), DataError,
        "expected finite numbers, got -inf at [2, 1] and 1 more; drop or fill them",
    ),
    "half NaN": (
        np.full((2, 3), np.nan, np.float16), DataError,
        "expected finite numbers, got nan at [0, 0] and 5 more; drop or fill them",
    ),
    "complex": (X.astype("complex128"), ArrayTypeError, f"expected real numbers, got dtype complex128; {NOT_NUMBERS}"),
}  # fmt: skip


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("fault", ARRAY_FAULTS)
def test_an_array_that_cannot_be_X(backend: Any, fault: str, use: str, place: str) -> None:
    bad, error, message = ARRAY_FAULTS[fault]
    network, given = network_on(backend), placed(backend, bad, place)
    with unchanged(network), pytest.raises(error, match=exactly(f"X: {message}")):
        USES[use](network, given)


OTHER_FAULTS: dict[str, tuple[Any, type[GpunnError], str]] = {
    "no rows": ([], ShapeError, f"expected shape (n, 3), got (0,); {EVERY}"),
    "strings": ([["a", "b", "c"]], ArrayTypeError, f"expected real numbers, got dtype <U1; {NOT_NUMBERS}"),
    "numbers as text": ([["1", "2", "3"]], ArrayTypeError, f"expected real numbers, got dtype <U1; {NOT_NUMBERS}"),
    "bytes": (np.array([[b"1", b"2"]]), ArrayTypeError, f"expected real numbers, got dtype |S1; {NOT_NUMBERS}"),
    "objects": (X.astype(object), ArrayTypeError, f"expected real numbers, got dtype object; {NOT_NUMBERS}"),
    "a missing value": ([[1, 2, None]], ArrayTypeError, f"expected real numbers, got dtype object; {NOT_NUMBERS}"),
    "huge integers": ([[10**30, 1, 2]], ArrayTypeError, f"expected real numbers, got dtype object; {NOT_NUMBERS}"),
    "dates": (
        np.array([["2020-01-01"] * 3], "M8[D]"), ArrayTypeError,
        f"expected real numbers, got dtype datetime64[D]; {NOT_NUMBERS}",
    ),
    "records": (
        np.zeros((2, 3), [("a", "f8")]), ArrayTypeError,
        f"expected real numbers, got dtype [('a', '<f8')]; {NOT_NUMBERS}",
    ),
    "None": (None, ArrayTypeError, f"expected real numbers, got a NoneType; {NOT_NUMBERS}"),
    "a dict": ({"a": 1}, ArrayTypeError, f"expected real numbers, got a dict; {NOT_NUMBERS}"),
    "a generator": ((i for i in range(3)), ArrayTypeError, f"expected real numbers, got a generator; {NOT_NUMBERS}"),
    "sparse": (Sparse(), ArrayTypeError, "expected real numbers, got a Sparse; call its toarray()"),
    "refusing": (
        Attached(), ArrayTypeError,
        "expected a rectangular table of numbers, got Attached (call detach() first); "
        "give every row the same length, or pass one NumPy array",
    ),
    "masked": (
        np.ma.masked_array(X, mask=X > X.max() - 1e-6), DataError,
        "expected a number everywhere, got 1 masked values; fill them, as x.filled(0) does, or leave their rows out",
    ),
    "masked NaN": (
        np.ma.masked_invalid(with_bad(np.nan, (0, 0), (0, 1))), DataError,
        "expected a number everywhere, got 2 masked values; fill them, as x.filled(0) does, or leave their rows out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("fault", OTHER_FAULTS)
def test_a_value_that_cannot_be_X(fault: str, use: str) -> None:
    bad, error, message = OTHER_FAULTS[fault]
    for name in ("cpu", "strict"):
        network = network_on(backend_named(name))
        with unchanged(network), pytest.raises(error, match=exactly(f"X: {message}")):
            USES[use](network, bad)


@pytest.mark.parametrize("use", USES)
def test_a_ragged_table(use: str) -> None:
    network = network_on(backend_named("cpu"))
    message = r"^X: expected a rectangular table of numbers, got list \(.*inhomogeneous.*\); give every row the same"
    with unchanged(network), pytest.raises(ArrayTypeError, match=message):
        USES[use](network, [[1.0, 2.0, 3.0], [1.0]])


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("place", ["host", "device"])
def test_numbers_that_float32_cannot_hold(backend: Any, use: str, place: str) -> None:
    bad = X.astype("float64")
    bad[1, 1], bad[2, 2] = -1e39, 1e300
    network = network_on(backend, dtype="float32")
    message = (
        "X: expected numbers in the range of float32, got -1e+39 at [1, 1] and 1 more; "
        "scale them, or make the network with dtype='float64'"
    )
    with unchanged(network), pytest.raises(DataError, match=exactly(message)):
        USES[use](network, placed(backend, bad, place))
    wide = network_on(backend, dtype="float64")
    assert np.isfinite(wide.predict(bad)).all()


# Targets

ONE_EACH = "give y one row for each example of X and one column for each output"
COUNT = "give the last layer one unit for each class, and count classes from 0"
SQUARED, CROSS, BINARY = gn.SquaredError(), gn.CrossEntropy(), gn.BinaryCrossEntropy()
CLASSES = (gn.CrossEntropy(), gn.NLLM())
PROBABILITIES = (gn.BinaryCrossEntropy(), gn.NLL())
NUMBERS = (gn.SquaredError(), gn.AbsoluteError(), gn.Huber())
ENDS = {gn.NLL: "sigmoid", gn.NLLM: "softmax"}

Fault = tuple[gn.losses.Loss, int, Any, type[GpunnError], str]


def column_faults(loss: gn.losses.Loss) -> dict[str, Fault]:
    """Targets of the wrong shape for a loss that compares output by output."""
    rows = np.zeros(4)
    return {
        "(n,) for two outputs": (loss, 2, rows, ShapeError, f"expected shape (4, 2), got (4,); {ONE_EACH}"),
        "one column": (loss, 2, rows[:, None], ShapeError, f"expected shape (4, 2), got (4, 1); {ONE_EACH}"),
        "two columns": (loss, 1, np.zeros((4, 2)), ShapeError, f"expected shape (4, 1), got (4, 2); {ONE_EACH}"),
        "a row": (loss, 1, rows[None], ShapeError, f"expected shape (4, 1), got (1, 4); {ONE_EACH}"),
        "short": (loss, 1, np.zeros((3, 1)), ShapeError, f"expected shape (4, 1), got (3, 1); {ONE_EACH}"),
        "rank 3": (loss, 2, np.zeros((4, 1, 2)), ShapeError, f"expected shape (4, 2), got (4, 1, 2); {ONE_EACH}"),
        "two axes too many": (
            loss, 1, np.zeros((4, 1, 1, 1)), ShapeError, f"expected shape (4, 1), got (4, 1, 1, 1); {ONE_EACH}",
        ),
        "rank 0": (loss, 1, np.array(1.0), ShapeError, f"expected shape (4, 1), got (); {ONE_EACH}"),
        "empty": (loss, 1, np.zeros((0, 1)), ShapeError, f"expected shape (4, 1), got (0, 1); {ONE_EACH}"),
        "NaN": (
            loss, 1, np.array([[0], [np.nan], [0], [np.nan]]), DataError,
            "expected finite numbers, got nan at [1, 0] and 1 more; drop or fill them",
        ),
        "infinity": (
            loss, 1, np.array([[0], [0], [0], [np.inf]]), DataError,
            "expected finite numbers, got inf at [3, 0]; drop or fill them",
        ),
    }  # fmt: skip


def probability_faults(loss: gn.losses.Loss) -> dict[str, Fault]:
    """Targets that are no probabilities."""
    fix = "pass 0 and 1, or a regression loss such as SquaredError()"
    return {
        "below 0": (
            loss, 1, np.array([[0.5], [-0.5], [0], [1]]), DataError,
            f"expected probabilities from 0 to 1, got values from -0.5 to 1.0; {fix}",
        ),
        "above 1": (
            loss, 1, np.array([[0], [2], [0], [1]]), DataError,
            f"expected probabilities from 0 to 1, got values from 0 to 2; {fix}",
        ),
    }  # fmt: skip


def class_faults(loss: gn.losses.Loss) -> dict[str, Fault]:
    """Targets that are neither classes nor a row of probabilities."""
    wanted = "expected 4 classes or shape (4, 2)"
    whole = "expected whole classes from 0 to 1"
    return {
        "negative": (loss, 2, np.array([0, -1, 0, -2]), DataError, f"{whole}, got -1 at [1] and 1 more; {COUNT}"),
        "beyond the last": (loss, 2, np.array([0, 1, 2, 1]), DataError, f"{whole}, got 2 at [2]; {COUNT}"),
        "non-integral": (
            loss, 2, np.array([0, 1, 0.5, 1]), DataError,
            f"{whole}, got 0.5 at [2]; pass integer classes, or probabilities of shape (n, classes)",
        ),
        "huge": (
            loss, 2, np.array([0, 1, 2**63 + 1, 1], np.uint64), DataError,
            f"{whole}, got 9223372036854775809 at [2]; {COUNT}",
        ),
        "huge float": (loss, 2, np.array([0, 1, 1e300, 1]), DataError, f"{whole}, got 1e+300 at [2]; {COUNT}"),
        "NaN": (
            loss, 2, np.array([0, np.nan, 1, 1]), DataError,
            "expected finite numbers, got nan at [1]; drop or fill them",
        ),
        "(n, 1, 1)": (loss, 2, LABELS[:, None, None], ShapeError, f"{wanted}, got (4, 1, 1); {ONE_EACH}"),
        "a row": (loss, 2, LABELS[None], ShapeError, f"{wanted}, got (1, 4); {ONE_EACH}"),
        "short": (loss, 2, LABELS[:3], ShapeError, f"{wanted}, got (3,); {ONE_EACH}"),
        "empty": (loss, 2, LABELS[:0], ShapeError, f"{wanted}, got (0,); {ONE_EACH}"),
        "three columns": (loss, 2, np.eye(3)[[0, 1, 2, 0]], ShapeError, f"{wanted}, got (4, 3); {ONE_EACH}"),
        "rank 3": (loss, 2, np.zeros((4, 1, 2)), ShapeError, f"{wanted}, got (4, 1, 2); {ONE_EACH}"),
        "soft below 0": (
            loss, 2, np.full((4, 2), -0.5), DataError,
            "expected probabilities from 0 to 1, got values from -0.5 to -0.5; "
            "pass 0 and 1, or a regression loss such as SquaredError()",
        ),
        "soft NaN": (
            loss, 2, np.full((4, 2), np.nan), DataError,
            "expected finite numbers, got nan at [0, 0] and 7 more; drop or fill them",
        ),
    }  # fmt: skip


TARGET_FAULTS: dict[str, Fault] = {}
for _loss in (*NUMBERS, *PROBABILITIES):
    TARGET_FAULTS |= {f"{_loss} {name}": fault for name, fault in column_faults(_loss).items()}
for _loss in PROBABILITIES:
    TARGET_FAULTS |= {f"{_loss} {name}": fault for name, fault in probability_faults(_loss).items()}
for _loss in CLASSES:
    TARGET_FAULTS |= {f"{_loss} {name}": fault for name, fault in class_faults(_loss).items()}

Y_USES: dict[str, Callable[[gn.Network, Any, Any, Any], Any]] = {
    "gradients": lambda network, X, y, loss: network.gradients(X, y, loss),
    "loss_of": lambda network, X, y, loss: network.loss_of(X, y, loss),
    "evaluate": lambda network, X, y, loss: network.evaluate(X, y, loss=loss, batch_size=2),
}


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("use", Y_USES)
@pytest.mark.parametrize("fault", TARGET_FAULTS)
def test_an_array_that_cannot_be_y(backend: Any, fault: str, use: str, place: str) -> None:
    loss, units, y, error, message = TARGET_FAULTS[fault]
    network = gn.Network([gn.Dense(units, ENDS.get(type(loss)))], 3, device=backend)
    network.gradients(X, np.ones((4, units)), gn.SquaredError())
    with unchanged(network), pytest.raises(error, match=exactly(f"y: {message}")):
        Y_USES[use](network, X, placed(backend, y, place), loss)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (list("abab"), ArrayTypeError, f"expected real numbers, got dtype <U1; {NOT_NUMBERS}"),
        (None, ArrayTypeError, f"expected real numbers, got a NoneType; {NOT_NUMBERS}"),
        (LABELS.astype(object), ArrayTypeError, f"expected real numbers, got dtype object; {NOT_NUMBERS}"),
        (LABELS + 0j, ArrayTypeError, f"expected real numbers, got dtype complex128; {NOT_NUMBERS}"),
        (
            np.ma.masked_array(LABELS, mask=[0, 0, 0, 1]),
            DataError,
            "expected a number everywhere, got 1 masked values; fill them, as x.filled(0) does, "
            "or leave their rows out",
        ),
    ],
    ids=["strings", "None", "objects", "complex", "masked"],
)
@pytest.mark.parametrize("use", Y_USES)
@pytest.mark.parametrize("loss", [*CLASSES, *PROBABILITIES, *NUMBERS], ids=repr)
def test_a_value_that_cannot_be_y(
    loss: gn.losses.Loss, use: str, y: Any, error: type[GpunnError], message: str
) -> None:
    network = network_on(backend_named("cpu"), ENDS.get(type(loss)))
    with unchanged(network), pytest.raises(error, match=exactly(f"y: {message}")):
        Y_USES[use](network, X, y, loss)


@pytest.mark.parametrize("place", ["host", "device"])
def test_targets_that_float32_cannot_hold(backend: Any, place: str) -> None:
    network, y = network_on(backend), np.full((4, 2), 1e300)
    message = (
        "y: expected numbers in the range of float32, got 1e+300 at [0, 0] and 7 more; "
        "scale them, or make the network with dtype='float64'"
    )
    with unchanged(network), pytest.raises(DataError, match=exactly(message)):
        network.gradients(X, placed(backend, y, place), SQUARED)


@pytest.mark.parametrize("loss", CLASSES, ids=repr)
@pytest.mark.parametrize("use", Y_USES)
def test_classes_need_two_outputs(loss: gn.losses.Loss, use: str) -> None:
    network = gn.Network([gn.Branch([gn.Dense(1)])], 3, device="cpu")  # of which nobody knows what it makes
    message = (
        f"{type(loss).__name__}: expected a last layer with one output for each class, at least 2, "
        "got outputs of shape (1,); end the network in Dense(classes), or use BinaryCrossEntropy for one output"
    )
    with unchanged(network), pytest.raises(ShapeError, match=exactly(message)):
        Y_USES[use](network, X, LABELS, loss)


# A population

POPULATION_FAULTS: dict[str, tuple[Any, Any, type[GpunnError], str]] = {
    "X of too few models": (
        np.ones((2, 4, 3)), LABELS, ShapeError, f"X: expected shape (n, 3), or (3, n, 3), got (2, 4, 3); {EVERY}",
    ),
    "X of each model, empty": (
        np.ones((3, 0, 3)), LABELS, DataError, "X: expected at least one example, got shape (3, 0, 3); pass a batch",
    ),
    "NaN in one model's X": (
        np.stack([X, X, with_bad(np.nan, (1, 2))]), LABELS, DataError,
        "X: expected finite numbers, got nan at [2, 1, 2]; drop or fill them",
    ),
    "classes of each model for shared X": (
        X, np.stack([LABELS] * 3), ShapeError,
        f"y: expected 4 classes or shape (4, 2), got (3, 4); {ONE_EACH}",
    ),
    "classes of too few models": (
        np.stack([X] * 3), np.stack([LABELS] * 2), ShapeError,
        f"y: expected 4 classes or shape (4, 2), or that for each of 3 models, got (2, 4); {ONE_EACH}",
    ),
    "a class beyond the last in one model": (
        np.stack([X] * 3), np.stack([LABELS, LABELS, LABELS + 1]), DataError,
        f"y: expected whole classes from 0 to 1, got 2 at [2, 1] and 1 more; {COUNT}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("use", Y_USES)
@pytest.mark.parametrize("fault", POPULATION_FAULTS)
def test_what_a_population_cannot_take(backend: Any, fault: str, use: str) -> None:
    bad_X, y, error, message = POPULATION_FAULTS[fault]
    network = network_on(backend, models=3)
    with unchanged(network), pytest.raises(error, match=exactly(message)):
        Y_USES[use](network, bad_X, y, CROSS)


def test_one_network_takes_no_inputs_of_models() -> None:
    network = network_on(backend_named("cpu"))
    with pytest.raises(ShapeError, match=exactly(f"X: expected shape (n, 3), got (3, 4, 3); {EVERY}")):
        network.predict(np.ones((3, 4, 3)))


# Embeddings

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
def test_indices_must_be_in_the_table(backend: Any, before: list[gn.Layer], fault: str, place: str) -> None:
    indices, got = INDEX_FAULTS[fault]
    network = gn.Network([*before, TABLE, gn.Flatten()], 3, device=backend)
    message = (
        f"X for layers.{len(before)} Embedding: expected whole numbers from 0 to 4, got {got}; "
        "raise categories, or map the column to 0, 1, 2, ..."
    )
    with unchanged(network), pytest.raises(DataError, match=exactly(message)):
        network.gradients(placed(backend, indices, place), np.zeros((1, 6)), SQUARED)


def test_an_index_that_is_missing() -> None:
    network = gn.Network([TABLE], 3, device="cpu")
    with pytest.raises(DataError, match=exactly("X: expected finite numbers, got nan at [0, 1]; drop or fill them")):
        network.predict([[0, np.nan, 1]])


@pytest.mark.parametrize("indices", [[[0.0, 4.0, 2.0]], [[False, True, True]]], ids=["floats", "bools"])
def test_whole_numbers_of_any_type_are_indices(backend: Any, indices: list[list[Any]]) -> None:
    network = gn.Network([TABLE], 3, device=backend)
    table = network.ops.to_host(network.parameters["0.E"])
    np.testing.assert_array_equal(network.predict(indices), table[np.array(indices, int)])


def test_an_embedding_inside_a_branch_shares_numbers_with_its_neighbours(backend: Any) -> None:
    network = gn.Network([gn.Branch([[TABLE, gn.Flatten()], gn.Dense(2)])], 3, device=backend)
    numbers = np.array([[1, 2, 3], [0, 4, 0]])
    np.testing.assert_array_equal(network.predict(numbers), network.predict(numbers.astype("float32")))


def test_indices_in_some_columns(backend: Any) -> None:
    """Only what an embedding reads must be row numbers: the other columns are numbers of any kind."""
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


def test_indices_in_some_numbers_of_an_image() -> None:
    layers = [gn.Flatten(), gn.Columns(4, 6), TABLE, gn.Flatten()]
    network = gn.Network(layers, (2, 3), device="cpu")
    X = np.array([[[0.5, 9, 9], [9, 3, 1]]])
    np.testing.assert_array_equal(network.predict(X)[0], network.parameters["2.E"][[3, 1]].reshape(-1))
    with pytest.raises(DataError, match=r"^X\[:, 4:6\] for layers\.2 Embedding: .* got 9\.0 at \[0, 0\]; raise"):
        network.predict(np.array([[[0.5, 9, 9], [9, 9, 1]]]))


def test_large_indices_are_not_rounded() -> None:
    categories = 2**24 + 2
    network = gn.Network([gn.Embedding(categories, 1)], 1, device="cpu")
    network.parameters["0.E"][-1] = 7.0
    assert network.predict(np.array([[categories - 1.0]])).item() == 7.0


@pytest.mark.parametrize(
    "before",
    [gn.Dense(3), gn.Dropout(0.5), gn.GaussianNoise(5.0), gn.LayerNorm(affine=False), gn.Sigmoid()],
    ids=repr,
)
def test_indices_come_from_the_data_alone(before: gn.Layer) -> None:
    """The check of X says nothing of what a layer has made of it; on CUDA such an index reads foreign memory."""
    with pytest.raises(ConfigurationError, match=r"^layers\.1 Embedding: expected indices from the data, got .*; put"):
        gn.Network([before, TABLE, gn.Flatten()], 3, device="cpu").gradients([[1, 2, 3]], np.zeros((1, 6)), SQUARED)


# Batches

BATCH_OF_ONE = (
    "layers.1 BatchNorm: expected a training batch of at least 2 examples, got 1; "
    "use a larger batch, or LayerNorm or RMSNorm, which do not look across the batch"
)


@pytest.mark.parametrize("models", [None, 2])
def test_batch_normalization_cannot_train_on_one_example(backend: Any, models: int | None) -> None:
    network = network_on(backend, models=models)
    with unchanged(network), pytest.raises(DataError, match=exactly(BATCH_OF_ONE)):
        network.gradients(X[:1], LABELS[:1], CROSS)
    assert np.isfinite(network.predict(X[:1])).all()


# Devices


def test_an_array_on_a_gpu_for_a_network_on_the_cpu(strict: Any) -> None:
    network, foreign = network_on(backend_named("cpu")), strict.from_host(X)
    expected = (
        r"expected an array on cpu, got a [\w.]+\.ndarray on a GPU; "
        r"move one of the two: net = gn\.Network\(\.\.\., device='cuda'\), or x\.get\(\)$"
    )
    with unchanged(network), pytest.raises(ArrayTypeError, match=f"^X: {expected}"):
        network.predict(foreign)
    with unchanged(network), pytest.raises(ArrayTypeError, match=f"^y: {expected}"):
        network.gradients(X, strict.from_host(LABELS), CROSS)


def test_an_array_on_another_gpu() -> None:
    backend = strict_backend(devices=2)
    network = network_on(backend)
    with backend.xp.cuda.Device(1):
        foreign = backend.xp.ones((4, 3), "float32")
    with pytest.raises(
        ArrayTypeError,
        match=r"^X: expected an array on cuda:0, got a .*ndarray on cuda:1; "
        r"move it to cuda:0, or make the network with device='cuda:1'$",
    ):
        network.predict(foreign)


def test_a_list_of_device_arrays(strict: Any) -> None:
    network, rows = network_on(strict), [strict.from_host(row) for row in X]
    with pytest.raises(ArrayTypeError, match=r"^X: expected a rectangular table of numbers, got list .* NumPy array$"):
        network.predict(rows)


def square(backend: Any, size: int, on_device: bool) -> Any:
    host = np.ones((size, size), "float32")
    return backend.from_host(host) if on_device else host


OPERATIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "matmul": (3, lambda ops, A, B, out: ops.matmul(A, B, out=out)),
    "elementwise": (3, lambda ops, A, B, out: ops.elementwise(formulas.add, (A, B), (out,))),
    "affine": (3, lambda ops, X, W, out: ops.affine(X, W, None, None, out=out)),
    "affine with bias": (4, lambda ops, X, W, b, out: ops.affine(X, W, b, gn.ReLU(), out=out)),
    "affine_gradients": (3, lambda ops, X, dZ, dW: ops.affine_gradients(X, dZ, dW=dW, db=None)),
    "copy": (2, lambda ops, source, out: ops.copy(source, out=out)),
    "sum_product": (3, lambda ops, X, Y, out: ops.sum_product(X, Y, -1, out=out[:, :1])),
    "softmax": (2, lambda ops, Z, out: ops.softmax(Z, out=out)),
}


@pytest.mark.parametrize(
    ("operation", "wrong"), [(name, i) for name, (count, _) in OPERATIONS.items() for i in range(count)]
)
@pytest.mark.parametrize("size", [1, 2])
def test_numpy_arrays_in_the_operations_of_a_gpu(strict: Any, operation: str, wrong: int, size: int) -> None:
    """A kernel would take a NumPy array of one element for the number itself, and that for an address."""
    count, call = OPERATIONS[operation]
    arrays = [square(strict, size, on_device=i != wrong) for i in range(count)]
    expected = r"\w+: expected arrays on cuda:0, got numpy\.ndarray; move it with backend\.from_host\(array\)$"
    with pytest.raises(ArrayTypeError, match=expected):
        call(strict, *arrays)
    if wrong < min(2, count - 1):
        assert (strict.to_host(arrays[-1]) == 1).all()


def test_a_numpy_batch_in_a_compiled_pass_of_a_gpu(strict: Any) -> None:
    network = network_on(strict)
    run = network.compile(4, CROSS)
    with unchanged(network), pytest.raises(ArrayTypeError, match="expected arrays on cuda:0, got numpy"):
        run.forward(X)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "CPU", "", None, 0])
def test_an_unknown_device(device: Any) -> None:
    message = (
        f'device: expected "auto", "cpu", "cuda" or "cuda:" and a number, got {device!r}; '
        "gpunn.backends.available_devices() lists those of this machine"
    )
    with pytest.raises(ConfigurationError, match=exactly(message)):
        gn.Network([gn.Dense(2)], 3, device=device)


# Losses, batch sizes and the like


@pytest.mark.parametrize(
    "loss", [gn.CrossEntropy, "cross_entropy", None, gn.ReLU()], ids=["class", "name", "None", "layer"]
)
@pytest.mark.parametrize("use", ["gradients", "loss_of"])
def test_what_is_not_a_loss(use: str, loss: Any) -> None:
    network = network_on(backend_named("cpu"))
    with unchanged(network), pytest.raises(ConfigurationError, match=FORM):
        Y_USES[use](network, X, LABELS, loss)


@pytest.mark.parametrize("loss", [gn.CrossEntropy, "cross_entropy", gn.ReLU()], ids=["class", "name", "layer"])
def test_what_is_not_a_loss_to_judge_by(loss: Any) -> None:
    network = network_on(backend_named("cpu"))
    with pytest.raises(ConfigurationError, match=FORM):
        network.evaluate(X, LABELS, loss=loss)
    with pytest.raises(ConfigurationError, match=FORM):
        network.predict_probability(X, loss=loss)


def test_probabilities_and_scores_need_a_loss() -> None:
    network = network_on(backend_named("cpu"))
    message = (
        "predict_probability: expected a loss whose link makes probabilities, got a network that was not trained; "
        "train it, or pass loss=gn.CrossEntropy()"
    )
    with pytest.raises(ConfigurationError, match=exactly(message)):
        network.predict_probability(X)
    message = "evaluate: expected a loss, got a network that was not trained; pass loss=gn.CrossEntropy()"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        network.evaluate(X, LABELS)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "2"])
def test_a_batch_size_that_is_none(size: Any) -> None:
    network = network_on(backend_named("cpu"))
    message = exactly(f"batch_size: expected a whole number >= 1, got {size!r}; give such a number")
    with pytest.raises(ConfigurationError, match=message):
        network.predict(X, batch_size=size)
    with pytest.raises(ConfigurationError, match=message):
        network.predict_probability(X, loss=CROSS, batch_size=size)
    with pytest.raises(ConfigurationError, match=message):
        network.evaluate(X, LABELS, loss=CROSS, batch_size=size)


# What looks odd and is right


class Frame:
    """As a pandas table: no array, but it can become one."""

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
def test_unusual_inputs_count_as_a_clean_copy(backend: Any, kind: str, dtype: str) -> None:
    given = ODD_VALUES[kind]
    before = np.array(np.asarray(given))
    assert_same_results(network_on(backend, dtype=dtype), given, clean(given, dtype), LABELS, CROSS)
    np.testing.assert_array_equal(np.asarray(given), before)


@pytest.mark.parametrize("kind", [kind for kind in ODD_ARRAYS if not kind.startswith("big-endian")])
def test_unusual_inputs_on_the_device_too(strict: Any, kind: str) -> None:
    host = ODD_ARRAYS[kind]
    given = strict.from_host(np.ascontiguousarray(host))
    if kind == "negative stride":
        given = strict.from_host(np.ascontiguousarray(X))[::-1, ::-1]
    elif kind == "Fortran order":
        given = strict.from_host(np.ascontiguousarray(X.T)).T
    assert_same_results(network_on(strict), given, clean(host, "float32"), LABELS, CROSS)


@pytest.mark.parametrize("kind", ["big-endian", "big-endian integers"])
def test_a_foreign_byte_order_ends_at_the_door(kind: str) -> None:
    """CuPy has no kernels for it."""
    array = as_array("X", ODD_ARRAYS[kind], backend_named("cpu"))
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, ODD_ARRAYS[kind])


LAYERS_IN_FRONT = [
    gn.Dense(2), gn.Dropout(0.5), gn.GaussianNoise(), gn.BatchNorm(), gn.LayerNorm(), gn.RMSNorm(), gn.ReLU(),
    gn.Softmax(), gn.Flatten(), gn.Reshape((3,)), gn.Residual(gn.Dense(3)), gn.Branch([gn.Dense(2), gn.ReLU()]),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS_IN_FRONT, ids=repr)
def test_no_layer_writes_into_the_data(backend: Any, layer: gn.Layer) -> None:
    """The very array is used where it has the right type and order already."""
    network = gn.Network([layer], 3, device=backend)
    given = backend.from_host(X)
    y = np.zeros((4, *network.outputs))
    network.predict(given)
    network.gradients(given, y, gn.SquaredError())
    loss = gn.NLLM() if isinstance(layer, gn.Softmax) else CROSS
    network.predict_probability(given, loss=loss)
    network.evaluate(given, LABELS, loss=loss, metrics=["accuracy"])
    assert backend.to_host(given).tobytes() == X.tobytes()


def test_a_softmax_that_its_loss_takes_over_does_not_write_into_the_data(backend: Any) -> None:
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
def test_classes_in_any_form(backend: Any, loss: gn.losses.Loss, y: np.ndarray, place: str) -> None:
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
def test_columns_in_any_form(backend: Any, loss: gn.losses.Loss, y: Any) -> None:
    network = gn.Network([gn.Dense(1, ENDS.get(type(loss)))], 3, device=backend)
    assert network.loss_of(X, y, loss) == network.loss_of(X, LABELS[:, None].astype("float32"), loss)


# The errors themselves


@pytest.mark.parametrize("kind", [ConfigurationError, ShapeError, DataError, ArrayTypeError, DeviceError, GpunnError])
def test_an_error_says_where_what_and_how_to_mend_it(kind: type[GpunnError]) -> None:
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
def test_errors_are_also_those_of_python(kind: type[GpunnError], builtin: type[Exception]) -> None:
    assert issubclass(kind, builtin)
    assert issubclass(kind, GpunnError)
