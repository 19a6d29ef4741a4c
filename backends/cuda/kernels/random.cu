// Philox4x64-10 (Salmon, Moraes, Dror, Shaw 2011): random words as a function of key and counter.
//
// Word i of a stream is word i % 4 of the block with counter (i / 4 + 1, step, 0, 0). Key and step are read from device
// memory, so that a captured launch uses their values at each replay. Each model has a key.
//
//   random_words      the words of the stream
//   random_tagged     the words, with the index of each in its bits of `low`: sorted, they are a permutation
//   random_bits       element e is the 16 bits of word e / 4 from bit 16 (e % 4) on
//   random_uniform    [0, 1): the high 53 bits of a word for double; for float the high 24 bits of half a word, low
//                     half first
//   random_normal     Box and Muller in double; words 2p and 2p+1, as uniform numbers u and v, give the elements 2p and
//                     2p+1: √(-2 log(1 - u)) cos(2πv), √(-2 log(1 - u)) sin(2πv)

struct Words {
    uint64 word[4];
};

static __device__ Words philox(uint64 c0, uint64 c1, uint64 c2, uint64 c3, uint64 k0, uint64 k1) {
    for (int round = 0; round < 10; ++round) {
        uint64 high0 = __umul64hi(0xD2E7470EE14C6C93ull, c0), low0 = 0xD2E7470EE14C6C93ull * c0;
        uint64 high1 = __umul64hi(0xCA5A826395121157ull, c2), low1 = 0xCA5A826395121157ull * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B97F4A7C15ull;
        k1 += 0xBB67AE8584CAA73Bull;
    }
    Words words = {{c0, c1, c2, c3}};
    return words;
}

// The four words of a stream's block `number`.
static __device__ Words stream(const uint64 *key, long long key_model, const uint64 *step, long long number) {
    key += blockIdx.y * key_model;
    return philox((uint64)number + 1, step[0], 0, 0, key[0], key[1]);
}

#define EACH_BLOCK(number, width)                                                                     \
    for (long long number = (long long)blockIdx.x * BLOCK + threadIdx.x; number * (width) < size;     \
         number += (long long)gridDim.x * BLOCK)

#define STREAM const uint64 *key, long long key_model, const uint64 *step

// Philox alone, for tests with known results: one counter and one key for each block.
extern "C" __global__ void philox_blocks(const uint64 *counter, const uint64 *key, uint64 *out, long long size) {
    EACH_BLOCK(number, 4) {
        const uint64 *c = counter + number * 4, *k = key + number * 2;
        Words words = philox(c[0], c[1], c[2], c[3], k[0], k[1]);
        for (int j = 0; j < 4; ++j) out[number * 4 + j] = words.word[j];
    }
}

extern "C" __global__ void random_words(STREAM, uint64 *out, long long out_model, long long size) {
    out += blockIdx.y * out_model;
    EACH_BLOCK(number, 4) {
        Words words = stream(key, key_model, step, number);
        for (int j = 0; j < 4; ++j)
            if (number * 4 + j < size) out[number * 4 + j] = words.word[j];
    }
}

extern "C" __global__ void random_tagged(STREAM, uint64 *out, long long out_model, long long size, uint64 low) {
    out += blockIdx.y * out_model;
    EACH_BLOCK(number, 4) {
        Words words = stream(key, key_model, step, number);
        for (int j = 0; j < 4; ++j)
            if (number * 4 + j < size) out[number * 4 + j] = (words.word[j] & ~low) | (uint64)(number * 4 + j);
    }
}

extern "C" __global__ void random_bits(STREAM, uint16 *out, long long out_model, long long size) {
    out += blockIdx.y * out_model;
    EACH_BLOCK(number, 16) {
        Words words = stream(key, key_model, step, number);
        for (int j = 0; j < 16; ++j)
            if (number * 16 + j < size) out[number * 16 + j] = (uint16)(words.word[j / 4] >> (16 * (j % 4)));
    }
}

extern "C" __global__ void random_uniform_float(STREAM, float *out, long long out_model, long long size) {
    out += blockIdx.y * out_model;
    EACH_BLOCK(number, 8) {
        Words words = stream(key, key_model, step, number);
        for (int j = 0; j < 8; ++j)
            if (number * 8 + j < size)
                out[number * 8 + j] = (float)(((unsigned int)(words.word[j / 2] >> (32 * (j % 2)))) >> 8) * 5.9604644775390625e-08f;
    }
}

extern "C" __global__ void random_uniform_double(STREAM, double *out, long long out_model, long long size) {
    out += blockIdx.y * out_model;
    EACH_BLOCK(number, 4) {
        Words words = stream(key, key_model, step, number);
        for (int j = 0; j < 4; ++j)
            if (number * 4 + j < size) out[number * 4 + j] = (double)(words.word[j] >> 11) * 1.1102230246251565e-16;
    }
}

extern "C" __global__ void random_normal(STREAM, T *out, long long out_model, long long size) {
    out += blockIdx.y * out_model;
    EACH_BLOCK(number, 4) {
        Words words = stream(key, key_model, step, number);
        for (int j = 0; j < 4; j += 2) {
            double u = (double)(words.word[j] >> 11) * 1.1102230246251565e-16;
            double v = (double)(words.word[j + 1] >> 11) * 1.1102230246251565e-16;
            double radius = sqrt(-2.0 * log(1.0 - u)), angle = 6.283185307179586 * v;
            if (number * 4 + j < size) out[number * 4 + j] = (T)(radius * cos(angle));
            if (number * 4 + j + 1 < size) out[number * 4 + j + 1] = (T)(radius * sin(angle));
        }
    }
}
