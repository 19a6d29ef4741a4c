// What CUDA C needs to run as C++ on one CPU thread. Kernels with barriers run one fiber per CUDA thread, the fibers
// of a block one after the other: a barrier hands over to the next fiber. Shared memory is poisoned before each block.
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
#define SHIM_VECTOR(name, T)                                                        \
    struct name##2 { T x, y; };                                                     \
    struct name##4 { T x, y, z, w; };                                               \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }               \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SHIM_VECTOR(float, float)
SHIM_VECTOR(double, double)
SHIM_VECTOR(int, int)
SHIM_VECTOR(uint, unsigned)
struct ulonglong2 { unsigned long long x, y; };
static inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
static const int warpSize = 32;
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("shim_shared"), used))

// ---- mathematics -------------------------------------------------------------------------------------------------
#define SHIM_MATH1(name)                                                            \
    extern "C" double name(double) noexcept;                                        \
    extern "C" float name##f(float) noexcept;                                       \
    static inline float name(float x) { return name##f(x); }
#define SHIM_MATH2(name)                                                            \
    extern "C" double name(double, double) noexcept;                                \
    extern "C" float name##f(float, float) noexcept;                                \
    static inline float name(float x, float y) { return name##f(x, y); }
SHIM_MATH1(exp) SHIM_MATH1(exp2) SHIM_MATH1(expm1) SHIM_MATH1(log) SHIM_MATH1(log2) SHIM_MATH1(log10)
SHIM_MATH1(log1p) SHIM_MATH1(sqrt) SHIM_MATH1(cbrt) SHIM_MATH1(sin) SHIM_MATH1(cos) SHIM_MATH1(tan)
SHIM_MATH1(sinh) SHIM_MATH1(cosh) SHIM_MATH1(tanh) SHIM_MATH1(atan) SHIM_MATH1(erf) SHIM_MATH1(erfc)
SHIM_MATH1(floor) SHIM_MATH1(ceil) SHIM_MATH1(trunc) SHIM_MATH1(round) SHIM_MATH1(rint) SHIM_MATH1(fabs)
SHIM_MATH1(lgamma) SHIM_MATH1(tgamma)
SHIM_MATH2(pow) SHIM_MATH2(fmod) SHIM_MATH2(fmax) SHIM_MATH2(fmin) SHIM_MATH2(atan2) SHIM_MATH2(copysign)
SHIM_MATH2(hypot)
extern "C" double fma(double, double, double) noexcept;
extern "C" float fmaf(float, float, float) noexcept;
extern "C" void sincos(double, double *, double *) noexcept;
extern "C" void sincosf(float, float *, float *) noexcept;
static inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float sinpif(float x) { return (float)sin(3.14159265358979323846 * x); }
static inline float cospif(float x) { return (float)cos(3.14159265358979323846 * x); }
static inline double sinpi(double x) { return sin(3.14159265358979323846 * x); }
static inline double cospi(double x) { return cos(3.14159265358979323846 * x); }
static inline int abs(int x) { return x < 0 ? -x : x; }
static inline long long abs(long long x) { return x < 0 ? -x : x; }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }
template <class T> static inline bool isfinite(T x) { return __builtin_isfinite(x); }
template <class T> static inline bool isnan(T x) { return __builtin_isnan(x); }
template <class T> static inline bool isinf(T x) { return __builtin_isinf(x); }
template <class T> static inline bool signbit(T x) { return __builtin_signbit(x); }
// The overloads that CUDA declares and no more, so that what NVRTC calls ambiguous is ambiguous here. INFINITY, NAN and
// the fixed-width names such as uint32_t are missing for the same reason. max and min of floats drop a NaN.
#define SHIM_MINMAX(A, B, T)                                                        \
    static inline T max(A a, B b) { return (T)a < (T)b ? (T)b : (T)a; }              \
    static inline T min(A a, B b) { return (T)b < (T)a ? (T)b : (T)a; }
#define SHIM_MINMAX4(I, U) SHIM_MINMAX(I, I, I) SHIM_MINMAX(U, U, U) SHIM_MINMAX(I, U, U) SHIM_MINMAX(U, I, U)
SHIM_MINMAX4(int, unsigned) SHIM_MINMAX4(long, unsigned long) SHIM_MINMAX4(long long, unsigned long long)
#define SHIM_FMINMAX(A, B, T)                                                       \
    static inline T max(A a, B b) { return fmax((T)a, (T)b); }                       \
    static inline T min(A a, B b) { return fmin((T)a, (T)b); }
SHIM_FMINMAX(float, float, float) SHIM_FMINMAX(double, double, double)
SHIM_FMINMAX(float, double, double) SHIM_FMINMAX(double, float, double)
static inline float __expf(float x) { return expf(x); }
static inline float __logf(float x) { return logf(x); }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __ddiv_rn(double x, double y) { return x / y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
template <class To, class From> static inline To shim_bits(From x) { To y; __builtin_memcpy(&y, &x, sizeof y); return y; }
static inline float __uint_as_float(unsigned x) { return shim_bits<float>(x); }
static inline float __int_as_float(int x) { return shim_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return shim_bits<unsigned>(x); }
static inline int __float_as_int(float x) { return shim_bits<int>(x); }
static inline double __longlong_as_double(long long x) { return shim_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return shim_bits<long long>(x); }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline double __ull2double_rn(unsigned long long x) { return (double)x; }
static inline int __float2int_rn(float x) { return (int)rintf(x); }
template <class T> static inline T __ldg(const T *p) { return *p; }

// ---- atomics: everything runs on one thread ----------------------------------------------------------------------
template <class T> struct shim_same { typedef T type; };
#define SHIM_ATOMIC(name, expression)                                               \
    template <class T> static inline T name(T *p, typename shim_same<T>::type v) { T old = *p; *p = expression; return old; }
SHIM_ATOMIC(atomicAdd, old + v) SHIM_ATOMIC(atomicSub, old - v) SHIM_ATOMIC(atomicExch, v)
SHIM_ATOMIC(atomicMax, old < v ? v : old) SHIM_ATOMIC(atomicMin, v < old ? v : old)
SHIM_ATOMIC(atomicOr, old | v) SHIM_ATOMIC(atomicAnd, old &v) SHIM_ATOMIC(atomicXor, old ^ v)
static inline unsigned atomicInc(unsigned *p, unsigned v) { unsigned old = *p; *p = old >= v ? 0 : old + 1; return old; }
template <class T>
static inline T atomicCAS(T *p, typename shim_same<T>::type expected, typename shim_same<T>::type v) {
    T old = *p; if (old == expected) *p = v; return old;
}
#define __threadfence()
#define __threadfence_block()

// ---- threads -----------------------------------------------------------------------------------------------------
extern "C" char __start_shim_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shim_shared[] __attribute__((weak, visibility("hidden")));
static char shim_dynamic_shared[232448] __attribute__((aligned(128)));
static void (*shim_body)(void **);
static void **shim_arguments;
enum { SHIM_OK = 0, SHIM_DEADLOCK = 1, SHIM_DIVERGED = 2 };

static void shim_poison(unsigned dynamic_bytes) {
    if (__start_shim_shared) __builtin_memset(__start_shim_shared, 0xff, __stop_shim_shared - __start_shim_shared);
    __builtin_memset(shim_dynamic_shared, 0xff, dynamic_bytes);
}
static inline void shim_place(unsigned t) {
    threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
}

#ifdef SHIM_FIBERS
#include "fibers.h"
#else
static int shim_block(unsigned threads, int reverse) {
    for (unsigned k = 0; k < threads; ++k) {
        shim_place(reverse ? threads - 1 - k : k);
        shim_body(shim_arguments);
    }
    return SHIM_OK;
}
#endif

static int shim_launch(void (*body)(void **), void **arguments, const unsigned *grid, const unsigned *block,
                       unsigned dynamic_bytes, int reverse) {
    shim_body = body; shim_arguments = arguments;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    unsigned blocks = grid[0] * grid[1] * grid[2];
    for (unsigned k = 0; k < blocks; ++k) {
        unsigned b = reverse ? blocks - 1 - k : k;
        blockIdx = {b % grid[0], b / grid[0] % grid[1], b / (grid[0] * grid[1])};
        shim_poison(dynamic_bytes);
        int status = shim_block(block[0] * block[1] * block[2], reverse);
        if (status) return status;
    }
    return SHIM_OK;
}

// ---- arguments: unpacked by the kernel's own parameter types, which are also described to the caller --------------
template <class T> struct shim_code { static constexpr const char *value = "?"; };
template <class T> struct shim_code<T *> { static constexpr const char *value = "P?"; };
template <class T> struct shim_code<const T *> : shim_code<T *> {};
#define SHIM_CODE(T, c)                                                             \
    template <> struct shim_code<T> { static constexpr const char *value = c; };    \
    template <> struct shim_code<T *> { static constexpr const char *value = "P" c; };
SHIM_CODE(float, "f4") SHIM_CODE(double, "f8") SHIM_CODE(bool, "b1") SHIM_CODE(signed char, "i1")
SHIM_CODE(unsigned char, "u1") SHIM_CODE(short, "i2") SHIM_CODE(unsigned short, "u2") SHIM_CODE(int, "i4")
SHIM_CODE(unsigned, "u4") SHIM_CODE(long, "i8") SHIM_CODE(unsigned long, "u8") SHIM_CODE(long long, "i8")
SHIM_CODE(unsigned long long, "u8")
// NVRTC has no half types; a text that defines them calls them so.
struct float16; struct bfloat16;
template <> struct shim_code<float16 *> { static constexpr const char *value = "Pf2"; };
template <> struct shim_code<bfloat16 *> { static constexpr const char *value = "PV2"; };
template <class T> struct shim_plain { typedef T type; };
template <class T> struct shim_plain<const T> { typedef T type; };
template <class T> struct shim_plain<T *__restrict> { typedef T *type; };
template <class T> struct shim_plain<T *const __restrict> { typedef T *type; };
template <size_t... I> struct shim_indices {};
template <size_t N, size_t... I> struct shim_range : shim_range<N - 1, N - 1, I...> {};
template <size_t... I> struct shim_range<0, I...> { typedef shim_indices<I...> type; };
template <class... P, size_t... I> static inline void shim_call(void (*f)(P...), void **a, shim_indices<I...>) {
    f(*(typename shim_plain<P>::type *)a[I]...);
}
template <class... P> static inline void shim_call(void (*f)(P...), void **a) {
    shim_call(f, a, typename shim_range<sizeof...(P)>::type());
}
template <class... P> static const char *shim_describe(void (*)(P...)) {
    static char text[8 * sizeof...(P) + 1];
    char *end = text;
    const char *codes[] = {"", shim_code<typename shim_plain<P>::type>::value...};
    for (size_t k = 1; k <= sizeof...(P); ++k) {
        for (const char *c = codes[k]; *c; ++c) *end++ = *c;
        *end++ = ' ';
    }
    *end = 0;
    return text;
}
extern "C" int shim_shared_bytes() { return __start_shim_shared ? __stop_shim_shared - __start_shim_shared : 0; }
#define SHIM_EXPORT(name)                                                                                     \
    extern "C" const char *shim_describe_##name() { return shim_describe(&name); }                            \
    static void shim_body_##name(void **a) { shim_call(&name, a); }                                           \
    extern "C" int shim_launch_##name(void **a, const unsigned *grid, const unsigned *block, unsigned dynamic, int r) { \
        return shim_launch(&shim_body_##name, a, grid, block, dynamic, r);                                    \
    }
