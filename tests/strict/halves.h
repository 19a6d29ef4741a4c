// CuPy's own types for half precision in elementwise kernels, with the constructors of its headers: stored in 16 bits,
// computed in float. Rounding is to nearest, ties to even.
static inline float shim_float_of_float16(unsigned short bits) {
    unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ffu;
    if (exponent == 31) return shim_bits<float>(sign | 0x7f800000u | fraction << 13);
    float value = exponent ? shim_bits<float>((exponent + 112) << 23 | fraction << 13) : fraction * 5.9604644775390625e-08f;
    return sign ? -value : value;
}
static inline unsigned short shim_float16_of_float(float value) {
    unsigned sign = shim_bits<unsigned>(value) >> 16 & 0x8000u;
    double size = fabs((double)value);
    if (size != size) return sign | 0x7e00u;
    if (size >= 65536) return sign | 0x7c00u;  // What rounds up to this carries into infinity below.
    unsigned exponent = 1;
    double unit = 5.9604644775390625e-08;  // The last bit of numbers below 2^-13.
    while (size >= 2048 * unit) { unit *= 2; ++exponent; }
    unsigned digits = (unsigned)rint(size / unit);  // Up to 2048, which carries into the exponent.
    return sign | (digits < 1024 ? digits : (exponent << 10) + digits - 1024);
}
static inline float shim_float_of_bfloat16(unsigned short bits) { return shim_bits<float>((unsigned)bits << 16); }
static inline unsigned short shim_bfloat16_of_float(float value) {
    unsigned word = shim_bits<unsigned>(value);
    return value != value ? 0x7fc0u : (word + 0x7fffu + (word >> 16 & 1)) >> 16;
}
class bfloat16;
#define SHIM_HALF(name, other)                                                      \
    class name {                                                                    \
        unsigned short data_;                                                       \
      public:                                                                       \
        name() {}                                                                   \
        name(float v) : data_(shim_##name##_of_float(v)) {}                         \
        explicit name(bool v) : name((float)v) {}                                   \
        explicit name(double v) : name((float)v) {}                                 \
        explicit name(int v) : name((float)v) {}                                    \
        explicit name(unsigned v) : name((float)v) {}                               \
        explicit name(long long v) : name((float)v) {}                              \
        explicit name(unsigned long long v) : name((float)v) {}                     \
        explicit name(const other &v);                                              \
        operator float() const { return shim_float_of_##name(data_); }              \
        name &operator=(const name &) = default;                                    \
        template <class T> name &operator=(const T &v) { return *this = static_cast<name>(v); }  \
    };
SHIM_HALF(float16, bfloat16)
SHIM_HALF(bfloat16, float16)
inline float16::float16(const bfloat16 &v) : float16((float)v) {}
inline bfloat16::bfloat16(const float16 &v) : bfloat16((float)v) {}
