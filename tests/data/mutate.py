"""Damaged files, read in a process of their own: `python -m tests.data.mutate KIND COUNT SEED`.

Row i of the table is a function of i, so that every row read can be held against its own number, and the planted column
`sentinel` has one value that no other column has. Prints how many files were answered, refused, and how.
"""

from __future__ import annotations

import io
import json
import os
import random
import sys
import tempfile
import warnings
from collections import Counter
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.errors import GpunnError
from tests.data.peak import peak

ROWS = 40
SENTINEL = 7777.25
COPIED = 12  # values in three changes of 30 bytes
NAMES = ("id", "amount", "sentinel", "share", "group", "y")
TOKENS = (
    b",", b'"', b"\n", b"\r", b";", b"\t", b"1e999", b"nan", b"inf", b"-", b".", b"\0", b"\xff", b"\xef\xbb\xbf", b"id",
    b"x", b" ", b"0", b'""', b",,", b"\n\n", b"7777.25", b"'", b"\\", b"true", b"1" * 400,
)  # fmt: skip
EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff" * 4, b"\0" * 8, b"\xff\xff\xff\x7f", b"\x7f" * 8, b"\xff" * 8)


def cells(i: int) -> tuple[Any, ...]:
    return (i, i + 0.5, SENTINEL, i / 64.0, f"k{i % 5}", i * 3 - 7)


def columns() -> dict[str, Any]:
    return {name: list(values) for name, values in zip(NAMES, zip(*map(cells, range(ROWS))))}


def original(kind: str) -> bytes:
    """The sound file, as bytes."""
    if kind == "csv":
        lines = [",".join(NAMES), *(",".join(map(str, cells(i))) for i in range(ROWS))]
        return ("\n".join(lines) + "\n").encode()
    if kind in ("npz", "npy"):
        file = io.BytesIO()
        numbers = {name: np.array(values) for name, values in columns().items()}
        if kind == "npz":
            np.savez_compressed(file, **numbers)
        else:
            np.save(file, np.stack([numbers[name].astype(float) for name in NAMES if name != "group"], axis=1))
        return file.getvalue()
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    table, sink = pa.table(columns()), pa.BufferOutputStream()
    if kind == "parquet":
        pa.parquet.write_table(table, sink, row_group_size=16, write_page_checksum=True)
    elif kind == "plain parquet":
        pa.parquet.write_table(table, sink, compression="none", use_dictionary=False)
    else:
        pa.feather.write_feather(table, sink, compression="zstd" if kind == "feather" else "uncompressed")
    return bytes(sink.getvalue().to_pybytes())


def mutated(data: bytes, draw: random.Random, text: bool) -> bytes:
    """One to three changes of any kind."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        place = draw.randrange(len(data) or 1)
        size = draw.choice((1, 1, 2, 4, 8, 30))
        part = data[place : place + size]
        how = draw.randrange(8)
        token = draw.choice(TOKENS if text else EXTREMES)
        if how == 0:
            data = data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))] if data else []) + data[place + 1 :]
        elif how == 1:
            data = data[:place] + data[place + size :]
        elif how == 2:
            data = data[:place] + token + data[place:]
        elif how == 3:
            data = data[:place] + token + data[place + len(token) :]
        elif how == 4:
            data = data[:place] + part + data[place:]
        elif how == 5:
            data = data[:place] if draw.random() < 0.3 else data[:place] + draw.randbytes(size) + data[place + size :]
        elif how == 6:
            other = draw.randrange(len(data) or 1)
            data = data[:other] + part + data[other + len(part) :]
        else:
            data = data[:place] + draw.randbytes(1) + data[place + 1 :]
    return data


def changed(before: bytes, after: bytes) -> int:
    """How many lines of a text are not lines of the undamaged one, the line of names included."""
    return sum((Counter(after.splitlines()) - Counter(before.splitlines())).values())


def number(value: Any) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def wrong_rows(table: Any) -> int:
    """How many rows differ from those of the table; columns that lost their names are not compared."""
    there = [name for name in NAMES if name in table.columns]
    values = {name: [number(v) for v in table[name].values.tolist()] for name in there}
    gaps = {name: ~table[name].present for name in there}
    wrong = 0
    for row in range(table.rows):
        i = values["id"][row] if "id" in values and not gaps["id"][row] else -1
        right = dict(zip(NAMES, cells(int(i) if isinstance(i, float) and 0 <= i < ROWS else -1)))
        wrong += any(gaps[name][row] or values[name][row] != right[name] for name in there)
    return wrong


def shifted(table: Any) -> list[str]:
    """Columns in which the planted value of another one appears in more rows than copied bytes can explain."""
    if "sentinel" not in table.columns:
        return []  # it was renamed
    return [
        name for name in table.columns
        if name != "sentinel" and sum(number(v) == SENTINEL for v in table[name].values.tolist()) > COPIED
    ]  # fmt: skip


def faults(kind: str, before: bytes, after: bytes, table: Any) -> str | None:
    """What is wrong with an answer."""
    if kind == "csv":
        header = after.split(b"\n")[0] == before.split(b"\n")[0]
        touched = changed(before, after)
        if header and tuple(table.columns) != NAMES:
            return f"columns {table.columns}"
        return f"{wrong_rows(table)} rows for {touched} lines" if header and wrong_rows(table) > touched else None
    if kind == "npy":
        if len(before) != len(after) or before[:128] != after[:128]:
            return None  # another shape or type than that of the sound file, and no checksum
        same = np.frombuffer(before[128:]) == np.frombuffer(after[128:])
        wanted = np.frombuffer(after[128:]).reshape(ROWS, -1)
        found = np.stack([table[name].data for name in table.columns], axis=1)
        return None if (found[same.reshape(ROWS, -1)] == wanted[same.reshape(ROWS, -1)]).all() else "cells moved"
    if kind in ("npz", "parquet"):  # each array or page has a checksum
        lost = set(NAMES) & set(table.columns)
        return f"{wrong_rows(table)} rows" if len(lost) > 4 and wrong_rows(table) else None
    names = shifted(table)
    return f"the planted value in {names}" if names else None


def main(kind: str, count: int, seed: int) -> dict[str, Any]:
    before = original(kind)
    suffix = {"plain parquet": "parquet"}.get(kind, kind)
    draw = random.Random(seed)
    results: dict[str, Any] = {"answered": 0, "refused": 0, "unchanged": 0, "bad": [], "where": Counter()}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"data.{suffix}")
        for k in range(-1, count):
            data = before if k < 0 else mutated(before, draw, kind == "csv")
            with open(path, "wb") as file:
                file.write(data)
            if k == 0:  # once everything is imported and warm
                warm = peak()
            try:
                table = gn.data.read(path)
                gn.data.Preprocessing.fit(table).inputs(table)
            except GpunnError as error:
                results["refused"] += 1
                results["where"][str(error).partition(":")[0].replace(path, "")[:12].rstrip("0123456789")] += 1
                continue
            except BaseException as error:
                results["bad"].append(f"{k}: {type(error).__name__}: {error}"[:300])
                continue
            results["answered"] += 1
            results["unchanged"] += data == before
            fault = faults(kind, before, data, table)
            if fault:
                results["bad"].append(f"{k}: {fault}")
        results["grown"] = peak() - warm
    return results


if __name__ == "__main__":
    warnings.simplefilter("error")
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
