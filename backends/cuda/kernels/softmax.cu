// Softmax and log-softmax of rows, and their gradients; m is the maximum of a row. Types: S of Z and dA, R of an A that
// is read, T of the result; everything is computed in ACC.
//
//   softmax                 A = exp(Z - m) / N,  N = Σ exp(Z - m)
//   softmax_gradient        dZ = A (dA - Σ dA A)
//   log_softmax             A = Z - m - log N
//   log_softmax_gradient    dZ = dA - exp(A) Σ dA
//
// A thread reads and writes the same columns, so the output may be one of the inputs, if it has the same type.

static __device__ ACC row_max(const S *z, long long columns) {
    ACC m = (ACC)z[0];
    for (long long j = LANE; j < columns; j += WARP) m = fmax(m, (ACC)z[j]);
    return warp_max(m);
}

static __device__ ACC row_norm(const S *z, ACC m, long long columns) {
    ACC N = 0;
    for (long long j = LANE; j < columns; j += WARP) N += exp((ACC)z[j] - m);
    return warp_sum(N);
}

extern "C" __global__ void softmax(IN(S, Z), OUT(T, A), long long rows, long long columns) {
    long long row = THIS_ROW;
    if (row >= rows) return;
    const S *z = Z + blockIdx.y * Z_model + row * Z_row;
    T *a = A + blockIdx.y * A_model + row * A_row;
    ACC m = row_max(z, columns), N = row_norm(z, m, columns);
    for (long long j = LANE; j < columns; j += WARP) a[j] = (T)(exp((ACC)z[j] - m) / N);
}

extern "C" __global__ void log_softmax(IN(S, Z), OUT(T, A), long long rows, long long columns) {
    long long row = THIS_ROW;
    if (row >= rows) return;
    const S *z = Z + blockIdx.y * Z_model + row * Z_row;
    T *a = A + blockIdx.y * A_model + row * A_row;
    ACC m = row_max(z, columns), log_N = log(row_norm(z, m, columns));
    for (long long j = LANE; j < columns; j += WARP) a[j] = (T)(((ACC)z[j] - m) - log_N);
}

extern "C" __global__ void softmax_gradient(IN(S, dA), IN(R, A), OUT(T, dZ), long long rows, long long columns) {
    long long row = THIS_ROW;
    if (row >= rows) return;
    const S *da = dA + blockIdx.y * dA_model + row * dA_row;
    const R *a = A + blockIdx.y * A_model + row * A_row;
    T *dz = dZ + blockIdx.y * dZ_model + row * dZ_row;
    ACC dot = 0;
    for (long long j = LANE; j < columns; j += WARP) dot += (ACC)da[j] * (ACC)a[j];
    dot = warp_sum(dot);
    for (long long j = LANE; j < columns; j += WARP) dz[j] = (T)((ACC)a[j] * ((ACC)da[j] - dot));
}

extern "C" __global__ void log_softmax_gradient(IN(S, dA), IN(R, A), OUT(T, dZ), long long rows, long long columns) {
    long long row = THIS_ROW;
    if (row >= rows) return;
    const S *da = dA + blockIdx.y * dA_model + row * dA_row;
    const R *a = A + blockIdx.y * A_model + row * A_row;
    T *dz = dZ + blockIdx.y * dZ_model + row * dZ_row;
    ACC sum = 0;
    for (long long j = LANE; j < columns; j += WARP) sum += (ACC)da[j];
    sum = warp_sum(sum);
    for (long long j = LANE; j < columns; j += WARP) dz[j] = (T)((ACC)da[j] - exp((ACC)a[j]) * sum);
}
