// One score for each row of outputs A and targets y; S is the type of A, I of y.
//
//   correct_class     1 where argmax A is the class y, else 0
//   correct_weights   1 where argmax A is argmax y
//   correct_side      for a single output: 1 where A > decision equals y > 1/2, else 0
//   row_error         mean |A - y|, or for power 2 mean (A - y)²
//
// As in NumPy, argmax is the first of equal elements, and a NaN is larger than every number.

template <class A> static __device__ bool precedes(A a, long long i, A b, long long j) {
    bool a_nan = a != a, b_nan = b != b;
    if (a_nan || b_nan) return a_nan && (!b_nan || i < j);
    return a > b || (a == b && i < j);
}

template <class A> static __device__ long long argmax(const A *a, long long columns) {
    typedef typename Computed<A>::type V;
    long long best = LANE < columns ? (long long)LANE : 0;
    V value = a[best];
    for (long long j = LANE + WARP; j < columns; j += WARP)
        if (precedes((V)a[j], j, value, best)) value = a[j], best = j;
    for (int step = WARP / 2; step; step /= 2) {
        V other = __shfl_xor_sync(EVERY_LANE, value, step);
        long long place = __shfl_xor_sync(EVERY_LANE, best, step);
        if (precedes(other, place, value, best)) value = other, best = place;
    }
    return best;
}

extern "C" __global__ void correct_class(IN(S, A), IN(I, y), OUT(T, out), long long rows, long long columns) {
    long long row = THIS_ROW, k = blockIdx.y;
    if (row >= rows) return;
    long long found = argmax(A + k * A_model + row * A_row, columns);
    if (LANE == 0) out[k * out_model + row * out_row] = (T)(found == (long long)y[k * y_model + row * y_row]);
}

extern "C" __global__ void correct_weights(IN(S, A), IN(I, y), OUT(T, out), long long rows, long long columns) {
    long long row = THIS_ROW, k = blockIdx.y;
    if (row >= rows) return;
    long long found = argmax(A + k * A_model + row * A_row, columns);
    long long wanted = argmax(y + k * y_model + row * y_row, columns);
    if (LANE == 0) out[k * out_model + row * out_row] = (T)(found == wanted);
}

extern "C" __global__ void correct_side(
    IN(S, A), IN(I, y), OUT(T, out), long long rows, long long columns, double decision) {
    long long row = THIS_ROW, k = blockIdx.y;
    if (row >= rows || LANE) return;
    bool above = (double)A[k * A_model + row * A_row] > decision, wanted = (double)y[k * y_model + row * y_row] > 0.5;
    out[k * out_model + row * out_row] = (T)(above == wanted);
}

extern "C" __global__ void row_error(
    IN(S, A), IN(I, y), OUT(T, out), long long rows, long long columns, long long power) {
    long long row = THIS_ROW, k = blockIdx.y;
    if (row >= rows) return;
    const S *a = A + k * A_model + row * A_row;
    const I *target = y + k * y_model + row * y_row;
    ACC sum = 0;
    for (long long j = LANE; j < columns; j += WARP) {
        ACC difference = (ACC)a[j] - (ACC)target[j];
        sum += power == 2 ? difference * difference : fabs(difference);
    }
    sum = warp_sum(sum);
    if (LANE == 0) out[k * out_model + row * out_row] = (T)(sum / (ACC)columns);
}
