#pragma once

#include "common/simd_avx512.h"

namespace fastimpute::avx512 {

// What tokens in lanes need beyond the common vectors. S: of either AVX-512 level, so that each has its own instances.
template <class S>
struct TokenLanes : S {
    using Vec = typename S::Vec;

    [[gnu::always_inline]] static Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
    [[gnu::always_inline]] static Vec sqrt(Vec v) { return _mm512_sqrt_ps(v); }
    // a and b in turn: a0 b0 a1 b1 ...
    [[gnu::always_inline]] static void interleave(Vec& a, Vec& b) {
        const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        const Vec first = _mm512_permutex2var_ps(a, low, b);
        b = _mm512_permutex2var_ps(a, high, b);
        a = first;
    }
};

}  // namespace fastimpute::avx512
