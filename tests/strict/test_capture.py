"""Capture on the stand-in: what it records, what a replay reads, and what it refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.strict.standin import CUDARuntimeError, make_cupy


@pytest.fixture
def cp() -> Any:
    """A fresh stand-in."""
    return make_cupy()


@pytest.fixture
def stream(cp: Any) -> Any:
    """A stream that can capture."""
    return cp.cuda.Stream(non_blocking=True)


def capture(stream: Any, program: Callable[[], Any]) -> Any:
    """The graph of a program."""
    with stream:
        stream.begin_capture()
        assert stream.is_capturing()
        program()
        return stream.end_capture()


def test_a_capture_runs_nothing_and_a_replay_reads_buffers_then(cp: Any, stream: Any) -> None:
    x, y = cp.asarray([1.0, 2.0]), cp.zeros(2)
    temporaries = []

    def program() -> None:
        temporaries.append(x * 3)
        cp.add(temporaries[0], 1, out=y)
        y[0:1] += 100
        cp.copyto(x, y)

    graph = capture(stream, program)
    assert np.isnan(temporaries[0].get()).all()
    np.testing.assert_array_equal(y.get(), [0, 0])
    graph.launch(stream)
    np.testing.assert_array_equal(y.get(), [104, 7])
    graph.launch()
    np.testing.assert_array_equal(x.get(), [413, 22])
    x.fill(0)
    graph.launch()
    np.testing.assert_array_equal(y.get(), [101, 1])


def test_scalars_are_frozen_and_device_scalars_are_not(cp: Any, stream: Any) -> None:
    y, rate = cp.zeros(3), {"host": 2.0}
    device_rate = cp.asarray(10.0)
    graph = capture(stream, lambda: y.__setitem__(..., rate["host"] + device_rate))
    rate["host"] = 5.0
    device_rate.fill(20.0)
    graph.launch()
    np.testing.assert_array_equal(y.get(), [22, 22, 22])


def test_gathers_and_reductions_are_recorded(cp: Any, stream: Any) -> None:
    table, rows, total = cp.asarray(np.eye(3)), cp.asarray([0, 0]), cp.zeros(())

    def program() -> None:
        cp.sum(table[rows] * cp.take(table, rows, axis=0), out=total)
        table[rows] = 4.0

    graph = capture(stream, program)
    assert float(total) == 0
    rows.set(np.array([2, 2]))
    graph.launch()
    assert float(total) == 2
    np.testing.assert_array_equal(table.get()[2], [4, 4, 4])


def test_a_replay_is_one_launch(cp: Any, stream: Any) -> None:
    y = cp.zeros(3)
    graph = capture(stream, lambda: [cp.add(y, 1, out=y) for _ in range(5)])
    cp.counters.reset()
    graph.launch()
    assert cp.counters.snapshot() == {"launches": 1, "transfers": 0, "synchronisations": 0, "allocations": 0}


@pytest.mark.parametrize(
    ("operation", "error", "message"),
    [
        (lambda cp, a: a @ a, NotImplementedError, "calling cuBLAS API during stream capture is currently unsupported"),
        (lambda cp, a: cp.dot(a, a), NotImplementedError, "calling cuBLAS API"),
        (lambda cp, a: cp.tensordot(a, a), NotImplementedError, "calling cuBLAS API"),
        (lambda cp, a: a.get(), RuntimeError, "the current stream is capturing, so D2H transfers are disallowed"),
        (lambda cp, a: float(a[0, 0]), RuntimeError, "D2H transfers are disallowed"),
        (lambda cp, a: int(a[0, 0]), RuntimeError, "D2H transfers are disallowed"),
        (lambda cp, a: bool(a[0, 0]), RuntimeError, "D2H transfers are disallowed"),
        (lambda cp, a: a[0, 0].item(), RuntimeError, "D2H transfers are disallowed"),
        (lambda cp, a: a[a > 0], RuntimeError, "D2H transfers are disallowed"),
        (lambda cp, a: cp.nonzero(a), RuntimeError, "D2H transfers are disallowed"),
        (lambda cp, a: cp.where(a), RuntimeError, "D2H transfers are disallowed"),
        (lambda cp, a: cp.unique(a), RuntimeError, "D2H transfers are disallowed"),
        (lambda cp, a: cp.asarray([1.0]), RuntimeError, "H2D transfers are disallowed"),
        (lambda cp, a: a.set(np.eye(3)), RuntimeError, "H2D transfers are disallowed"),
    ],
)
def test_what_cupy_refuses_leaves_the_capture_valid(
    cp: Any, stream: Any, operation: Callable[..., Any], error: type, message: str
) -> None:
    a = cp.asarray(np.eye(3))

    def program() -> None:
        with pytest.raises(error, match=message):
            operation(cp, a)

    capture(stream, program).launch()


@pytest.mark.parametrize(
    "operation",
    [
        lambda cp, a: cp.cuda.get_current_stream().synchronize(),
        lambda cp, a: cp.cuda.Device().synchronize(),
        lambda cp, a: cp.sort(a),
        lambda cp, a: a.argsort(),
    ],
)
def test_what_cuda_refuses_loses_the_capture(cp: Any, stream: Any, operation: Callable[..., Any]) -> None:
    a = cp.asarray(np.eye(3))

    def program() -> None:
        with pytest.raises(CUDARuntimeError, match="operation not permitted when stream is capturing"):
            operation(cp, a)

    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        capture(stream, program)
    assert not stream.is_capturing()
    cp.sort(a)


def test_misplaced_captures(cp: Any, stream: Any) -> None:
    with pytest.raises(RuntimeError, match=r"cannot capture on the default \(legacy\) stream"):
        cp.cuda.Stream.null.begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
        stream.end_capture()
    stream.begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
        stream.begin_capture()
    y = cp.zeros(1)
    y += 1  # On the null stream, which does not capture.
    assert float(y[0]) == 1


def test_streams_nest_and_have_handles(cp: Any, stream: Any) -> None:
    with stream:
        assert cp.cuda.get_current_stream() is stream and stream.ptr != 0
        with cp.cuda.Stream() as inner:
            assert cp.cuda.get_current_stream() is inner and inner.ptr != stream.ptr
        assert cp.cuda.get_current_stream() is stream
    assert cp.cuda.get_current_stream() is cp.cuda.Stream.null and cp.cuda.Stream.null.ptr == 0
    stream.use()
    assert cp.cuda.get_current_stream() is stream
