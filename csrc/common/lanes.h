#pragma once

#include <cstdint>
#include <cstring>

namespace fastimpute {

// A vector of kWidth floats through the compiler's vector types: the same source serves every instruction set.
// Everything here is always inlined, so a file compiled for AVX-512 leaves no function behind that the baseline could
// pick up.
template <int kWidth>
struct Lanes {
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

}  // namespace fastimpute
