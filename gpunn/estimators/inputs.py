"""The arrays that estimators take and return: NumPy, sparse, tables, CuPy, and libraries with the array API.

Arrays on a GPU are never copied by way of the host. All others become NumPy arrays, checked by scikit-learn; if its
array API dispatch is on, results go back to the library that the inputs came from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils._array_api import check_same_namespace, get_namespace_and_device, move_to
from sklearn.utils.validation import validate_data

from gpunn.backends import get_backend
from gpunn.backends.reference.backend import Backend
from gpunn.errors import DataError, ShapeError
from gpunn.inputs import as_array
from gpunn.types import Array

_NUMPY = get_namespace_and_device(np.empty(0))[0]
READ: dict[str, Any] = {"accept_sparse": ["csr", "csc"], "dtype": (np.float64, np.float32)}


def backend_of(device: Any, X: Any) -> Backend:
    """The backend that `device` names; "auto" is the GPU of X, if X is on one."""
    if device == "auto" and hasattr(X, "__cuda_array_interface__"):
        place = getattr(X, "device", None)
        return get_backend(f"cuda:{getattr(place, 'id', getattr(place, 'index', None)) or 0}")
    return get_backend(device)


def on_gpu(array: Any, ops: Backend) -> bool:
    """Whether this array is on a GPU, where it should stay."""
    return hasattr(array, "__cuda_array_interface__") or (ops.owns(array) and not isinstance(array, np.ndarray))


def on_device(where: str, array: Any, ops: Backend) -> Array:
    """An array on a GPU as an array of the backend, without a copy; refused if the network is on the CPU."""
    return as_array(where, array if ops.owns(array) or ops.name != "cuda" else ops.xp.asarray(array), ops)


def on_host(array: Any) -> Any:
    """An array that is not on a GPU, as scikit-learn takes it: arrays of other libraries become NumPy arrays."""
    library, device = _place(array)
    if library is not None:
        return move_to(array, xp=_NUMPY, device="cpu")
    return array if device is None else np.asarray(array)


def _place(array: Any) -> tuple[Any, Any]:
    """The library and device of an array, if scikit-learn dispatches to its library; else None and None.

    The device is "unknown" if scikit-learn cannot tell the library of the array.
    """
    if isinstance(array, np.ndarray):
        return None, None
    try:
        library, dispatches, device = get_namespace_and_device(array, remove_types=(str, list, tuple, int, float))
    except TypeError:
        return None, "unknown"
    known = dispatches and "numpy" not in library.__name__
    return (library, device) if known else (None, None)


def checked_inputs(estimator: Any, X: Any, ops: Backend, *, reset: bool) -> Array:
    """X of real numbers, a row for each example; `reset` makes its width and column names the estimator's."""
    if not on_gpu(X, ops):
        return _csr(validate_data(estimator, on_host(X), reset=reset, **READ))
    X = on_device("X", X, ops)
    _check_width(estimator, X, reset)
    return X


def checked_pair(estimator: Any, X: Any, y: Any, ops: Backend, *, reset: bool, numeric: bool) -> tuple[Array, Array]:
    """X and y. If X is on a GPU, y may be on the host; if only y is on a GPU, it is copied to the host."""
    if not on_gpu(X, ops):
        y = ops.to_host(on_device("y", y, ops)) if on_gpu(y, ops) else on_host(y)
        options = {"multi_output": True, "y_numeric": numeric, "reset": reset}
        X, y = validate_data(estimator, on_host(X), y, **READ, **options)
        return _csr(X), y.toarray() if sparse.issparse(y) else y
    X = checked_inputs(estimator, X, ops, reset=reset)
    y = on_device("y", y, ops) if on_gpu(y, ops) else np.asarray(on_host(y))
    if y.ndim not in (1, 2) or len(y) != len(X):
        raise ShapeError(
            "y", expected=f"one row for each of {len(X)} examples", got=f"shape {y.shape}", fix="pass y of X's rows"
        )
    return X, y


def _csr(X: Array) -> Array:
    """Sparse inputs in the format from which rows can be read."""
    return X.tocsr() if sparse.issparse(X) else X


def _check_width(estimator: Any, X: Array, reset: bool) -> None:
    """The checks of scikit-learn's `validate_data`, for an X that it cannot read."""
    if X.ndim != 2 or 0 in X.shape:
        raise ShapeError(
            "X", expected="a row for each example and a column for each feature", got=f"{X.shape}", fix="reshape it"
        )
    if reset:
        estimator.n_features_in_ = X.shape[1]
        vars(estimator).pop("feature_names_in_", None)
    elif X.shape[1] != estimator.n_features_in_:
        raise ShapeError(
            "X",
            expected=f"the {estimator.n_features_in_} features that {type(estimator).__name__} was fitted on",
            got=f"{X.shape[1]}",
            fix="pass the same columns",
        )


def checked_sample_weights(weight: Any, rows: int, ops: Backend) -> Array:
    """One weight for each example, not below 0 and not all 0."""
    if on_gpu(weight, ops):
        array = on_device("sample_weight", weight, ops)
    else:
        array = np.asarray(on_host(weight), np.float64)
        array = np.full(rows, array) if array.ndim == 0 else array
    fits = array.shape == (rows,)
    low, high = (float(array.min()), float(array.max())) if fits else (0.0, 0.0)
    if not (low >= 0.0 < high < np.inf):
        raise DataError(
            "sample_weight",
            expected=f"{rows} finite weights >= 0, not all zero",
            got=f"weights from {low:g} to {high:g}" if fits else f"shape {array.shape}",
            fix="give one weight for each example",
        )
    return array


def like(X: Any, ops: Backend) -> Any:
    """A small array of X's library, kept to compare later inputs with; None if X is on a GPU."""
    if on_gpu(X, ops):
        return None
    library, device = _place(X)
    return np.zeros(1, np.float32) if library is None else library.zeros(1, dtype=library.float32, device=device)


def check_like(estimator: Any, X: Any, method: str) -> None:
    """If array API dispatch is on, refuse inputs of another library than those of fit."""
    alike = isinstance(X, np.ndarray) and isinstance(estimator._like, np.ndarray)
    if estimator._like is not None and not alike and _place(X)[1] != "unknown":
        check_same_namespace(X, estimator, attribute="_like", method=method)


def returned(result: Array, X: Any) -> Any:
    """A result as an array of X's library, if array API dispatch is on; text stays in NumPy."""
    library, device = _place(X)
    return result if library is None or result.dtype.kind not in "fiub" else move_to(result, xp=library, device=device)


def fetched(array: Any, ops: Backend) -> Any:
    """An array on the GPU, copied to the host; others as they are."""
    return ops.to_host(on_device("array", array, ops)) if array is not None and on_gpu(array, ops) else array
