// Normalisation along columns (statistics of a batch) or along rows (statistics of an example), in one launch.
//
//   normalize            μ = mean X,  σ² = mean (X - μ)²,  s = 1/√(σ²+ε) or, with ε outside the root, 1/(σ+ε)
//                        X̂ = (X - μ) s;  uncentred: without μ, which is then not written
//   normalize_gradient   g = dZ G,  gradient_mean = mean g,  product_mean = mean (g X̂)
//                        r = s or, with ε outside the root, 1/σ
//                        dX = s (g - gradient_mean) - r product_mean X̂;  uncentred: dX = s g - r product_mean X̂
//                        along columns also dG = Σ dZ X̂ and dB = Σ dZ
//
// The argument of s is `inverse`. X, X̂, dZ and dX are of type T; statistics, sums and the gain G of type ACC. With
// `has_gain` 0, G is not read.
//
// Two passes for the variance: E[x²] - E[x]² loses all digits if the mean is large. Sums run over differences from the
// first element, the pilot, for the same reason. A thread reads and writes the same elements, so dX may be dZ or X̂.

static __device__ ACC inverse_deviation(ACC var, ACC eps, long long outside) {
    return outside ? (ACC)1 / (sqrt(var) + eps) : (ACC)1 / sqrt(var + eps);
}

// r above, kept finite if all elements are equal, where X̂ is 0.
static __device__ ACC second_term_factor(ACC var, ACC inverse, long long outside) {
    return outside ? (ACC)1 / sqrt(fmax(var, (ACC)1e-30)) : inverse;
}

extern "C" __global__ void normalize_rows(
    IN(T, X), OUT(ACC, mean), OUT(ACC, var), OUT(ACC, inverse), OUT(T, Xhat),
    long long rows, long long columns, long long center, double eps, long long outside) {
    long long row = THIS_ROW, k = blockIdx.y;
    if (row >= rows) return;
    const T *x = X + k * X_model + row * X_row;
    T *xhat = Xhat + k * Xhat_model + row * Xhat_row;
    ACC pilot = center ? (ACC)x[0] : (ACC)0, m = 0, v = 0;
    if (center) {
        for (long long j = LANE; j < columns; j += WARP) m += (ACC)x[j] - pilot;
        m = warp_sum(m) / (ACC)columns;
    }
    for (long long j = LANE; j < columns; j += WARP) {
        ACC difference = ((ACC)x[j] - pilot) - m;
        v += difference * difference;
    }
    v = warp_sum(v) / (ACC)columns;
    ACC s = inverse_deviation(v, (ACC)eps, outside);
    if (LANE == 0) {
        if (center) mean[k * mean_model + row * mean_row] = pilot + m;
        var[k * var_model + row * var_row] = v;
        inverse[k * inverse_model + row * inverse_row] = s;
    }
    for (long long j = LANE; j < columns; j += WARP) xhat[j] = (T)((((ACC)x[j] - pilot) - m) * s);
}

extern "C" __global__ void normalize_columns(
    IN(T, X), OUT(ACC, mean), OUT(ACC, var), OUT(ACC, inverse), OUT(T, Xhat),
    long long rows, long long columns, long long center, double eps, long long outside) {
    __shared__ ACC partial[THREAD_ROWS][TILE];
    long long j = (long long)blockIdx.x * TILE + threadIdx.x % TILE, k = blockIdx.y, thread_row = threadIdx.x / TILE;
    long long stop = j < columns ? rows : 0;  // threads beyond the last column only take part in the barriers
    const T *x = X + k * X_model + j;
    T *xhat = Xhat + k * Xhat_model + j;
    ACC pilot = center && stop ? (ACC)x[0] : (ACC)0, m = 0, v = 0;
    if (center) {
        for (long long i = thread_row; i < stop; i += THREAD_ROWS) m += (ACC)x[i * X_row] - pilot;
        m = column_sum(m, partial) / (ACC)rows;
    }
    for (long long i = thread_row; i < stop; i += THREAD_ROWS) {
        ACC difference = ((ACC)x[i * X_row] - pilot) - m;
        v += difference * difference;
    }
    v = column_sum(v, partial) / (ACC)rows;
    ACC s = inverse_deviation(v, (ACC)eps, outside);
    if (stop && thread_row == 0) {
        if (center) mean[k * mean_model + j] = pilot + m;
        var[k * var_model + j] = v;
        inverse[k * inverse_model + j] = s;
    }
    for (long long i = thread_row; i < stop; i += THREAD_ROWS)
        xhat[i * Xhat_row] = (T)((((ACC)x[i * X_row] - pilot) - m) * s);
}

