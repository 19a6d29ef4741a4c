"""How often the host waits for the device, and what a captured step consists of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

READS = ("get", "item", "__bool__", "__float__", "__int__")


class Count:
    """How many there were."""

    value = 0


@contextmanager
def host_waits(ops: Any) -> Iterator[Count]:
    """Counts the calls by which a program on a CUDA backend waits for the device."""
    count, inside = Count(), [False]

    def counted(method: Any) -> Any:
        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            if inside[0]:  # one wait, though it is made of another
                return method(*arguments, **options)
            count.value += 1
            inside[0] = True
            try:
                return method(*arguments, **options)
            finally:
                inside[0] = False

        return call

    cuda = ops.xp.cuda
    places = [(cuda.Stream, "synchronize"), (cuda.Event, "synchronize"), (type(ops), "synchronize")]
    places += [(type(ops), "all_finite"), *((ops.xp.ndarray, name) for name in READS)]
    with ExitStack() as stack:
        for owner, name in places:
            if isinstance(owner, type) and hasattr(owner, name):
                stack.enter_context(patch.object(owner, name, counted(getattr(owner, name))))
        yield count


def captured(programs: Iterable[Any]) -> dict[str, Any]:
    """Whether these steps are replayed as graphs, and how many pieces of work those have, where CuPy can say."""
    graphs = [getattr(program, "graph", None) for program in programs]
    if not graphs or None in graphs:
        return {"captured": "no"}
    texts = [describe() for graph in graphs if (describe := getattr(graph, "debug_dot_str", None))]
    nodes = sum(len(set(re.findall(r'"(graph_\d+_node_\d+)"', text))) for text in texts)
    return {"captured": "yes"} | ({"nodes": nodes} if nodes else {})
