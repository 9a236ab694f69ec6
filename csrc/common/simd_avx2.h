#pragma once

#include <immintrin.h>

#include <cstdint>

namespace fastimpute::avx2 {

// Eight float32 values. Everything is forced inline: no copy compiled with these flags may reach the linker.
struct Simd {
    using Vec = __m256;
    using Words = __m256i;
    static constexpr int kLanes = 8;
    static constexpr int kTileRows = 6;  // 6 x 2 accumulators of 16 registers
    static constexpr int kOddPanel = 1;

    [[gnu::always_inline]] static __m256i first(std::int64_t count) {
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
    }
    [[gnu::always_inline]] static Vec load(const float* p) { return _mm256_loadu_ps(p); }
    [[gnu::always_inline]] static void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
    [[gnu::always_inline]] static Vec load_first(const float* p, std::int64_t count) {
        return _mm256_maskload_ps(p, first(count));
    }
    [[gnu::always_inline]] static void store_first(float* p, std::int64_t count, Vec v) {
        _mm256_maskstore_ps(p, first(count), v);
    }
    // The first count of eight bytes, zeros behind them.
    [[gnu::always_inline]] static std::uint64_t bytes_first(const std::uint8_t* p, std::int64_t count) {
        std::uint64_t bytes = 0;
        for (std::int64_t i = 0; i < count; ++i) bytes |= std::uint64_t{p[i]} << (8 * i);
        return bytes;
    }
    // Upper halves of the 64-bit products of eight words with one.
    [[gnu::always_inline]] static Words mul_high(Words words, std::uint32_t factor) {
        const Words factors = _mm256_set1_epi64x(factor);
        const Words even = _mm256_srli_epi64(_mm256_mul_epu32(words, factors), 32);
        const Words odd = _mm256_mul_epu32(_mm256_srli_epi64(words, 32), factors);
        return _mm256_blend_epi32(even, odd, 0xAA);
    }
    [[gnu::always_inline]] static Vec set1(float value) { return _mm256_set1_ps(value); }
    [[gnu::always_inline]] static Vec zero() { return _mm256_setzero_ps(); }
    [[gnu::always_inline]] static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
    [[gnu::always_inline]] static Vec fms(Vec a, Vec b, Vec c) { return _mm256_fmsub_ps(a, b, c); }
    [[gnu::always_inline]] static Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
    // u such that exp(-u) is a normal number. A NaN survives.
    [[gnu::always_inline]] static Vec bound_exponent(Vec u) {
        return _mm256_min_ps(set1(87.0f), _mm256_max_ps(set1(-87.0f), u));
    }
    [[gnu::always_inline]] static Vec round(Vec v) {
        return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    // v * 2^n for a whole n in [-126, 127] and v in [0.5, 2).
    [[gnu::always_inline]] static Vec scale(Vec v, Vec n) {
        const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
        return _mm256_mul_ps(v, _mm256_castsi256_ps(exponent));
    }
    [[gnu::always_inline]] static Vec sqrt(Vec v) { return _mm256_sqrt_ps(v); }
    [[gnu::always_inline]] static Vec reciprocal_estimate(Vec v) { return _mm256_rcp_ps(v); }
    [[gnu::always_inline]] static float sum(Vec v) {
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }
};

}  // namespace fastimpute::avx2
