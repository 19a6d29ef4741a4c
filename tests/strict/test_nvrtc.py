"""The shim knows what NVRTC knows: held against the real compiler, which needs no GPU, where it is installed."""

from typing import Any

import pytest

from tests.strict.compiler import CompileException, have_gxx
from tests.strict.standin import make_cupy

pytestmark = pytest.mark.skipif(not have_gxx(), reason="g++ is not installed, so kernels cannot run on the stand-in")
TEXT = 'extern "C" __global__ void f(float* y, double* z, unsigned* u, unsigned long long* w, int n) {{ {}; }}'
KNOWN = """*y = exp(*y) + expf(*y) + __expf(*y) + log1p(*y) + expm1f(*y)
*y = sqrtf(*y) + rsqrtf(*y) + rsqrt(*y) + cbrtf(*y) + fabs(*y) + fabsf(*y) + abs(*y)
*y = tanhf(*y) + erff(*y) + erf(*y) + erfc(*y) + lgammaf(*y) + sinpif(*y) + cospif(*y)
sincosf(*y, y + 1, y + 2); sincos(*z, z + 1, z + 2)
*z = pow(*z, 2.0) + powf(*y, 2.0f) + fmod(*z, 2.0) + hypot(*z, 2.0) + atan2(*z, 1.0) + copysign(1.0, *z)
*y = fmaxf(*y, 1.0f) + fmin(*y, 1.0f) + max(*y, 1.0) + min(1, n) + max(1u, n) + max(1ll, (long long)n)
n = isfinite(*y) + isnan(*z) + isinf(*y) + signbit(*z)
*y = fmaf(*y, 1.0f, 2.0f) + __fmaf_rn(*y, 1.0f, 2.0f) + __fadd_rn(*y, 1.0f) + __fmul_rn(*y, 2.0f) + __fdiv_rn(*y, 2.0f)
*z = fma(*z, 1.0, 2.0) + __dadd_rn(*z, 1.0) + __dmul_rn(*z, 2.0) + __ddiv_rn(*z, 2.0) + __ull2double_rn(*w)
*y = __fsqrt_rn(*y) + __fdividef(*y, 2.0f) + __saturatef(*y) + __logf(*y) + __uint2float_rn(*u)
*u = __umulhi(*u, 3u) + __float_as_uint(*y) + __float_as_int(*y) + __float2int_rn(*y) + __popc(*u) + __clz(n) + __ffs(n)
*w = __umul64hi(*w, 3ull) + __double_as_longlong(*z)
*y = __uint_as_float(*u) + __int_as_float(n); *z = __longlong_as_double(3ll)
*y = __ldg(y + 1) + __ldg(z) + __ldg(u)
atomicAdd(y, 1.0f); atomicAdd(z, 1.0); atomicAdd(u, 1u); atomicAdd(w, 1ull); atomicAdd((int*)u, 1)
atomicMax(u, 3u); atomicMin(u, 3u); atomicExch(y, 3.0f); atomicCAS(u, 1u, 2u); atomicOr(u, 1u); atomicInc(u, 3u)
__syncthreads(); __syncwarp(); __threadfence(); __threadfence_block()
*y = __shfl_sync(~0u, *y, 0) + __shfl_up_sync(~0u, *z, 1) + __shfl_down_sync(~0u, n, 1) + __shfl_xor_sync(~0u, *w, 1)
*u = __ballot_sync(~0u, n) + __any_sync(~0u, n) + __all_sync(~0u, n) + warpSize
float2 a = make_float2(1, 2); float4 b = make_float4(1, 2, 3, 4); uint4 c = make_uint4(1, 2, 3, 4); *y = a.x + b.w + c.z
double2 a = make_double2(1, 2); ulonglong2 b = make_ulonglong2(1, 2); int2 c = make_int2(1, 2); *y = a.x + b.y + c.x
__shared__ __align__(16) float s[4]; s[0] = 1; *y = s[0] + blockDim.x + gridDim.y + blockIdx.z
size_t k = n; ptrdiff_t m = n; *u = k + m""".splitlines()
UNKNOWN = """*y = INFINITY
*y = NAN
*z = M_PI
*u = (uint32_t)n
uint k = n
long long k = max(1ll, n)
*z = max(*z, n)
*z = std::sqrt(*z)""".splitlines()


def nvrtc(text: str) -> Any:
    """What the real compiler makes of a text; skips without it."""
    compiler = pytest.importorskip("cupy").cuda.compiler
    try:
        compiler._NVRTCProgram("", "probe.cu", method="cubin").compile(("-arch=sm_90",))
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    return compiler._NVRTCProgram(text, "kernel.cu", method="cubin").compile(("-arch=sm_90",))


@pytest.mark.parametrize("statement", KNOWN)
def test_known_to_both(statement: str) -> None:
    make_cupy().RawKernel(TEXT.format(statement), "f").compile()
    nvrtc(TEXT.format(statement))


@pytest.mark.parametrize("statement", UNKNOWN)
def test_unknown_to_both(statement: str) -> None:
    with pytest.raises(CompileException, match=r"kernel\.cu:1:"):
        make_cupy().RawKernel(TEXT.format(statement), "f").compile()
    real = pytest.importorskip("cupy")
    with pytest.raises(real.cuda.compiler.CompileException, match=r"error: "):
        nvrtc(TEXT.format(statement))
