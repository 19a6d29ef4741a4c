"""Kernels on the stand-in: compiled by g++, one fiber for each CUDA thread."""

from typing import Any

import numpy as np
import pytest

from tests.strict.compiler import CompileException, have_gxx
from tests.strict.standin import CUDARuntimeError, make_cupy

pytestmark = pytest.mark.skipif(not have_gxx(), reason="g++ is not installed, so kernels cannot run on the stand-in")

BLOCK_SUM = r"""
extern "C" __global__ void total(const float* __restrict__ X, float* __restrict__ out, int n) {
    __shared__ float partial[256];
    int t = threadIdx.x, k = blockIdx.x * blockDim.x + t;
    partial[t] = k < n ? X[k] : 0.0f;
    BARRIER
    #pragma unroll
    for (int half = 128; half > 0; half >>= 1) {
        if (t < half) partial[t] += partial[t + half];
        BARRIER
    }
    if (t == 0) out[blockIdx.x] = partial[0];
}
"""
WARP_SUM = r"""
extern "C" __global__ void total(const double* X, double* out) {
    double v = X[threadIdx.x];
    for (int delta = warpSize / 2; delta > 0; delta /= 2) v += SHUFFLE(0xffffffffu, v, delta);
    if (threadIdx.x % warpSize == 0) out[threadIdx.x / warpSize] = v;
}
"""


@pytest.fixture(params=["forward", "reverse"])
def cp(request: pytest.FixtureRequest) -> Any:
    """A fresh stand-in, with the threads in either order."""
    cupy = make_cupy()
    cupy.fiber_order = request.param
    return cupy


def block_sum(cp: Any, barrier: str) -> np.ndarray:
    """Sums of the blocks of 0 ... 599, by a kernel with this text for its barriers."""
    kernel = cp.RawModule(code=BLOCK_SUM.replace("BARRIER", barrier), options=("--std=c++17",)).get_function("total")
    X, out = cp.arange(600, dtype="f4"), cp.zeros(3, "f4")
    kernel((3,), (256,), (X, out, np.int32(600)))
    sums: np.ndarray = out.get()
    return sums


def test_barriers_hold(cp: Any) -> None:
    blocks = np.arange(600).reshape(-1, 200)
    expected = [np.arange(600)[k : k + 256].sum() for k in (0, 256, 512)]
    assert blocks.sum() == sum(expected)
    np.testing.assert_array_equal(block_sum(cp, "__syncthreads();"), expected)


def test_a_missing_barrier_gives_a_wrong_number() -> None:
    right = block_sum(make_cupy(), "__syncthreads();")
    assert not np.array_equal(block_sum(make_cupy(), ";"), right)


@pytest.mark.parametrize("fibers", ["", "__syncthreads();"])
def test_a_missing_barrier_shows_in_the_order_of_the_threads(fibers: str) -> None:
    code = r"""
    extern "C" __global__ void shift(int* out) {
        __shared__ int s[64];
        FIBERS
        s[threadIdx.x] = threadIdx.x;
        out[threadIdx.x] = threadIdx.x ? s[threadIdx.x - 1] : 0;
    }"""
    results = []
    for order in ("forward", "reverse"):
        cp = make_cupy()
        cp.fiber_order = order
        out = cp.zeros(64, "i4")
        cp.RawKernel(code.replace("FIBERS", fibers), "shift")((1,), (64,), (out,))
        results.append(out.get())
    assert not np.array_equal(*results)
    assert (results[1][1:] == -1).all()  # Shared memory starts as 0xff in every block.
    with pytest.raises(ValueError, match="fiber_order must be 'forward' or 'reverse', got 'random'"):
        make_cupy().fiber_order = "random"


