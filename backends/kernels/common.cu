// Stands before every other text, followed by typedefs for one set of types: T, the type of results, ACC, the type that
// sums and exponentials are kept in, and others that a text names. (A macro T would break NVRTC's own headers.)
//
// An operand is K matrices whose rows are contiguous. It comes with how many elements lie between one model and the
// next (0 where all models share it) and between one row and the next.
#define IN(type, X) const type *X, long long X##_model, long long X##_row
#define OUT(type, X) type *X, long long X##_model, long long X##_row

#define BLOCK 256
#define WARP 32
#define EVERY_LANE 0xffffffffu

// Column kernels: a block is LANES rows by TILE columns of threads.
#define TILE 16
#define LANES (BLOCK / TILE)

struct float16;  // see gather.cu
typedef signed char int8;
typedef unsigned char uint8;
typedef short int16;
typedef unsigned short uint16;
typedef int int32;
typedef unsigned int uint32;
typedef long long int64;
typedef unsigned long long uint64;

// Row kernels: a warp for each row, so that rows of ten and of a thousand columns are both served. All lanes get the
// result; the order of the additions depends on the number of columns alone.
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

// The sum over the LANES threads of each column of a block, for all of them. Every thread of the block must come here.
template <class A> static __device__ A column_sum(A value, A (*partial)[TILE]) {
    int column = threadIdx.x % TILE, lane = threadIdx.x / TILE;
    partial[lane][column] = value;
    for (int step = LANES / 2; step; step /= 2) {
        __syncthreads();
        if (lane < step) partial[lane][column] += partial[lane + step][column];
    }
    __syncthreads();
    A sum = partial[0][column];
    __syncthreads();  // the next sum uses the same memory
    return sum;
}
