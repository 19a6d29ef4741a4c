"""A table in two: rows to train on, and rows to hold out."""

from __future__ import annotations

import numpy as np

from gpunn import hyper
from gpunn.data.table import Table
from gpunn.data.targets import Classes, fit_target
from gpunn.errors import DataError
from gpunn.randomness import Purpose, check_seeds, stream_key


def split(table: Table, share: float = 0.2, *, seed: int = 0, task: str | None = None) -> tuple[Table, Table]:
    """The rows to train on and a `share` of rows to hold out, drawn by the seed, both in the table's order.

    Each class has the same share held out, give or take a row, and at least one row to train on.
    """
    share = hyper.number("split share", share, low=0.0, high=1.0, open_low=True, open_high=True)
    rng = np.random.Generator(np.random.Philox(key=stream_key(check_seeds(seed, None)[0], Purpose.SPLIT)))
    order = rng.permutation(table.rows)
    target = fit_target(table, task)
    if isinstance(target, Classes):
        codes = target.encode(table, None)[order]
        ranked = np.argsort(codes, kind="stable")
        first = np.diff(codes[ranked], prepend=-1) != 0
        order = np.concatenate([order[ranked[first]], order[ranked[~first]]])
        kept = int(first.sum())
    else:
        kept = 1
    free = order[kept:]
    if not len(free):
        raise DataError(
            table.source,
            expected="a row to hold out beside one of each class to train on",
            got=f"{table.rows} rows",
            fix="give more rows, or a file to validate on",
        )
    count = min(max(1, round(share * table.rows)), len(free))
    places = np.floor((np.arange(count) + 0.5) * (len(free) / count)).astype(np.int64)  # at equal distances
    held = np.zeros(table.rows, bool)
    held[free[places]] = True
    return table.take(~held), table.take(held)