extern "C" __global__ void normalize_gradient_rows(
    IN(T, dZ), IN(T, Xhat), IN(ACC, G), IN(ACC, var), IN(ACC, inverse),
    OUT(ACC, gradient_mean), OUT(ACC, product_mean), OUT(T, dX),
    long long rows, long long columns, long long has_gain, long long center, long long outside) {
    long long row = THIS_ROW, k = blockIdx.y;
    if (row >= rows) return;
    const T *dz = dZ + k * dZ_model + row * dZ_row, *xhat = Xhat + k * Xhat_model + row * Xhat_row;
    const ACC *gains = G + k * G_model;
    T *dx = dX + k * dX_model + row * dX_row;
    ACC sum = 0, dot = 0;
    for (long long j = LANE; j < columns; j += WARP) {
        ACC g = has_gain ? (ACC)dz[j] * gains[j] : (ACC)dz[j];
        sum += g;
        dot += g * (ACC)xhat[j];
    }
    sum = warp_sum(sum) / (ACC)columns;
    dot = warp_sum(dot) / (ACC)columns;
    ACC s = inverse[k * inverse_model + row * inverse_row];
    ACC r = second_term_factor(var[k * var_model + row * var_row], s, outside);
    if (LANE == 0) {
        gradient_mean[k * gradient_mean_model + row * gradient_mean_row] = sum;
        product_mean[k * product_mean_model + row * product_mean_row] = dot;
    }
    for (long long j = LANE; j < columns; j += WARP) {
        ACC g = has_gain ? (ACC)dz[j] * gains[j] : (ACC)dz[j];
        dx[j] = (T)(s * (center ? g - sum : g) - r * dot * (ACC)xhat[j]);
    }
}

extern "C" __global__ void normalize_gradient_columns(
    IN(T, dZ), IN(T, Xhat), IN(ACC, G), IN(ACC, var), IN(ACC, inverse),
    OUT(ACC, dG), OUT(ACC, dB), OUT(ACC, gradient_mean), OUT(ACC, product_mean), OUT(T, dX),
    long long rows, long long columns, long long has_gain, long long center, long long outside) {
    __shared__ ACC partial[THREAD_ROWS][TILE];
    long long j = (long long)blockIdx.x * TILE + threadIdx.x % TILE, k = blockIdx.y, thread_row = threadIdx.x / TILE;
    long long stop = j < columns ? rows : 0;
    const T *dz = dZ + k * dZ_model + j, *xhat = Xhat + k * Xhat_model + j;
    T *dx = dX + k * dX_model + j;
    ACC sum = 0, dot = 0;
    for (long long i = thread_row; i < stop; i += THREAD_ROWS) {
        sum += (ACC)dz[i * dZ_row];
        dot += (ACC)dz[i * dZ_row] * (ACC)xhat[i * Xhat_row];
    }
    sum = column_sum(sum, partial);
    dot = column_sum(dot, partial);
    if (!stop) return;
    ACC g = has_gain ? G[k * G_model + j] : (ACC)1;
    ACC s = inverse[k * inverse_model + j], r = second_term_factor(var[k * var_model + j], s, outside);
    ACC mean = sum * g / (ACC)rows, product = dot * g / (ACC)rows;
    if (thread_row == 0) {
        dG[k * dG_model + j] = dot;
        dB[k * dB_model + j] = sum;
        gradient_mean[k * gradient_mean_model + j] = mean;
        product_mean[k * product_mean_model + j] = product;
    }
    for (long long i = thread_row; i < stop; i += THREAD_ROWS) {
        ACC value = (ACC)dz[i * dZ_row] * g;
        dx[i * dX_row] = (T)(s * (center ? value - mean : value) - r * product * (ACC)xhat[i * Xhat_row]);
    }
}