@pytest.mark.parametrize("shuffle", ["__shfl_down_sync", "__shfl_xor_sync"])
def test_warp_shuffles(cp: Any, shuffle: str) -> None:
    X, out = cp.asarray(np.arange(96.0) ** 2), cp.zeros(3)
    cp.RawKernel(WARP_SUM.replace("SHUFFLE", shuffle), "total")((1,), (96,), (X, out))
    np.testing.assert_array_equal(out.get(), (np.arange(96.0) ** 2).reshape(3, 32).sum(1))


def test_a_shuffle_from_a_lane_that_does_not_exist_gives_garbage(cp: Any) -> None:
    X, out = cp.asarray(np.ones(16)), cp.zeros(1)
    cp.RawKernel(WARP_SUM.replace("SHUFFLE", "__shfl_xor_sync"), "total")((1,), (16,), (X, out))
    assert np.isnan(out.get()).all()


def test_shared_memory_of_templates_and_of_several_kernels(cp: Any) -> None:
    code = r"""
    template <int N> __device__ float swapped(float v) {
        __shared__ float s[N];
        s[threadIdx.x] = v;
        __syncthreads();
        return s[N - 1 - threadIdx.x];
    }
    __device__ inline float plain(float v) { __shared__ float s; if (!threadIdx.x) s = v; __syncthreads(); return s; }
    extern "C" __global__ void f(float* y) { y[threadIdx.x] = swapped<8>(y[threadIdx.x]); }
    extern "C" __global__ void g(float* y) { y[threadIdx.x] = swapped<16>(y[threadIdx.x]) + plain(y[threadIdx.x]); }
    """
    module, y = cp.RawModule(code=code), cp.arange(8, dtype="f4")
    module.get_function("f")((1,), (8,), (y,))
    assert y.get().tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    y = cp.arange(16, dtype="f4") + 1
    module.get_function("g")((1,), (16,), (y,))
    assert y.get().tolist() == [17 - k for k in range(16)]


def test_votes_and_broadcasts(cp: Any) -> None:
    code = r"""
    extern "C" __global__ void vote(const int* X, unsigned* out, int* first) {
        int x = X[threadIdx.x];
        unsigned votes = __ballot_sync(0xffffffffu, x > 2);
        if (__any_sync(0xffffffffu, x > 30) && !__all_sync(0xffffffffu, x > 0)) out[threadIdx.x] = votes;
        first[threadIdx.x] = __shfl_sync(0xffffffffu, x, 5) + __shfl_up_sync(0xffffffffu, x, 1);
    }"""
    out, first = cp.zeros(32, "u4"), cp.zeros(32, "i4")
    cp.RawKernel(code, "vote")((1,), (32,), (cp.arange(32, dtype="i4"), out, first))
    assert (out.get() == 0xFFFFFFF8).all()
    np.testing.assert_array_equal(first.get(), 5 + np.maximum(np.arange(32) - 1, 0))


def test_a_thread_that_has_left_is_not_waited_for(cp: Any) -> None:
    code = r"""
    extern "C" __global__ void neighbour(const float* X, float* out, int n) {
        __shared__ float s[64];
        int t = threadIdx.x;
        if (t >= n) return;
        s[t] = X[t];
        __syncthreads();
        out[t] = s[(t + 1) % n];
    }"""
    out = cp.full(64, -1, "f4")
    cp.RawKernel(code, "neighbour")((1,), (64,), (cp.arange(64, dtype="f4"), out, np.int32(40)))
    np.testing.assert_array_equal(out.get(), [*np.roll(np.arange(40), -1), *[-1] * 24])


def test_different_barriers_and_deadlocks_are_errors(cp: Any) -> None:
    diverged = 'extern "C" __global__ void f() { if (threadIdx.x) {\n__syncthreads(); } else {\n__syncthreads(); } }'
    with pytest.raises(CUDARuntimeError, match=r"f: threads of one block wait at different __syncthreads\(\)"):
        cp.RawKernel(diverged, "f")((1,), (8,), ())
    stuck = 'extern "C" __global__ void f() { if (threadIdx.x) __syncwarp(); else __syncthreads(); }'
    with pytest.raises(CUDARuntimeError, match="cudaErrorLaunchFailure.*deadlock"):
        cp.RawKernel(stuck, "f")((1,), (8,), ())
    np.testing.assert_array_equal(block_sum(cp, "__syncthreads();")[0], np.arange(256).sum())


