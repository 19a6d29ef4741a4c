"""What a thread makes for itself once, and leaves to the next thread when it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")
MOST = 16  # that wait for a thread; those of more threads than that are dropped


class Inherited(Generic[Made]):
    """Keep it in a `threading.local`: it goes when the thread does, and `value` is then in `left` for another one.

    A server that answers each request in a thread of its own would otherwise compile all formulas for each request.
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
