#pragma once

#include "common/simd_avx2.h"

namespace fastimpute::avx2 {

// What tokens in lanes need beyond the common vectors.
struct TokenLanes : Simd {
    [[gnu::always_inline]] static Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
    [[gnu::always_inline]] static Vec sqrt(Vec v) { return _mm256_sqrt_ps(v); }
    // a and b in turn: a0 b0 a1 b1 ...
    [[gnu::always_inline]] static void interleave(Vec& a, Vec& b) {
        const Vec low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
        a = _mm256_permute2f128_ps(low, high, 0x20);
        b = _mm256_permute2f128_ps(low, high, 0x31);
    }
};

}  // namespace fastimpute::avx2
