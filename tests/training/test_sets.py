"""What a user hands in is converted and looked through once, whatever is made of it."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import inputs
from gpunn.errors import ArrayTypeError

X = np.random.default_rng(0).normal(size=(24, 3))
Y = np.arange(24) % 3
FOLDS = [(np.arange(16), np.arange(16, 24)), (np.arange(8, 24), np.arange(8))]


@contextmanager
def calls_counted() -> Iterator[Counter[str]]:
    """How often `as_array` was called for each thing that is handed in, and `check_inputs` for any."""
    found: Counter[str] = Counter()

    def look(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is inputs.as_array.__code__:
            found[frame.f_locals["where"]] += 1
        elif event == "call" and frame.f_code is inputs.check_inputs.__code__:
            found["checks of inputs"] += 1

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(before)


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "arrays": (X, Y, {}),
    "lists": (X.tolist(), Y.tolist(), {}),
    "weights": (X, Y, {"sample_weight": [1.0] * 24, "class_weight": "balanced"}),
    "a fraction": (X.tolist(), Y.tolist(), {"validation": 0.25, "class_weight": "balanced"}),
    "folds": (X.tolist(), Y, {"folds": FOLDS}),
    "chunk by chunk": (X, Y, {"memory": 2 * X.nbytes // 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_handed_in_is_converted_once(case: str) -> None:
    given, targets, options = CASES[case]
    net = gn.Network([gn.Dense(3)], 3, device="cpu", models=2 if case == "folds" else None)
    with calls_counted() as calls:
        net.fit(
            given, targets, loss=gn.CrossEntropy(), optimizer=gn.SGD(0.1), epochs=1, batch_size=4, progress=False,
            **options,
        )  # fmt: skip
    looks = 3 if case == "chunk by chunk" else 1
    assert calls["X"] == calls["checks of inputs"] == looks
    assert calls["y"] == 1
    assert calls["fit sample_weight"] == ("sample_weight" in options)


@pytest.mark.parametrize("text", [np.full((2, 3), "a"), [["a"] * 3] * 2], ids=["array", "list"])
def test_an_error_in_the_validation_set_names_the_validation_set(text: Any) -> None:
    net = gn.Network([gn.Dense(3)], 3, device="cpu")
    with pytest.raises(ArrayTypeError, match=r"^fit validation X: expected real numbers, got dtype <U1"):
        net.fit(X, Y, loss=gn.CrossEntropy(), optimizer=gn.SGD(0.1), validation=(text, [0, 1]), progress=False)
