// Rows picked by index from the table of each model, and the gradient. Types: I of the indices, S of the gradient d.
//
//   lookup             out_i = table[index_i]
//   lookup_gradient    out_v = Σ d_i over all i with index_i = v, added in the order of i: no atomics

extern "C" __global__ void lookup(
    IN(T, table), const I *index, long long index_model, T *out, long long out_model,
    long long rows, long long columns) {
    table += blockIdx.y * table_model;
    index += blockIdx.y * index_model;
    out += blockIdx.y * out_model;
    long long size = rows * columns, step = (long long)gridDim.x * BLOCK;
    for (long long e = (long long)blockIdx.x * BLOCK + threadIdx.x; e < size; e += step)
        out[e] = table[(long long)index[e / columns] * table_row + e % columns];
}

// One thread for each number of the table; the threads of a block read the indices together, BLOCK at a time.
extern "C" __global__ void lookup_gradient(
    const S *d, long long d_model, const I *index, long long index_model, OUT(T, out),
    long long rows, long long columns, long long entries) {
    __shared__ long long part[BLOCK];
    d += blockIdx.y * d_model;
    index += blockIdx.y * index_model;
    out += blockIdx.y * out_model;
    long long e = (long long)blockIdx.x * BLOCK + threadIdx.x, entry = e / columns, column = e % columns;
    ACC sum = 0;
    for (long long start = 0; start < rows; start += BLOCK) {
        long long count = min((long long)BLOCK, rows - start);
        if (threadIdx.x < count) part[threadIdx.x] = (long long)index[start + threadIdx.x];
        __syncthreads();
        for (long long i = 0; i < count; ++i)
            if (part[i] == entry) sum += (ACC)d[(start + i) * columns + column];
        __syncthreads();
    }
    if (entry < entries) out[entry * out_row + column] = (T)sum;
}
