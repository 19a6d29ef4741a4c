"""The best weights seen, kept on the device, for each model its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends.elementwise import elementwise
from gpunn.engine import Engine


@elementwise
def choose(xp: Any, taken: Any, new: Any, old: Any) -> Any:
    return xp.where(taken > 0.0, new, old)


class Best:
    """A copy of parameters and state as they were when the monitored figure was best; at first, the initial ones."""

    def __init__(self, network: Engine) -> None:
        self.ops, self.store = network.ops, network.store
        self.pairs = []
        for current in (self.store.values, self.store.state):
            if current.size:
                copy = self.ops.empty(current.shape, current.dtype)
                self.ops.copy(current, out=copy)
                self.pairs.append((current, copy))

    def take(self, members: np.ndarray[Any, Any]) -> None:
        """Keep what these models hold now."""
        if members.any():
            self._blend(members, [(copy, current, copy) for current, copy in self.pairs])

    def restore(self, members: np.ndarray[Any, Any]) -> None:
        """Give these models their best weights back."""
        if members.any():
            self._blend(members, [(current, copy, current) for current, copy in self.pairs])

    def _blend(self, members: np.ndarray[Any, Any], triples: list[Any]) -> None:
        if members.all():
            for out, new, _ in triples:
                self.ops.copy(new, out=out)
            return
        taken = self.ops.from_host(members.astype(np.float64)[:, None], self.store.dtype)
        for out, new, old in triples:
            self.ops.elementwise(choose, (taken, new, old), (out,))

    def arrays(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: copy for name, (_, copy) in zip(("best values", "best state"), self.pairs)}
