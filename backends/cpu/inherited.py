"""Values that a thread makes once and passes on to a later thread when it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")
MOST = 16  # values kept for later threads; more are dropped


class Inherited(Generic[Made]):
    """Holds a `value` of one thread, taken from the list `left` or made new. Store it in a `threading.local`: when the
    thread ends, the holder is deleted and the value goes back to `left`.

    Without this, a server with a new thread for each request would compile all formulas for each request.
    """

    def __init__(self, left: list[Made], make: Callable[[], Made]) -> None:
        self.left = left
        try:
            self.value = left.pop()
        except IndexError:
            self.value = make()

    def __del__(self) -> None:
        if len(self.left) < MOST:
            self.left.append(self.value)
