// This file comes before every other .cu file when that is compiled, and between them typedefs for one set of types: T,
// the type of results; ACC, the type of sums and exponentials (float if T is half precision); S, the type of inputs if
// it may differ from T; and others that a file names. (A macro T would break NVRTC's own headers.)
//
// An operand is K matrices with contiguous rows. It is passed as a pointer, the number of elements from one model to
// the next (0 if all models share it), and the number from one row to the next. blockIdx.y is the model; only in the
// column sums of reductions.cu it is the chunk of rows, and blockIdx.z the model.
#define IN(type, X) const type *X, long long X##_model, long long X##_row
#define OUT(type, X) type *X, long long X##_model, long long X##_row

#define BLOCK 256
#define WARP 32
#define EVERY_LANE 0xffffffffu

// Column kernels: a block is THREAD_ROWS rows by TILE columns of threads.
#define TILE 16
#define THREAD_ROWS (BLOCK / TILE)

typedef signed char int8;
typedef unsigned char uint8;
typedef short int16;
typedef unsigned short uint16;
typedef int int32;
typedef unsigned int uint32;
typedef long long int64;
typedef unsigned long long uint64;

// Half precision is only stored: everything is computed in float. NVRTC has no half types. The device has instructions
// for the conversions; the code after #else gives the same bits. Rounding is to nearest, ties to even.
struct float16 {  // 5 bits of exponent, 10 of fraction
    unsigned short bits;
    float16() = default;
    __device__ explicit float16(float value) {
#ifdef __CUDA_ARCH__
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
        unsigned int word = __float_as_uint(value), sign = word >> 16 & 0x8000u;
        word &= 0x7fffffffu;
        if (word > 0x7f800000u) bits = 0x7fffu;  // NaN
        else if (word >= 0x47800000u) bits = sign | 0x7c00u;  // 2^16 and more: infinity
        else if (word < 0x38800000u)  // below 2^-14 an addition rounds: the sum's last bit weighs 2^-24
            bits = sign | (__float_as_uint(__uint_as_float(word) + 0.5f) - 0x3f000000u);
        else bits = sign | (word - 0x38000000u + 0xfffu + (word >> 13 & 1u)) >> 13;
#endif
    }
    __device__ operator float() const {
#ifdef __CUDA_ARCH__
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
#else
        unsigned int magnitude = (bits & 0x7fffu) << 13, sign = (bits & 0x8000u) << 16;
        if ((bits & 0x7c00u) == 0x7c00u) return __uint_as_float(sign | 0x7f800000u | magnitude);
        // The product with 2^112 corrects the exponent, also of subnormal numbers.
        return __uint_as_float(sign | __float_as_uint(__uint_as_float(magnitude) * 5.192296858534828e+33f));
#endif
    }
};

struct bfloat16 {  // the upper half of a float
    unsigned short bits;
    bfloat16() = default;
    __device__ explicit bfloat16(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
        unsigned int word = __float_as_uint(value);
        bits = (word & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
#endif
    }
    __device__ operator float() const { return __uint_as_float((unsigned int)bits << 16); }
};

// The type that numbers of a type are computed in.
template <class A> struct Computed { typedef A type; };
template <> struct Computed<float16> { typedef float type; };
template <> struct Computed<bfloat16> { typedef float type; };

// Row kernels: a warp for each row, which is fast for ten and for a thousand columns. All threads of the warp get the
// result; the order of the additions depends on the number of columns only. LANE is the thread's number in its warp.
#define THIS_ROW ((long long)blockIdx.x * (BLOCK / WARP) + threadIdx.x / WARP)
#define LANE (threadIdx.x % WARP)

template <class A> static __device__ A warp_sum(A value) {
    for (int step = WARP / 2; step; step /= 2) value += __shfl_xor_sync(EVERY_LANE, value, step);
    return value;
}

template <class A> static __device__ A warp_max(A value) {
    for (int step = WARP / 2; step; step /= 2) value = fmax(value, __shfl_xor_sync(EVERY_LANE, value, step));
    return value;
}

// The sum over the THREAD_ROWS threads of each column of a block; all of them get it. Every thread of the block must
// call this.
template <class A> static __device__ A column_sum(A value, A (*partial)[TILE]) {
    int column = threadIdx.x % TILE, thread_row = threadIdx.x / TILE;
    partial[thread_row][column] = value;
    for (int step = THREAD_ROWS / 2; step; step /= 2) {
        __syncthreads();
        if (thread_row < step) partial[thread_row][column] += partial[thread_row + step][column];
    }
    __syncthreads();
    A sum = partial[0][column];
    __syncthreads();  // the next sum uses the same memory
    return sum;
}
