"""Launching kernels on the stand-in: arguments, limits, capture, and the cache of compiled texts."""

import itertools
import subprocess
from typing import Any

import numpy as np
import pytest

from tests.strict import compiler
from tests.strict.compiler import have_gxx, kernel_names
from tests.strict.standin import CUDARuntimeError, make_cupy

pytestmark = pytest.mark.skipif(not have_gxx(), reason="g++ is not installed, so kernels cannot run on the stand-in")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda cp: (np.zeros(3, "f4"), 1, 1.0), r"You are trying to pass a numpy\.ndarray of shape \(3,\)"),
        (lambda cp: ([1], 1, 1.0), "Unsupported type <class 'list'>"),
        (lambda cp: (cp.zeros(3), 1, 1.0), "argument 0 must be a pointer to f4, got an array of float64"),
        (lambda cp: (cp.zeros(3, "f4"), np.int32(1), 1.0), r"argument 1 must be i8, got int32 \(int32\)"),
        (lambda cp: (cp.zeros(3, "f4"), 1, np.float32(1)), r"argument 2 must be f8, got float32 \(float32\)"),
        (lambda cp: (cp.zeros(3, "f4"), 1), "f takes 3 arguments, 2 given"),
    ],
)
def test_arguments_must_fit(arguments: Any, message: str) -> None:
    cp = make_cupy()
    code = 'extern "C" __global__ void f(float* y, long long n, double v) { y[n] = v; }'
    with pytest.raises(TypeError, match=message):
        cp.RawKernel(code, "f")((1,), (1,), arguments(cp))


def test_python_scalars_are_eight_bytes_and_none_is_null() -> None:
    cp = make_cupy()
    code = 'extern "C" __global__ void f(const float* x, float* y, long long n, double v) { if (!x) y[n] = v; }'
    y = cp.zeros(3, "f4")
    cp.RawKernel(code, "f")((0,), (1,), (None, y, 2, 1.5))  # A grid of 0 counts as 1, as in CuPy.
    assert y.get().tolist() == [0, 0, 1.5]


def test_launches_that_cuda_refuses() -> None:
    cp = make_cupy()
    kernel = cp.RawKernel('extern "C" __global__ void f() {}', "f")
    with pytest.raises(CUDARuntimeError, match=r"cudaErrorInvalidConfiguration.*block \(2048, 1, 1\)"):
        kernel((1,), (2048,), ())
    with pytest.raises(CUDARuntimeError, match="65536 bytes of dynamic shared memory"):
        kernel((1,), (1,), (), shared_mem=65536)
    with pytest.raises(TypeError, match="must be tuples"):
        kernel(1, (1,), ())
    with pytest.raises(CUDARuntimeError, match="named symbol not found: g"):
        cp.RawModule(code="").get_function("g")
    big = 'extern "C" __global__ void f(float* y) { __shared__ float s[20000]; s[0] = 1; *y = s[0]; }'
    with pytest.raises(CUDARuntimeError, match="f uses too much static shared memory"):
        cp.RawKernel(big, "f")((1,), (1,), (cp.zeros(1, "f4"),))
    with pytest.raises(NotImplementedError, match="the stand-in takes code and options only"):
        cp.RawModule(code="", name_expressions=("f<int>",))


def test_kernels_are_captured() -> None:
    cp = make_cupy()
    kernel = cp.RawKernel('extern "C" __global__ void f(const float* x, float* y, float v) { *y = *x * v; }', "f")
    x, y, stream = cp.full(1, 2, "f4"), cp.zeros(1, "f4"), cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        kernel((1,), (1,), (x, y, np.float32(10)))
        graph = stream.end_capture()
    assert y.get()[0] == 0
    x.fill(3)
    graph.launch()
    assert y.get()[0] == 30


def test_a_library_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(compiler, "cache_directory", lambda: tmp_path)
    runs = itertools.count()
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: (next(runs), real(*a, **k))[1])
    for _ in range(2):
        make_cupy().RawKernel('extern "C" __global__ void f() {}', "f").compile()
    assert next(runs) == 1 and [p.suffix for p in tmp_path.iterdir()] == [".so"]


def test_kernel_names_leaves_comments_templates_and_macros_out() -> None:
    text = """// __global__ void no(int x)
    template <class T> __global__ void neither(T x) {}
    #define MAKE(name) extern "C" __global__ void name(int x) {}
    extern "C" { __global__ void __launch_bounds__(256) one(int x) {} }
    extern "C" __global__ void two(int x) {}"""
    assert kernel_names(text) == ["one", "two"]


def test_a_kernel_made_by_a_macro() -> None:
    cp = make_cupy()
    code = '#define MAKE(name, v) extern "C" __global__ void name(int* y) { *y = v; }\nMAKE(three, 3)\nMAKE(four, 4)'
    y = cp.zeros(1, "i4")
    cp.RawModule(code=code).get_function("four")((1,), (1,), (y,))
    assert y.get()[0] == 4
