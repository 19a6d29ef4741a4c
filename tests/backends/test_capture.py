"""Operations captured in a CUDA graph; results do not depend on the order of threads nor on other models."""

from typing import Any

import numpy as np
import pytest

from gpunn.backends.reference.backend import Backend
from tests.backends.calls import FAMILIES, Call, Out, Placed, calls, each_of
from tests.backends.comparison import assert_close


def new_values(backend: Any, placed: Placed, rng: np.random.Generator) -> Call:
    """Other numbers in a call's device arrays, and the call with those numbers."""
    replaced: dict[int, np.ndarray] = {}
    for host, device in placed.inputs:
        values = rng.permutation(host.reshape(-1)).reshape(host.shape)
        replaced[id(host)] = values
        backend.copy(backend.from_host(np.asarray(values, device.dtype)), out=device)

    def swap(value: Any) -> Any:
        return each_of(value, lambda part: replaced.get(id(part), part))

    return Call(placed.call.name, {name: swap(value) for name, value in placed.call.arguments.items()})


@pytest.mark.parametrize("shape", [(33, 10), (600, 3), (2, 5, 4)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_operation_can_be_captured_in_a_cuda_graph(strict: Any, family: str, shape: tuple[int, ...]) -> None:
    cupy, rng = strict.xp, np.random.default_rng(22)
    for call in calls(family, shape):
        placed = Placed(strict, call, "float64")
        placed.run()
        stream = cupy.cuda.Stream(non_blocking=True)
        cupy.counters.reset()
        with stream:
            stream.begin_capture()
            placed.run()
            graph = stream.end_capture()
        counts = cupy.counters.snapshot()
        assert counts["transfers"] == counts["synchronisations"] == counts["allocations"] == 0, call.name
        changed = new_values(strict, placed, rng)
        for out in placed.outputs:
            out.fill(77)
        graph.launch(stream)
        expected = Placed(Backend(), changed, "float64")
        expected.run()
        for got, wanted in zip(placed.results(), expected.results(), strict=True):
            assert_close(got, wanted, "float64", call.name)


def test_a_replayed_graph_draws_random_numbers_of_the_current_step(strict: Any, reference: Backend) -> None:
    cupy = strict.xp
    keys = np.array([[1, 2], [3, 4]], np.uint64)
    key, step = strict.from_host(keys), strict.from_host(np.array([0], np.uint64))
    stream = cupy.cuda.Stream(non_blocking=True)
    names = {
        "random_words": np.uint64,
        "random_bits": np.uint16,
        "random_uniform": np.float32,
        "random_normal": np.float64,
    }
    outs = {name: strict.zeros((2, 3, 7) if name != "random_words" else (2, 21), kind) for name, kind in names.items()}
    for name, out in outs.items():
        getattr(strict, name)(key, step, out=out)
    cupy.counters.reset()
    with stream:
        stream.begin_capture()
        for name, out in outs.items():
            getattr(strict, name)(key, step, out=out)
        graph = stream.end_capture()
    counts = cupy.counters.snapshot()
    assert counts["transfers"] == counts["synchronisations"] == counts["allocations"] == 0
    for number in (5, 2**40):
        step.fill(number)
        graph.launch(stream)
        for name, out in outs.items():
            expected = np.zeros(out.shape, out.dtype)
            getattr(reference, name)(keys, np.array([number], np.uint64), out=expected)
            np.testing.assert_allclose(strict.to_host(out), expected, rtol=1e-14)


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_the_order_of_cuda_threads_changes_no_result(strict: Any, order: str) -> None:
    """A missing barrier gives a wrong result in one of the two orders."""
    before = strict.xp.fiber_order
    strict.xp.fiber_order = order
    try:
        for family in ("rows", "scores", "sums", "normalization", "indices"):
            for call in calls(family, (2, 37, 19)):
                placed, expected = Placed(strict, call, "float64"), Placed(Backend(), call, "float64")
                placed.run()
                expected.run()
                for got, wanted in zip(placed.results(), expected.results(), strict=True):
                    assert_close(got, wanted, "float64", call.name)
    finally:
        strict.xp.fiber_order = before


def test_an_operation_gives_a_model_the_same_bits_alone_and_in_a_population(strict: Any) -> None:
    for family in ("rows", "scores", "sums", "normalization"):
        for call in calls(family, (3, 600, 20)):
            together = Placed(strict, call, "float32")
            together.run()
            alone = Placed(strict, Call(call.name, {k: of_model(v) for k, v in call.arguments.items()}), "float32")
            alone.run()
            for whole, part in zip(together.results(), alone.results(), strict=True):
                np.testing.assert_array_equal(whole[1], part, err_msg=call.name)


def of_model(value: Any) -> Any:
    if isinstance(value, tuple):
        return each_of(value, of_model)
    if isinstance(value, Out):
        return Out(value.shape[1:], value.dtype)
    return value[1] if isinstance(value, np.ndarray) else value
