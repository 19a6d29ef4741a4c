"""The table that `Network.summary` returns."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gpunn.errors import readable
from gpunn.frame import Frame, Planned
from gpunn.memory import Hollow
from gpunn.parameters import ParameterStore
from gpunn.passes import Pass


def summary_table(planned: Planned, rehearsed: Pass, taken: int, store: ParameterStore, batch: int) -> str:
    """Layer, output shape, parameters of one model, and memory of a training batch for all models.

    `rehearsed` is a pass with hollow arrays (see `Engine.rehearsed`), and `taken` are the bytes they would take.
    """
    rows = [("layer", "", "output", "parameters", f"memory at batch {batch}")]
    for node, frame in zip(planned.walk(), _walk(rehearsed.frame), strict=True):
        count = sum(math.prod(p.shape) for p in node.plan.parameters.values())
        memory = sum(array.nbytes for array in vars(frame).values() if isinstance(array, Hollow))
        if node.path:
            rows.append((node.path, type(node.layer).__name__, str(node.plan.output), f"{count:,}", readable(memory)))
    taken += store.values.nbytes + store.gradients.nbytes + store.state.nbytes
    named = f"{store.models} models" if store.models else ""
    total = ("total", named, str(planned.plan.output), f"{store.count:,}", readable(taken))
    widths = [max(len(row[i]) for row in [*rows, total]) for i in range(5)]
    rule = "  ".join("-" * width for width in widths)
    lines = [_line(rows[0], widths), rule, *(_line(row, widths) for row in rows[1:]), rule, _line(total, widths)]
    moment = readable(store.values.nbytes)
    return "\n".join([
        *lines,
        "(the total's memory includes parameters and gradients;",
        f" training adds {moment} for each moment of its optimizer, twice that for the best weights, and the data)",
    ])  # fmt: skip


def _walk(frame: Frame) -> Iterator[Frame]:
    """This frame and all frames inside it, in forward order."""
    yield frame
    for child in frame.children.values():
        yield from _walk(child)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """A row with words aligned left and numbers aligned right."""
    aligned = [c.rjust(w) if i >= 3 else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths))]
    return "  ".join(aligned).rstrip()
