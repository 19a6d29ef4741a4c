"""From `fit` to the first product there are few calls, in few files: a reader can follow them."""

import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import pytest

import gpunn as gn

FRAMES, FILES = 12, 7
ROOT = Path(gn.__file__).resolve().parent
OURS = tuple(f"{os.path.realpath(folder)}{os.sep}" for folder in (ROOT, ROOT / "backends"))


def calls_above() -> list[CodeType]:
    """The calls of gpunn's code that are going on, from the outermost on."""
    found, frame = [], sys._getframe(1)
    while frame is not None:
        if os.path.realpath(frame.f_code.co_filename).startswith(OURS):
            found.append(frame.f_code)
        frame = frame.f_back  # type: ignore[assignment]
    return found[::-1]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[CodeType]:
    """Those around the first product that NumPy is asked for."""
    seen: list[CodeType] = []

    def watched(product: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if not seen:
                seen.extend(calls_above())
            return product(*arguments, **options)

        return call

    for name in ("dot", "matmul"):
        monkeypatch.setattr(np, name, watched(getattr(np, name)))
    return seen


def test_a_reader_comes_to_the_first_product_soon(calls: list[CodeType]) -> None:
    X, y = np.random.default_rng(0).normal(size=(64, 6)), np.arange(64) % 3
    net = gn.Network([gn.Dense(5, "relu"), gn.Dense(3)], 6, device="cpu")
    net.fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.SGD(0.1), epochs=1, batch_size=16, progress=False)
    names = [f"{os.path.basename(code.co_filename)} {code.co_qualname}" for code in calls]
    assert "network.py Network.fit" in names and "step.py TrainingStep.__call__" in names
    assert len(names) <= FRAMES, names
    assert len({code.co_filename for code in calls}) <= FILES, names
