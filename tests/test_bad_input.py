"""Every kind of input that cannot be right: one exception, its message, and nothing computed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ArrayTypeError, ConfigurationError, DataError, GpunnError, ShapeError
from tests.conftest import backend_named
from tests.faults import FORM, exactly, placed, unchanged
from tests.refusals import COUNT, CROSS, EVERY, LABELS, NOT_NUMBERS, ONE_EACH, Y_USES, X, network_on, with_bad

USES: dict[str, Callable[[gn.Network, Any], Any]] = {
    "predict": lambda network, X: network.predict(X),
    "predict_probability": lambda network, X: network.predict_probability(X, loss=gn.CrossEntropy()),
    "evaluate": lambda network, X: network.evaluate(X, LABELS, loss=gn.CrossEntropy()),
    "gradients": lambda network, X: network.gradients(X, LABELS, gn.CrossEntropy()),
    "loss_of": lambda network, X: network.loss_of(X, LABELS, gn.CrossEntropy()),
}


class Sparse:
    """Like a sparse matrix of SciPy: NumPy makes an object of it."""

    shape, ndim = (4, 3), 2

    def toarray(self) -> np.ndarray:
        return X


class Attached:
    """Like a tensor that requires a gradient: it refuses to become an array."""

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
def test_a_network_refuses_an_array_that_cannot_be_X(backend: Any, fault: str, use: str, place: str) -> None:
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
def test_a_network_refuses_a_value_that_cannot_be_X(fault: str, use: str) -> None:
    bad, error, message = OTHER_FAULTS[fault]
    for name in ("cpu", "strict"):
        network = network_on(backend_named(name))
        with unchanged(network), pytest.raises(error, match=exactly(f"X: {message}")):
            USES[use](network, bad)


@pytest.mark.parametrize("use", USES)
def test_a_network_refuses_a_ragged_table(use: str) -> None:
    network = network_on(backend_named("cpu"))
    message = r"^X: expected a rectangular table of numbers, got list \(.*inhomogeneous.*\); give every row the same"
    with unchanged(network), pytest.raises(ArrayTypeError, match=message):
        USES[use](network, [[1.0, 2.0, 3.0], [1.0]])


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("place", ["host", "device"])
def test_a_network_refuses_inputs_that_float32_cannot_hold(backend: Any, use: str, place: str) -> None:
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
def test_a_population_refuses_inputs_and_targets_that_it_cannot_take(backend: Any, fault: str, use: str) -> None:
    bad_X, y, error, message = POPULATION_FAULTS[fault]
    network = network_on(backend, models=3)
    with unchanged(network), pytest.raises(error, match=exactly(message)):
        Y_USES[use](network, bad_X, y, CROSS)


def test_a_single_network_refuses_inputs_with_a_population_axis() -> None:
    network = network_on(backend_named("cpu"))
    with pytest.raises(ShapeError, match=exactly(f"X: expected shape (n, 3), got (3, 4, 3); {EVERY}")):
        network.predict(np.ones((3, 4, 3)))


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


# Losses, batch sizes and the like


@pytest.mark.parametrize(
    "loss", [gn.CrossEntropy, "cross_entropy", None, gn.ReLU()], ids=["class", "name", "None", "layer"]
)
@pytest.mark.parametrize("use", ["gradients", "loss_of"])
def test_gradients_and_loss_of_refuse_what_is_not_a_loss(use: str, loss: Any) -> None:
    network = network_on(backend_named("cpu"))
    with unchanged(network), pytest.raises(ConfigurationError, match=FORM):
        Y_USES[use](network, X, LABELS, loss)


@pytest.mark.parametrize("loss", [gn.CrossEntropy, "cross_entropy", gn.ReLU()], ids=["class", "name", "layer"])
def test_evaluate_and_predict_probability_refuse_what_is_not_a_loss(loss: Any) -> None:
    network = network_on(backend_named("cpu"))
    with pytest.raises(ConfigurationError, match=FORM):
        network.evaluate(X, LABELS, loss=loss)
    with pytest.raises(ConfigurationError, match=FORM):
        network.predict_probability(X, loss=loss)


def test_evaluate_and_predict_probability_of_an_untrained_network_need_a_loss() -> None:
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
def test_predict_and_evaluate_refuse_a_bad_batch_size(size: Any) -> None:
    network = network_on(backend_named("cpu"))
    message = exactly(f"batch_size: expected a whole number >= 1, got {size!r}; give such a number")
    with pytest.raises(ConfigurationError, match=message):
        network.predict(X, batch_size=size)
    with pytest.raises(ConfigurationError, match=message):
        network.predict_probability(X, loss=CROSS, batch_size=size)
    with pytest.raises(ConfigurationError, match=message):
        network.evaluate(X, LABELS, loss=CROSS, batch_size=size)
