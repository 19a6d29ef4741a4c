"""`ElementwiseKernel` on the stand-in: types, broadcasting, and the loop."""

from typing import Any

import numpy as np
import pytest

from tests.halves import every, floats_around
from tests.strict.compiler import CompileException, have_gxx
from tests.strict.standin import make_cupy

pytestmark = pytest.mark.skipif(not have_gxx(), reason="g++ is not installed, so kernels cannot run on the stand-in")
HOST = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def cp() -> Any:
    """A fresh stand-in."""
    return make_cupy()


@pytest.mark.parametrize("dtype", ["f2", "bfloat16", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_types(cp: Any, dtype: str) -> None:
    x = cp.arange(5, dtype=dtype)
    z = cp.ElementwiseKernel("T x, T y", "T z, bool big", "z = x * y + x; big = z > 4", "f")(x, 2)
    np.testing.assert_array_equal(z[0].get(), np.arange(5) * 3)
    np.testing.assert_array_equal(z[1].get(), np.arange(5) * 3 > 4)
    assert z[0].dtype == dtype and z[1].dtype == bool


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_is_that_of_numpy(cp: Any, half: str) -> None:
    wide = cp.ElementwiseKernel(f"{half} x", "float32 y", "y = x", "widen")(cp.asarray(every(half))).get()
    np.testing.assert_array_equal(wide, every(half).astype(np.float32))
    floats = floats_around(half)
    narrow = cp.ElementwiseKernel("float32 x", f"{half} y", "y = x", "narrow")(cp.asarray(floats)).get()
    with np.errstate(over="ignore"):
        expected = floats.astype(half)
    number = ~np.isnan(floats)
    np.testing.assert_array_equal(narrow[number].view(np.uint16), expected[number].view(np.uint16))
    assert np.isnan(narrow[~number]).all()


def test_half_types_convert_as_those_of_cupy(cp: Any) -> None:
    x = cp.asarray(np.array([1.5, 70000.0], "bfloat16"))
    y, b = cp.ElementwiseKernel("bfloat16 x", "float16 y, bool b", "y = x; b = x > 2 && !(x < 2)", "f")(x)
    np.testing.assert_array_equal(y.get(), np.array([1.5, np.inf], np.float16))
    np.testing.assert_array_equal(b.get(), [False, True])
    for text in ("1ll", "true", "2.5", "3u", "(short)4"):
        z = cp.ElementwiseKernel("T x", "bfloat16 y", f"y = {text}", "f")(x)
        assert z.get()[0] == {"1ll": 1, "true": 1, "2.5": 2.5, "3u": 3, "(short)4": 4}[text]
    with pytest.raises(CompileException, match="ambiguous"):
        cp.ElementwiseKernel("T x", "float16 y", "y = (long)3", "f")(x)
    with pytest.raises(TypeError, match="Type is mismatched. x bfloat16 float16"):
        cp.ElementwiseKernel("float16 x", "float16 y", "y = x", "f")(x)


def test_broadcasting_and_strides(cp: Any) -> None:
    x, kernel = cp.asarray(HOST), cp.ElementwiseKernel("float32 x, float32 y", "float32 z", "z = x - y", "f")
    np.testing.assert_array_equal(kernel(x, x[:, :1]).get(), HOST - HOST[:, :1])
    np.testing.assert_array_equal(kernel(x, x[1]).get(), HOST - HOST[1])
    left, right = (slice(None), None, slice(None, None, 2)), (slice(None, None, 2), slice(None), None)
    np.testing.assert_array_equal(kernel(x[left], x.T[right]).get(), HOST[left] - HOST.T[right])
    out = cp.zeros((3, 2), "f4").T
    assert kernel(x, 1.0, out) is out
    np.testing.assert_array_equal(out.get(), HOST - 1)
    np.testing.assert_array_equal(kernel(x.sum(), x).get(), 15 - HOST)
    assert kernel(cp.zeros((0, 3), "f4"), x[:1]).shape == (0, 3)


def test_the_index_the_size_and_the_ends_of_an_element(cp: Any) -> None:
    x = cp.full((2, 3), 7, "i8")
    code = "if (i == 1) return; if (i == 2) continue; x = i + 100 * _ind.size()"
    assert cp.ElementwiseKernel("", "int64 x", code, "f", no_return=True)(x) is None
    np.testing.assert_array_equal(x.get().ravel(), [600, 7, 7, 603, 604, 605])


def test_raw_parameters_and_a_given_size(cp: Any) -> None:
    kernel = cp.ElementwiseKernel("raw T x, int32 k", "T z", "z = x[k]", "gather")
    np.testing.assert_array_equal(kernel(cp.asarray(HOST), cp.asarray([5, 0], "i4")).get(), [5, 0])
    reverse = cp.ElementwiseKernel("raw T x", "raw T z", "z[i] = x[_ind.size() - 1 - i]", "reverse")
    out = cp.zeros(3, "f4")
    reverse(cp.asarray(HOST[0]), out, size=3)
    np.testing.assert_array_equal(out.get(), [2, 1, 0])
    with pytest.raises(ValueError, match="Output array size is Undecided"):
        cp.ElementwiseKernel("T x", "raw T z", "", "f")(out)
    with pytest.raises(ValueError, match="Specified 'size' can be used only if all of the ndarray are 'raw'"):
        kernel(out, cp.asarray([5, 0], "i4"), size=3)
    with pytest.raises(NotImplementedError, match="only contiguous raw arrays"):
        kernel(cp.asarray(HOST).T, cp.asarray([0], "i4"))


def test_preamble_prologue_options_and_two_outputs(cp: Any) -> None:
    kernel = cp.ElementwiseKernel(
        "T x", "T y, T z", "y = twice(x) + shift; z = x < 2 ? CUDART_INF_F : M_PI", "f",
        preamble="template <class T> __device__ T twice(T x) { return FACTOR * x; }",
        loop_prep="float shift = 10", options=("-DFACTOR=2",), return_tuple=True,
    )  # fmt: skip
    y, z = kernel(cp.arange(3, dtype="f4"))
    np.testing.assert_allclose(y.get(), [10, 12, 14])
    np.testing.assert_allclose(z.get(), [np.inf, np.inf, np.pi], rtol=1e-6)


def test_one_launch_and_only_the_outputs(cp: Any) -> None:
    x, kernel = cp.ones(5), cp.ElementwiseKernel("T x", "T y, T z", "y = x; z = x", "f")
    cp.counters.reset()
    outputs = kernel(x)
    assert cp.counters.snapshot() == {"launches": 1, "transfers": 0, "synchronisations": 0, "allocations": 2}
    kernel(x, *outputs)
    assert cp.counters.launches == 2 and cp.counters.allocations == 2


def test_a_capture_reads_arrays_at_the_replay_and_scalars_now(cp: Any) -> None:
    x, out, stream = cp.ones(2), cp.zeros(2), cp.cuda.Stream(non_blocking=True)
    kernel = cp.ElementwiseKernel("T x, T y", "T z", "z = x * y", "f")
    with stream:
        stream.begin_capture()
        fresh = kernel(x, 5.0)
        kernel(x, 3.0, out)
        graph = stream.end_capture()
    assert np.isnan(fresh.get()).all() and not out.get().any()
    x.fill(2)
    graph.launch()
    assert out.get().tolist() == [6, 6] and fresh.get().tolist() == [10, 10]


def test_what_is_refused(cp: Any) -> None:
    x, kernel = cp.asarray(HOST), cp.ElementwiseKernel("T x, T y", "T z", "z = x * y", "f")
    with pytest.raises(TypeError, match="Type is mismatched. y float64 float32"):
        kernel(x, x.astype("f8"))
    with pytest.raises(TypeError, match=r"Unsupported type <class 'numpy\.ndarray'>"):
        kernel(x, HOST)
    with pytest.raises(ValueError, match="Out shape is mismatched"):
        kernel(x, x, cp.zeros((1, 3), "f4"))
    with pytest.raises(ValueError, match=r"operands could not be broadcast together with shapes \(2, 3\) \(2, 2\)"):
        kernel(x, cp.zeros((2, 2), "f4"))
    with pytest.raises(TypeError, match=r"Output arguments type must be cupy\.ndarray"):
        kernel(x, x, 1.0)
    with pytest.raises(TypeError, match="Wrong number of arguments for 'f'. It must be either 2 or 3"):
        kernel(x)
    with pytest.raises(ValueError, match=r"Loop size is undecided\."):
        kernel(1, 2)
    with pytest.raises(ValueError, match="Can not use 'i' as a parameter name"):
        cp.ElementwiseKernel("T i", "T z", "", "f")
    with pytest.raises(ValueError, match='Invalid kernel name: "a b"'):
        cp.ElementwiseKernel("T x", "T z", "", "a b")
    with pytest.raises(Exception, match="Syntax error: x"):
        cp.ElementwiseKernel("x", "T z", "", "f")
    with pytest.raises(Exception, match='Unknown keyword "const"'):
        cp.ElementwiseKernel("const T x", "T z", "", "f")
    with pytest.raises(NotImplementedError, match="the stand-in compiles no complex64 kernels"):
        kernel(x.astype("c8"), x.astype("c8"))


@pytest.mark.parametrize("operation", ["z = n", "z = INFINITY", "x = 1", "z = undeclared"])
def test_what_cupy_does_not_compile(cp: Any, operation: str) -> None:
    with pytest.raises(CompileException, match=r"error:"):
        cp.ElementwiseKernel("T x", "T z", operation, "f")(cp.ones(2))
