// Rows picked by index from one source for all models, cast and scaled on the way; S is the type of the source, T of the
// result, I of the indices, ACC of the product with the scale.
//
//   gather    out_i = scale source[index_i]

extern "C" __global__ void gather(
    const S *source, const I *index, long long index_model, T *out, long long out_model,
    long long rows, long long columns, double scale) {
    index += blockIdx.y * index_model;
    out += blockIdx.y * out_model;
    long long size = rows * columns, step = (long long)gridDim.x * BLOCK;
    for (long long e = (long long)blockIdx.x * BLOCK + threadIdx.x; e < size; e += step) {
        S value = source[(long long)index[e / columns] * columns + e % columns];
        out[e] = scale == 1.0 ? (T)value : (T)((ACC)value * (ACC)scale);
    }
}
