#pragma once

#include <cstdint>

#include "common/simd_avx512.h"

namespace fastimpute::avx512bf16 {

// A type of its own, so that templates over it are instances of their own.
struct Simd : avx512::Simd {
    // Relative error 7.5e-5; saturates to 0 and infinity. 2^fraction on [0, 1) by a polynomial, minimax in relative
    // error; scalef takes the floor itself.
    [[gnu::always_inline]] static Vec coarse_exp2(Vec v) {
        const Vec fraction = _mm512_reduce_ps(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
        Vec power = fma(set1(0x1.3f96a4p-4f), fraction, set1(0x1.cefc4cp-3f));
        power = fma(power, fraction, set1(0x1.64444cp-1f));
        power = fma(power, fraction, set1(0x1.fff632p-1f));
        return _mm512_scalef_ps(power, v);
    }
};

// Bfloat16 operands, float32 accumulators: every multiply-add takes a pair of inputs.
struct Bf16Operand {
    using Type = std::uint16_t;
    using Vec = __m512i;
    static constexpr int kStep = 2;
    static constexpr bool kExactSigmoid = false;

    [[gnu::always_inline]] static Vec broadcast(const std::uint16_t* a) {
        std::int32_t pair;
        __builtin_memcpy(&pair, a, sizeof(pair));
        return _mm512_set1_epi32(pair);
    }
    [[gnu::always_inline]] static Vec load_panel(const std::uint16_t* b) { return _mm512_loadu_si512(b); }
    [[gnu::always_inline]] static __m512 multiply_add(Vec a, Vec b, __m512 c) {
        return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
    }
    [[gnu::always_inline]] static void store(std::uint16_t* p, __m512 v) {
        const __m256bh narrow = _mm512_cvtneps_pbh(v);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(narrow));
    }
};

}  // namespace fastimpute::avx512bf16
