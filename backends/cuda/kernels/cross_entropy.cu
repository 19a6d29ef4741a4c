// Softmax and cross-entropy in one launch, with label smoothing s and c classes.
//
//   S = Z - max Z,  N = Σ exp S,  T' = (1 - s) T + s / c,  M = Σ T'
//   loss = w (M log N - Σ T' S)
//   dZ = scale w (M exp(S) / N - T')
//
// The target T above is a row of weights t, or 1 for the class y, of type I, and else 0. Types: R of Z, T of dZ, ACC of
// weights and losses. Without row weights, `weighted` is 0 and w is not read. A thread reads and writes the same
// columns, so dZ may be Z.

static __device__ void cross_entropy(
    const R *z, const ACC *t, long long y, ACC w, ACC s, ACC scale, ACC *loss, T *dz, long long columns) {
    ACC m = (ACC)z[0];
    for (long long j = LANE; j < columns; j += WARP) m = fmax(m, (ACC)z[j]);
    m = warp_max(m);
    ACC N = 0, M = 0, dot = 0, sum = 0;
    for (long long j = LANE; j < columns; j += WARP) {
        ACC S = (ACC)z[j] - m, target = t ? t[j] : (ACC)(j == y);
        N += exp(S);
        M += target;
        dot += target * S;
        sum += S;
    }
    N = warp_sum(N);
    M = warp_sum(M);
    dot = warp_sum(dot);
    sum = warp_sum(sum);
    ACC even = s / (ACC)columns;
    M = (1 - s) * M + s;
    if (LANE == 0) *loss = w * (M * log(N) - ((1 - s) * dot + even * sum));
    for (long long j = LANE; j < columns; j += WARP) {
        ACC S = (ACC)z[j] - m, target = t ? t[j] : (ACC)(j == y);
        dz[j] = (T)(w * scale * (exp(S) / N * M - ((1 - s) * target + even)));
    }
}

extern "C" __global__ void cross_entropy_classes(
    IN(R, Z), IN(I, y), IN(ACC, w), OUT(ACC, loss), OUT(T, dZ),
    long long rows, long long columns, long long weighted, double smoothing, double scale) {
    long long row = THIS_ROW, k = blockIdx.y;
    if (row >= rows) return;
    cross_entropy(
        Z + k * Z_model + row * Z_row, (const ACC *)0, (long long)y[k * y_model + row * y_row],
        weighted ? w[k * w_model + row * w_row] : (ACC)1, (ACC)smoothing, (ACC)scale,
        loss + k * loss_model + row * loss_row, dZ + k * dZ_model + row * dZ_row, columns);
}

extern "C" __global__ void cross_entropy_weights(
    IN(R, Z), IN(ACC, t), IN(ACC, w), OUT(ACC, loss), OUT(T, dZ),
    long long rows, long long columns, long long weighted, double smoothing, double scale) {
    long long row = THIS_ROW, k = blockIdx.y;
    if (row >= rows) return;
    cross_entropy(
        Z + k * Z_model + row * Z_row, t + k * t_model + row * t_row, 0,
        weighted ? w[k * w_model + row * w_row] : (ACC)1, (ACC)smoothing, (ACC)scale,
        loss + k * loss_model + row * loss_row, dZ + k * dZ_model + row * dZ_row, columns);
}
