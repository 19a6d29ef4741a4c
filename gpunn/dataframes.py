"""Tables with named columns, of pandas, Polars, pyarrow or alike: their columns are found by name, and made a matrix.

None of these libraries is imported: anything with two axes and names of columns counts as a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpunn.errors import ArrayTypeError, DataError
from gpunn.rules import require, short

Host = np.ndarray[Any, Any]

NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)
ENCODE = "encode it, as gpunn.data.Preprocessing and pandas.get_dummies do, or leave the column out"


def is_table(value: Any) -> bool:
    """Whether this is a table in host memory whose columns have names."""
    return _names(value) is not None


def _names(value: Any) -> list[Any] | None:
    if isinstance(value, np.ndarray) or hasattr(value, "to_cupy") or len(_shape(value)) != 2:
        return None
    names = getattr(value, "column_names", None)  # pyarrow's, whose `columns` are the data
    names = getattr(value, "columns", None) if names is None else names
    return None if names is None or callable(names) else list(names)


def _shape(value: Any) -> tuple[Any, ...]:
    shape = getattr(value, "shape", ())
    return shape if isinstance(shape, tuple) else ()


def column_names(where: str, value: Any) -> tuple[str, ...] | None:
    """The names of a table's columns; None for arrays, and for tables whose columns are only numbered, as in pandas.

    Numbers out of order are refused, because moved columns could not be recognised.
    """
    names = _names(value)
    if names is None or (all(isinstance(name, (int, np.integer)) for name in names) and names == sorted(names)):
        return None
    strange = next((name for name in names if not isinstance(name, str)), None)
    if strange is not None:
        raise DataError(
            where,
            expected="columns whose names are text",
            got=f"a column named {strange!r}",
            fix="rename it, as X.columns = [str(name) for name in X.columns] does, or pass X.to_numpy()",
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            where, expected="columns with names of their own", got=f"two named {twice!r}", fix="rename one of them"
        )
    return tuple(names)


def arranged(where: str, value: Any, names: tuple[str, ...] | None) -> Any:
    """A table with only these columns, in this order; arrays and tables without names are returned as they are.

    If `names` is None, the table is returned as it is, but bad names are refused here, too.
    """
    found = column_names(where, value)
    if names is None or found is None or found == names:
        return value
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            where,
            expected=f"the columns of training: {listed(names)}",
            got=f"a table without {listed(missing)}",
            fix="add or rename what is missing, or pass an array whose columns are in the order of training",
        )
    return value.select(list(names)) if hasattr(value, "column_names") else value[list(names)]


def listed(names: Iterable[str], most: int = 8) -> str:
    """A few names for a message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more if names else "none"


def stored_columns(names: Any, inputs: Any) -> tuple[str, ...] | None:
    """The names of columns in a file, None if it has none; refuses names that do not fit its shape of inputs."""
    if names is None:
        return None
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    fits = known and len(set(names)) == len(names) and inputs == [len(names)]
    require(fits, "columns", expected=f"a name of its own for each of the inputs {short(inputs)}", got=short(names))
    return tuple(names)


def matrix(where: str, table: Any) -> Host:
    """The numbers and truth values of a table as a matrix; refuses columns with other values or gaps."""
    names = _names(table) or []
    kinds = [str(kind) for kind in getattr(table, "dtypes", ())]
    if "category" in kinds:
        raise _no_numbers(f"{where} column {names[kinds.index('category')]!r}", "categories")
    array = np.asarray(table)
    if array.dtype.kind not in "fiub" and names:  # columns of several kinds, or other values than numbers
        array = np.stack([_column(f"{where} column {name!r}", _values(table, j)) for j, name in enumerate(names)], 1)
    with np.errstate(invalid="ignore"):
        gaps = array.dtype.kind == "f" and array.size > 0 and bool(np.isnan(array.min()))
    if gaps:
        row, place = np.argwhere(np.isnan(array))[0]
        raise _missing(f"{where} column {names[place]!r}", int(row), int(np.isnan(array[:, place]).sum()))
    return array


def _values(table: Any, place: int) -> Host:
    if hasattr(table, "iloc"):
        return np.asarray(table.iloc[:, place])
    return np.asarray(table.column(place) if hasattr(table, "column_names") else table[:, place])


def _column(where: str, values: Host) -> Host:
    if values.dtype.kind in "fiub":
        return values
    if values.dtype.kind != "O":
        raise _no_numbers(where, f"dtype {values.dtype}")
    known = np.array([isinstance(value, NUMBERS) for value in values.tolist()], bool)
    if known.all():
        numbers = np.array(values.tolist())
        if numbers.dtype.kind in "fiub":
            return numbers
        raise _no_numbers(where, "numbers beyond 64 bits")
    gaps = np.array([value is None or type(value).__name__ in ("NAType", "NaTType") for value in values.tolist()], bool)
    if (known | gaps).all():
        raise _missing(where, int(np.argmax(gaps)), int(gaps.sum()))
    raise _no_numbers(where, repr(values[np.argmin(known | gaps)])[:80])


def _no_numbers(where: str, got: str) -> ArrayTypeError:
    return ArrayTypeError(where, expected="real numbers", got=got, fix=ENCODE)


def _missing(where: str, row: int, count: int) -> DataError:
    return DataError(
        where,
        expected="a number in every row",
        got=f"none in row {row + 1}" + (f" and {count - 1} more" if count > 1 else ""),
        fix="fill them, as gpunn.data.Preprocessing does, or leave these rows out",
    )
