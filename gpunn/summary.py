"""The table that `Network.summary` returns."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gpunn.frame import SUMS, Planned, planned_buffers


def summary_table(planned: Planned, batch: int, itemsize: int, models: int | None) -> str:
    """Layer, output shape, parameters of one model, and memory of a training batch for all models."""
    copies = models or 1
    rows = [("layer", "", "output", "parameters", f"memory at batch {batch}")]
    total_count = total_memory = 0
    for node, wants_dX in _walk(planned, False):
        count = sum(math.prod(p.shape) for p in node.plan.parameters.values())
        memory = copies * _buffer_bytes(node, wants_dX, batch, itemsize)
        total_count, total_memory = total_count + count, total_memory + memory
        if node.path:
            rows.append((node.path, type(node.layer).__name__, str(node.plan.output), f"{count:,}", readable(memory)))
    total_memory += 2 * total_count * copies * itemsize
    named = f"{models} models" if models else ""
    total = ("total", named, str(planned.plan.output), f"{total_count:,}", readable(total_memory))
    widths = [max(len(row[i]) for row in [*rows, total]) for i in range(5)]
    rule = "  ".join("-" * width for width in widths)
    lines = [_line(rows[0], widths), rule, *(_line(row, widths) for row in rows[1:]), rule, _line(total, widths)]
    return "\n".join([*lines, "(the total's memory includes parameters and gradients)"])


def _walk(planned: Planned, wants_dX: bool) -> Iterator[tuple[Planned, bool]]:
    """Every node with whether it keeps a dX, as frames do."""
    yield planned, wants_dX
    below = wants_dX
    for child in planned.children.values():
        yield from _walk(child, planned.layer.child_wants_dX(wants_dX, below))
        below = below or child.trains


def _buffer_bytes(node: Planned, wants_dX: bool, batch: int, itemsize: int) -> int:
    """What one model allocates in a training pass for this node alone."""
    return sum(
        math.prod(buffer.shape)
        * (itemsize if buffer.dtype in (None, SUMS) else np.dtype(buffer.dtype).itemsize)
        * (batch if buffer.rows else 1)
        for buffer in planned_buffers(node.plan, backward=True, wants_dX=wants_dX).values()
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Words to the left, numbers to the right."""
    aligned = [c.rjust(w) if i >= 3 else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths))]
    return "  ".join(aligned).rstrip()


def readable(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
