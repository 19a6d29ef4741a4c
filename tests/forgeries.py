"""Edits of the content of files, drawn by a seeded generator: at any place in JSON and in any array."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

COUNT = int(os.environ.get("GPUNN_TEST_FORGERIES", "240"))
Arrays = dict[str, np.ndarray[Any, Any]]
Place = tuple[Any, Any]  # a dict or list, and a key of it

HUGE = 10**400
JUNK = (
    None, True, False, -1, 0, 1, 2, 1.5, -0.5, 1e308, HUGE, -HUGE, 2**63, 2**64, float("nan"), float("inf"), "", "x",
    "nan", "-inf", "\ud800", [], [0], [[]], {}, {"x": 1}, {"layer": "Dense", "units": 2},
)  # fmt: skip


# JSON


def _delete(draw: random.Random, place: Place) -> None:
    del place[0][place[1]]


def _replace(draw: random.Random, place: Place) -> None:
    place[0][place[1]] = copy.deepcopy(draw.choice(JUNK))


def _nest(draw: random.Random, place: Place) -> None:
    value = place[0][place[1]]
    place[0][place[1]] = draw.choice(([value], {"x": value}, [[[value]]]))


def _add(draw: random.Random, place: Place) -> None:
    """Add a name or an item beside it."""
    container, key = place
    if isinstance(container, dict):
        container[draw.choice(("x", f"{key}x", "", "loss", "epoch"))] = copy.deepcopy(draw.choice(JUNK))
    else:
        container.insert(key, copy.deepcopy(draw.choice((container[key], *JUNK))))


def _nudge(draw: random.Random, place: Place) -> None:
    """Replace a number by a neighbouring one, a boolean or a text."""
    container, key = place
    value = container[key]
    if isinstance(value, bool):
        container[key] = draw.choice((int(value), not value, str(value)))
    elif isinstance(value, (int, float)):
        near = (value + 1, value - 1, value * 2, -value, value * 1000, float(value), str(value), bool(value))
        container[key] = draw.choice(near)
    elif isinstance(value, str):
        container[key] = draw.choice((value + "x", value[:-1], value.upper(), 0))
    else:
        container[key] = copy.deepcopy(draw.choice((None, [value], 3)))


def _move(draw: random.Random, place: Place) -> None:
    """Put in what stands elsewhere in the same container."""
    container, key = place
    others = list(container) if isinstance(container, dict) else range(len(container))
    other = draw.choice(list(others))
    container[key], container[other] = container[other], container[key]


JSON_EDITS: dict[str, Callable[[random.Random, Place], None]] = {
    "delete": _delete, "replace": _replace, "nest": _nest, "add": _add, "nudge": _nudge, "move": _move,
}  # fmt: skip


def edit_json(draw: random.Random, value: Any, kind: str) -> None:
    """One edit of this kind, in place; every level of the value is as likely as any other."""
    levels: dict[int, list[Place]] = {}

    def sort(part: Any, depth: int) -> None:
        for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            levels.setdefault(depth, []).append((part, key))
            sort(part[key], depth + 1)

    sort(value, 0)
    if levels:
        JSON_EDITS[kind](draw, draw.choice(levels[draw.choice(list(levels))]))


def edit_text(draw: random.Random, text: bytes) -> bytes:
    """Damage to the text, after which it is rarely valid JSON."""
    place = draw.randrange(len(text))
    return draw.choice((
        b"", text[:place], text[:place] + b"\xff\xfe" + text[place:], b"\xef\xbb\xbf" + text, text + text,
        b"[" * 100_000, b"9" * 5000, b"null", b"[]", b"3", b'"x"', text.replace(b":", b"=", 1),
        text.decode().encode("utf-16"),        text[:place] + draw.randbytes(3) + text[place + 3 :],
    ))  # fmt: skip


# Arrays

VALUES = (np.nan, np.inf, -np.inf, -1.0, 0.0, 1e30, -1e30, 0.5, 5e-324, 1e308)


def _lose(draw: random.Random, arrays: Arrays, name: str) -> None:
    del arrays[name]


def _rename(draw: random.Random, arrays: Arrays, name: str) -> None:
    arrays[draw.choice((name + "x", name.upper(), "x", name.replace("/", "")))] = arrays.pop(name)


def _copy(draw: random.Random, arrays: Arrays, name: str) -> None:
    arrays[draw.choice((name + "x", "run/x", "network/9.W", "run/optimizer/x", "x"))] = arrays[name].copy()


def _cast(draw: random.Random, arrays: Arrays, name: str) -> None:
    kinds = [kind for kind in ("float16", "float32", "float64", "int64", "bool") if kind != arrays[name].dtype.name]
    with np.errstate(all="ignore"):
        arrays[name] = np.nan_to_num(arrays[name]).astype(draw.choice(kinds))


def _reshape(draw: random.Random, arrays: Arrays, name: str) -> None:
    array = arrays[name]
    arrays[name] = draw.choice((array[..., :-1], array.reshape(-1, 1, 1), np.concatenate([array, array]), array[None]))


def _poke(draw: random.Random, arrays: Arrays, name: str) -> None:
    """Replace one number by another one."""
    flat = arrays[name].reshape(-1)
    if flat.size:
        with np.errstate(over="ignore"):
            flat[draw.randrange(flat.size)] = draw.choice(VALUES)


def _fill(draw: random.Random, arrays: Arrays, name: str) -> None:
    with np.errstate(over="ignore"):
        arrays[name][...] = draw.choice(VALUES)


def _flip(draw: random.Random, arrays: Arrays, name: str) -> None:
    """One bit."""
    bits = arrays[name].reshape(-1).view(np.uint8)
    if bits.size:
        bits[draw.randrange(bits.size)] ^= 1 << draw.randrange(8)


def _swap(draw: random.Random, arrays: Arrays, name: str) -> None:
    other = draw.choice(list(arrays))
    arrays[name], arrays[other] = arrays[other].copy(), arrays[name].copy()


ARRAY_EDITS: dict[str, Callable[[random.Random, Arrays, str], None]] = {
    "lose": _lose, "rename": _rename, "copy": _copy, "cast": _cast, "reshape": _reshape, "poke": _poke, "fill": _fill,
    "flip": _flip, "swap": _swap,
}  # fmt: skip

# Checkpoints

PARTS: dict[str, Callable[[Any], Any]] = {  # of a checkpoint's meta, where JSON is edited
    "meta": lambda meta: meta,
    "progress": lambda meta: meta["run"]["progress"],
    "history": lambda meta: meta["run"]["history"],
    "run": lambda meta: meta["run"],
    "network": lambda meta: meta["network"],
}
KINDS = (
    *(f"array {kind}" for kind in ARRAY_EDITS),
    *(f"{part} {kind}" for part in PARTS for kind in JSON_EDITS),
    "history text",
)


def forge(draw: random.Random, arrays: Arrays, meta: dict[str, Any], kind: str) -> tuple[Arrays, dict[str, Any]]:
    """The content of a checkpoint with an edit of this kind, and now and then one or two more of the same."""
    arrays = {name: array.copy() for name, array in arrays.items()}
    meta = copy.deepcopy(meta)
    part, how = kind.split(" ")
    if kind == "history text":
        broken = edit_text(draw, meta["run"]["history"].encode()).decode(errors="surrogateescape")
        meta["run"]["history"] = broken
        return arrays, meta
    meta["run"]["history"] = json.loads(meta["run"]["history"])
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if part == "array" and arrays:
            ARRAY_EDITS[how](draw, arrays, draw.choice(list(arrays)))
        elif part != "array":
            with suppress(KeyError, TypeError):  # the edit before took the part away
                edit_json(draw, PARTS[part](meta), how)
    if isinstance(meta.get("run"), dict) and isinstance(meta["run"].get("history"), (dict, list)):
        meta["run"]["history"] = json.dumps(meta["run"]["history"])
    return arrays, meta
