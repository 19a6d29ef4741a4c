// Sums of X and of X Y within rows, within columns, and of whole matrices; S is the type of X and Y.
//
//   sum_rows             out_i = Σ_j X_ij             sum_product_rows       out_i = Σ_j X_ij Y_ij
//   sum_columns          out_j = Σ_i X_ij             sum_product_columns    out_j = Σ_i X_ij Y_ij
//   total                out = scale Σ_ij X_ij            sum_spread_columns     out_j = Σ_i (X_ij - m_j)²
//
// No atomics: the order of the additions depends on the shape only. For column sums and `total`, a matrix may be cut
// into chunks of `chunk` rows (in `total`: elements); each chunk gives a row (a number) of partial sums, which a second
// launch adds up. In column sums blockIdx.y is the chunk and blockIdx.z the model; in `total` blockIdx.x is the chunk.

extern "C" __global__ void sum_rows(IN(S, X), OUT(T, out), long long rows, long long columns) {
    long long row = THIS_ROW;
    if (row >= rows) return;
    const S *x = X + blockIdx.y * X_model + row * X_row;
    ACC sum = 0;
    for (long long j = LANE; j < columns; j += WARP) sum += (ACC)x[j];
    sum = warp_sum(sum);
    if (LANE == 0) out[blockIdx.y * out_model + row * out_row] = (T)sum;
}

extern "C" __global__ void sum_product_rows(IN(S, X), IN(S, Y), OUT(T, out), long long rows, long long columns) {
    long long row = THIS_ROW;
    if (row >= rows) return;
    const S *x = X + blockIdx.y * X_model + row * X_row, *y = Y + blockIdx.y * Y_model + row * Y_row;
    ACC sum = 0;
    for (long long j = LANE; j < columns; j += WARP) sum += (ACC)x[j] * (ACC)y[j];
    sum = warp_sum(sum);
    if (LANE == 0) out[blockIdx.y * out_model + row * out_row] = (T)sum;
}

extern "C" __global__ void sum_columns(
    IN(S, X), OUT(T, out), long long rows, long long columns, long long chunk) {
    __shared__ ACC partial[THREAD_ROWS][TILE];
    long long j = (long long)blockIdx.x * TILE + threadIdx.x % TILE;
    long long start = blockIdx.y * chunk, stop = min(rows, start + chunk);
    const S *x = X + blockIdx.z * X_model + j;
    ACC sum = 0;
    if (j < columns)
        for (long long i = start + threadIdx.x / TILE; i < stop; i += THREAD_ROWS) sum += (ACC)x[i * X_row];
    sum = column_sum(sum, partial);
    if (j < columns && threadIdx.x < TILE) out[blockIdx.z * out_model + blockIdx.y * out_row + j] = (T)sum;
}

extern "C" __global__ void sum_product_columns(
    IN(S, X), IN(S, Y), OUT(T, out), long long rows, long long columns, long long chunk) {
    __shared__ ACC partial[THREAD_ROWS][TILE];
    long long j = (long long)blockIdx.x * TILE + threadIdx.x % TILE;
    long long start = blockIdx.y * chunk, stop = min(rows, start + chunk);
    const S *x = X + blockIdx.z * X_model + j, *y = Y + blockIdx.z * Y_model + j;
    ACC sum = 0;
    if (j < columns)
        for (long long i = start + threadIdx.x / TILE; i < stop; i += THREAD_ROWS)
            sum += (ACC)x[i * X_row] * (ACC)y[i * Y_row];
    sum = column_sum(sum, partial);
    if (j < columns && threadIdx.x < TILE) out[blockIdx.z * out_model + blockIdx.y * out_row + j] = (T)sum;
}

extern "C" __global__ void sum_spread_columns(
    IN(S, X), IN(ACC, m), OUT(T, out), long long rows, long long columns, long long chunk) {
    __shared__ ACC partial[THREAD_ROWS][TILE];
    long long j = (long long)blockIdx.x * TILE + threadIdx.x % TILE;
    long long start = blockIdx.y * chunk, stop = min(rows, start + chunk);
    const S *x = X + blockIdx.z * X_model + j;
    ACC center = j < columns ? m[blockIdx.z * m_model + j] : (ACC)0, sum = 0;
    if (j < columns)
        for (long long i = start + threadIdx.x / TILE; i < stop; i += THREAD_ROWS) {
            ACC difference = (ACC)x[i * X_row] - center;
            sum += difference * difference;
        }
    sum = column_sum(sum, partial);
    if (j < columns && threadIdx.x < TILE) out[blockIdx.z * out_model + blockIdx.y * out_row + j] = (T)sum;
}

extern "C" __global__ void total(
    IN(S, X), T *out, long long out_model, long long rows, long long columns, long long chunk, double scale) {
    __shared__ ACC partial[BLOCK];
    long long start = blockIdx.x * chunk, stop = min(rows * columns, start + chunk);
    const S *x = X + blockIdx.y * X_model;
    ACC sum = 0;
    for (long long e = start + threadIdx.x; e < stop; e += BLOCK)
        sum += (ACC)(rows == 1 ? x[e] : x[e / columns * X_row + e % columns]);
    partial[threadIdx.x] = sum;
    for (int step = BLOCK / 2; step; step /= 2) {
        __syncthreads();
        if (threadIdx.x < step) partial[threadIdx.x] += partial[threadIdx.x + step];
    }
    if (threadIdx.x == 0) out[blockIdx.y * out_model + blockIdx.x] = (T)(partial[0] * (ACC)scale);
}
