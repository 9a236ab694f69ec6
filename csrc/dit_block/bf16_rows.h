#pragma once

#include "common/simd_avx512bf16.h"

namespace fastimpute::avx512bf16 {

// Operands of which two rows share a word.
struct Bf16Rows : Bf16Operand {
    // (even0, odd0), (even1, odd1), ...
    [[gnu::always_inline]] static void store_pair(std::uint16_t* p, __m512 even, __m512 odd) {
        const __m512i low = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(even)));
        const __m512i high = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(odd)));
        _mm512_storeu_si512(p, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
};

}  // namespace fastimpute::avx512bf16
