// Vectors of kWidth floats through the compiler's vector types, so that one source serves every instruction set.
// Included inside the anonymous namespace of one instruction set, after its kWidth, and always inlined: a file compiled
// for AVX-512 leaves no function behind that the baseline could pick up. Needs <cstdint> and <cstring>.

struct V {
    typedef float Float __attribute__((vector_size(kWidth * 4)));
    typedef std::int32_t Int __attribute__((vector_size(kWidth * 4)));
    typedef std::uint32_t Word __attribute__((vector_size(kWidth * 4)));
    typedef std::uint8_t Byte __attribute__((vector_size(kWidth)));

    [[gnu::always_inline]] static inline Float load(const float* source) {
        Float value;
        std::memcpy(&value, source, sizeof(value));
        return value;
    }
    [[gnu::always_inline]] static inline void store(float* target, Float value) {
        std::memcpy(target, &value, sizeof(value));
    }
    // Past the caches, to an address aligned to the vector: an ordinary store first reads the line that it writes.
    [[gnu::always_inline]] static inline void stream(float* target, Float value) {
#ifdef __AVX512F__
        __builtin_ia32_movntps512(target, value);
#else
        __builtin_ia32_movntps256(target, value);
#endif
    }
    // All lanes joined by an associative `join`, pairs far apart first.
    template <int step = kWidth / 2, typename Join>
    [[gnu::always_inline]] static inline float reduce(Float value, const Join& join) {
        if constexpr (step == 0) {
            return value[0];
        } else {
            Int partner = {};
#pragma GCC unroll 16
            for (int lane = 0; lane < kWidth; ++lane) partner[lane] = lane ^ step;
            return reduce<step / 2>(join(value, __builtin_shuffle(value, partner)), join);
        }
    }
    // Nonzero bytes become all-ones lanes.
    [[gnu::always_inline]] static inline Int load_mask(const std::uint8_t* source) {
        Byte bytes;
        std::memcpy(&bytes, source, sizeof(bytes));
        return __builtin_convertvector(bytes, Int) != Int{};
    }
    [[gnu::always_inline]] static inline Float splat(float value) { return Float{} + value; }
    [[gnu::always_inline]] static inline Float min(Float a, Float b) { return a < b ? a : b; }
    [[gnu::always_inline]] static inline Float max(Float a, Float b) { return a > b ? a : b; }
    [[gnu::always_inline]] static inline Float as_float(Int bits) { return reinterpret_cast<Float>(bits); }
    [[gnu::always_inline]] static inline Int as_int(Float value) { return reinterpret_cast<Int>(value); }

    // Nearest integer, by pushing the fraction out of the mantissa; |value| < 2^22.
    [[gnu::always_inline]] static inline Float round(Float value) {
        const Float magic = splat(12582912.0f);
        return (value + magic) - magic;
    }
};

// Relative error below 2e-7; below -87 it returns exp(-87), about 1.6e-38.
[[gnu::always_inline]] static inline V::Float exp_lanes(V::Float value) {
    value = V::max(V::min(value, V::splat(88.0f)), V::splat(-87.0f));
    const auto power = V::round(value * 1.44269504f);
    const auto rest = (value - power * 0.693359375f) + power * 2.12194440e-4f;
    auto series = V::splat(1.9875691500e-4f);
    series = series * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    series = series * rest * rest + rest + 1.0f;
    const auto exponent = (__builtin_convertvector(power, V::Int) + 127) << 23;
    return series * V::as_float(exponent);
}

// Natural logarithm of normal positive numbers.
[[gnu::always_inline]] static inline V::Float log_lanes(V::Float value) {
    // Split so that the mantissa lies in [sqrt(1/2), sqrt(2)).
    const auto bits = V::as_int(value);
    const auto exponent = (bits - 0x3f3504f3) >> 23;
    const auto mantissa = V::as_float(bits - (exponent << 23)) - 1.0f;
    auto series = V::splat(7.0376836292e-2f);
    series = series * mantissa - 1.1514610310e-1f;
    series = series * mantissa + 1.1676998740e-1f;
    series = series * mantissa - 1.2420140846e-1f;
    series = series * mantissa + 1.4249322787e-1f;
    series = series * mantissa - 1.6668057665e-1f;
    series = series * mantissa + 2.0000714765e-1f;
    series = series * mantissa - 2.4999993993e-1f;
    series = series * mantissa + 3.3333331174e-1f;
    const auto square = mantissa * mantissa;
    const auto power = __builtin_convertvector(exponent, V::Float);
    const auto low = series * square * mantissa - 2.12194440e-4f * power - 0.5f * square;
    return (mantissa + low) + 0.693359375f * power;
}

// cos(2 pi turn) for turn in [0, 1].
[[gnu::always_inline]] static inline V::Float cos_turn_lanes(V::Float turn) {
    // cos(2 pi u) = sin(2 pi (1/4 - |u|)) with u in [-1/2, 1/2], so the sine's argument lies in [-1/4, 1/4] turns.
    const auto centred = turn - V::round(turn);
    const auto folded = 0.25f - (centred < 0.0f ? -centred : centred);
    const auto angle = folded * 6.28318531f;
    const auto square = angle * angle;
    auto series = V::splat(-2.50507478e-8f);
    series = series * square + 2.75573137e-6f;
    series = series * square - 1.98412698e-4f;
    series = series * square + 8.33333333e-3f;
    series = series * square - 1.66666667e-1f;
    return angle + angle * square * series;
}
