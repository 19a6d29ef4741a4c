// Rows picked by index from one source for all models, scaled and converted. Types: S of the source, T of the result, I
// of the indices, ACC of the product with the scale.
//
//   gather    out_i = scale source[index_(c + i)], where c is the number at `cursor`, or 0 without one

extern "C" __global__ void gather(
    const S *source, const I *index, long long index_model, const long long *cursor, T *out, long long out_model,
    long long rows, long long columns, double scale) {
    index += blockIdx.y * index_model + (cursor ? *cursor : 0);
    out += blockIdx.y * out_model;
    long long size = rows * columns, step = (long long)gridDim.x * BLOCK;
    for (long long e = (long long)blockIdx.x * BLOCK + threadIdx.x; e < size; e += step) {
        // A division of 64 bits takes several times as long as one of 32.
        long long row = size >> 32 ? e / columns : (unsigned int)e / (unsigned int)columns;
        S value = source[(long long)index[row] * columns + (e - row * columns)];
        out[e] = scale == 1.0 ? (T)value : (T)((ACC)value * (ACC)scale);
    }
}