def test_grids_of_three_dimensions_and_dynamic_shared_memory(cp: Any) -> None:
    code = r"""
    extern "C" __global__ void __launch_bounds__(64) where(unsigned* out) {
        extern __shared__ unsigned s[];
        unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        s[t] = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        __syncthreads();
        unsigned size = blockDim.x * blockDim.y * blockDim.z;
        out[s[size - 1 - t] * size + t] = t;
    }"""
    out = cp.zeros(2 * 3 * 4 * 24, "u4")
    cp.RawKernel(code, "where")((2, 3, 4), (4, 3, 2), (out,), shared_mem=24 * 4)
    np.testing.assert_array_equal(out.get(), np.tile(np.arange(24), 24))


def test_arithmetic_is_that_of_cuda(cp: Any) -> None:
    code = r"""
    __device__ __forceinline__ float half_of(float x) { return HALF * x; }
    extern "C" __global__ void f(float* y, unsigned* u, unsigned long long* w, double* total, float x) {
        y[0] = half_of(x); y[1] = rsqrtf(x); y[2] = erf(x); y[3] = fmaxf(x, 9.0f); y[4] = max(x, 1.0f);
        y[5] = __ldg(y); y[6] = isfinite(x / 0.0f); y[7] = tanh(x);
        u[0] = __umulhi(0x80000001u, 6u); w[0] = __umul64hi(1ull << 63, 10ull);
        atomicAdd(total, 2.5); atomicAdd(&y[8], 1.0f); atomicAdd(u + 1, 3u);
    }"""
    y, u, w, total = cp.zeros(9, "f4"), cp.zeros(2, "u4"), cp.zeros(1, "u8"), cp.zeros(1)
    cp.RawKernel(code, "f", options=("-DHALF=0.5f", "--fmad=false"))((1,), (4,), (y, u, w, total, np.float32(4)))
    np.testing.assert_allclose(y.get(), [2, 0.5, 1, 9, 4, 2, 0, np.tanh(4), 4], rtol=1e-6)
    assert u.get().tolist() == [3, 12] and w.get().tolist() == [5] and total.get().tolist() == [10]


@pytest.mark.parametrize(
    "expression", ["INFINITY", "NAN", "max(1ll, 2)", "(uint32_t)1", "M_PI", "std::sqrt(2.0)", "undeclared"]
)
def test_what_nvrtc_does_not_know_is_unknown(expression: str) -> None:
    with pytest.raises(CompileException, match=r"kernel\.cu:1:"):
        make_cupy().RawKernel(f'extern "C" __global__ void f(float* y) {{ *y = {expression}; }}', "f").compile()


@pytest.mark.parametrize("options", [(), ("-DSHIM_UCONTEXT",)])
def test_fibers_have_aligned_stacks_and_both_switches_work(options: tuple[str, ...]) -> None:
    cp = make_cupy()
    code = r"""
    extern "C" __global__ void f(int* misaligned, double* y) {
        __align__(16) volatile double local[16];
        for (int k = 0; k < 16; ++k) local[k] = threadIdx.x + k;
        volatile size_t address = (size_t)local;  // Volatile, or the compiler computes what should be.
        misaligned[threadIdx.x] = address % 16;
        __syncthreads();
        double sum = 0;
        for (int k = 0; k < 16; ++k) sum += local[k];
        y[threadIdx.x] = sum;
    }"""
    misaligned, y = cp.ones(1024, "i4"), cp.zeros(1024)
    cp.RawKernel(code, "f", options)((1,), (1024,), (misaligned, y))
    assert not misaligned.get().any()
    np.testing.assert_array_equal(y.get(), 16 * np.arange(1024) + 120)
