"""Every kind of target that cannot be right: one exception, its message, and nothing computed."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ArrayTypeError, DataError, GpunnError, ShapeError
from tests.conftest import backend_named
from tests.faults import exactly, placed, unchanged
from tests.refusals import (
    CLASSES,
    COUNT,
    ENDS,
    LABELS,
    NOT_NUMBERS,
    NUMBERS,
    ONE_EACH,
    PROBABILITIES,
    SQUARED,
    Y_USES,
    X,
    network_on,
)

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


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("use", Y_USES)
@pytest.mark.parametrize("fault", TARGET_FAULTS)
def test_a_network_refuses_an_array_that_cannot_be_y(backend: Any, fault: str, use: str, place: str) -> None:
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
def test_a_network_refuses_a_value_that_cannot_be_y(
    loss: gn.losses.Loss, use: str, y: Any, error: type[GpunnError], message: str
) -> None:
    network = network_on(backend_named("cpu"), ENDS.get(type(loss)))
    with unchanged(network), pytest.raises(error, match=exactly(f"y: {message}")):
        Y_USES[use](network, X, y, loss)


@pytest.mark.parametrize("place", ["host", "device"])
def test_a_network_refuses_targets_that_float32_cannot_hold(backend: Any, place: str) -> None:
    network, y = network_on(backend), np.full((4, 2), 1e300)
    message = (
        "y: expected numbers in the range of float32, got 1e+300 at [0, 0] and 7 more; "
        "scale them, or make the network with dtype='float64'"
    )
    with unchanged(network), pytest.raises(DataError, match=exactly(message)):
        network.gradients(X, placed(backend, y, place), SQUARED)


@pytest.mark.parametrize("loss", CLASSES, ids=repr)
@pytest.mark.parametrize("use", Y_USES)
def test_losses_of_classes_refuse_a_network_of_one_output(loss: gn.losses.Loss, use: str) -> None:
    network = gn.Network([gn.Branch([gn.Dense(1)])], 3, device="cpu")  # of which nobody knows what it makes
    message = (
        f"{type(loss).__name__}: expected a last layer with one output for each class, at least 2, "
        "got outputs of shape (1,); end the network in Dense(classes), or use BinaryCrossEntropy for one output"
    )
    with unchanged(network), pytest.raises(ShapeError, match=exactly(message)):
        Y_USES[use](network, X, LABELS, loss)
