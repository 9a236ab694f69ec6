#pragma once

#include <immintrin.h>

#include <cstdint>

namespace fastimpute::avx512 {

// Sixteen float32 values. Everything is forced inline: no copy compiled with these flags may reach the linker.
struct Simd {
    using Vec = __m512;
    using Words = __m512i;
    static constexpr int kLanes = 16;
    static constexpr int kTileRows = 8;  // 8 x 2 accumulators and two panel vectors leave registers to spare
    static constexpr int kOddPanel = 3;

    [[gnu::always_inline]] static Vec load(const float* p) { return _mm512_loadu_ps(p); }
    [[gnu::always_inline]] static void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
    [[gnu::always_inline]] static Vec load_first(const float* p, std::int64_t count) {
        return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
    }
    [[gnu::always_inline]] static void store_first(float* p, std::int64_t count, Vec v) {
        _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
    }
    // The first count of sixteen bytes, zeros behind them.
    [[gnu::always_inline]] static __m128i bytes_first(const std::uint8_t* p, std::int64_t count) {
        return _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << count) - 1), p);
    }
    // Upper halves of the 64-bit products of sixteen words with one.
    [[gnu::always_inline]] static Words mul_high(Words words, std::uint32_t factor) {
        const Words factors = _mm512_set1_epi64(factor);
        const Words even = _mm512_srli_epi64(_mm512_mul_epu32(words, factors), 32);
        const Words odd = _mm512_mul_epu32(_mm512_srli_epi64(words, 32), factors);
        return _mm512_mask_blend_epi32(static_cast<__mmask16>(0xAAAA), even, odd);
    }
    [[gnu::always_inline]] static Vec set1(float value) { return _mm512_set1_ps(value); }
    [[gnu::always_inline]] static Vec zero() { return _mm512_setzero_ps(); }
    [[gnu::always_inline]] static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
    [[gnu::always_inline]] static Vec fms(Vec a, Vec b, Vec c) { return _mm512_fmsub_ps(a, b, c); }
    [[gnu::always_inline]] static Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }
    // u such that exp(-u) is finite (it may underflow, scale() saturates). A NaN survives.
    [[gnu::always_inline]] static Vec bound_exponent(Vec u) { return _mm512_max_ps(set1(-87.0f), u); }
    [[gnu::always_inline]] static Vec round(Vec v) {
        return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    // v * 2^n for a whole n.
    [[gnu::always_inline]] static Vec scale(Vec v, Vec n) { return _mm512_scalef_ps(v, n); }
    [[gnu::always_inline]] static Vec sqrt(Vec v) { return _mm512_sqrt_ps(v); }
    [[gnu::always_inline]] static Vec reciprocal_estimate(Vec v) { return _mm512_rcp14_ps(v); }
    [[gnu::always_inline]] static float sum(Vec v) { return _mm512_reduce_add_ps(v); }
};

}  // namespace fastimpute::avx512
