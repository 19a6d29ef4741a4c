"""`read`: a table from a file, a built-in name or data in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gpunn.data.arrays import from_arrays, from_memory, read_arrays
from gpunn.data.arrow import from_arrow, of_pandas, read_arrow
from gpunn.data.builtin import BUILT_IN
from gpunn.data.table import USUAL_TARGETS, Table, check_stray_text, same_values, table
from gpunn.errors import DataError
from gpunn.files import require_file
from gpunn.hyper import choice, whole

ARROW, NUMPY = (".csv", ".parquet", ".arrow", ".feather"), (".npz", ".npy")


def read(
    source: Any, *, target: Any = None, kinds: Mapping[str, str] | None = None, memory: int | None = None
) -> Table:
    """A table from a file (.csv .parquet .arrow .feather .npz .npy), a built-in name, or what is in memory.

    In memory: pandas and Arrow tables, dicts of columns, (X, y), a matrix. `target` is a name or position, or several,
    or the values as a series, array or table; by default the column called target, label, class or y, else the last.
    `kinds` says what a column is if its values do not show it: {"postcode": "categorical"}. `memory` limits the bytes
    that a compressed file may take.
    """
    kinds = dict(kinds or {})
    for name, kind in kinds.items():
        choice(f"kinds[{name!r}]", kind, ("numeric", "boolean", "categorical"))
    try:
        return _read(source, target, kinds, None if memory is None else whole("memory", memory))
    except MemoryError as error:
        raise DataError(
            os.fsdecode(source) if isinstance(source, (str, os.PathLike)) else "data",
            expected="a table that fits in memory",
            got=str(error)[:200] or "a larger one",
            fix="give part of it, or free memory",
        ) from None


def _read(source: Any, target: Any, kinds: Mapping[str, str], memory: int | None) -> Table:
    given = holds_values(target)
    found = load(source, None if given else target, kinds, memory)
    found = _with_target(found, target, kinds) if given else found
    for name in kinds:
        found[name]
    if not isinstance(source, Table):
        for name in found.columns:
            if name not in kinds:
                check_stray_text(found, name)
    return found


def holds_values(target: Any) -> bool:
    """Whether a target is given by its values; a list counts as one of names."""
    return getattr(target, "shape", ()) != () or hasattr(target, "to_numpy")


def _with_target(found: Table, target: Any, kinds: Mapping[str, str]) -> Table:
    """The table with these values as its target; if it has a column of that name, its values must be the same."""
    name = getattr(target, "name", None)
    if not isinstance(name, str):
        name = next((usual for usual in reversed(USUAL_TARGETS) if usual not in found.columns), USUAL_TARGETS[-1])
    values = values_as_table(target, name)
    names = values.columns
    columns = {n: column for n, column in found.data.items() if n not in names} | dict(values.data)
    joined = table(found.source, columns.items(), names[0] if len(names) == 1 else names, kinds)
    for name in names:
        if name in found.columns and not same_values(found[name], joined[name]):
            raise DataError(
                "target",
                expected=f"the values of the column {name!r} of the table, whose name it has",
                got="other values",
                fix=f"rename it, as target.rename({name + '_to_predict'!r}) does, or remove that column from the table",
            )
    return joined


def values_as_table(values: Any, name: str) -> Table:
    """A series or array as a table of one column, or of several: NAME0, NAME1, ...; a table keeps its names."""
    if hasattr(values, "to_frame"):
        return load(values.to_frame(name), None, {}, None)
    if hasattr(values, "columns") or hasattr(values, "column_names"):
        return load(values, None, {}, None)
    return from_arrays("target", {name: values})


def load(source: Any, target: Any, kinds: Mapping[str, str], memory: int | None) -> Table:
    """A table of the columns as they are; those in `kinds` are converted to that kind, if they exist."""
    if isinstance(source, Table):
        found = table(source.source, source.data.items(), target, kinds)
        return replace(found, target_name=source.target_name) if target is None else found
    if isinstance(source, str) and source in BUILT_IN:
        return load(BUILT_IN[source](), target, kinds, memory)
    if isinstance(source, (str, os.PathLike)):
        return _file(os.fsdecode(source), target, kinds, memory)
    in_memory = from_memory(source, target, kinds)
    if in_memory is not None:
        return in_memory
    if of_pandas(source) or hasattr(source, "__arrow_c_stream__"):
        return from_arrow("table", source, target, kinds)
    raise DataError(
        "data",
        expected="a file, a built-in name, or a table in memory",
        got=f"a {type(source).__module__}.{type(source).__name__}",
        fix="pass a pandas or Arrow table, a dict of columns, (X, y), or a matrix",
    )


def _file(path: str, target: Any, kinds: Mapping[str, str], memory: int | None) -> Table:
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in ARROW + NUMPY:
        raise DataError(
            path,
            expected=f"a file ending in {', '.join(ARROW + NUMPY)}, or one of {', '.join(BUILT_IN)}",
            got=f"the ending {suffix!r}" if suffix else "no ending",
            fix="convert the file, or correct the name",
        )
    try:
        require_file(os.stat(path).st_mode)
        with open(path, "rb"):
            pass
    except (OSError, ValueError) as error:
        raise DataError(
            path, expected="a file to read", got=getattr(error, "strerror", None) or str(error),
            fix="check the name, the working folder and permissions",
        ) from None  # fmt: skip
    return (read_arrow if suffix in ARROW else read_arrays)(path, target, kinds, memory)
