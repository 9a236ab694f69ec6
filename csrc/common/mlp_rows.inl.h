#pragma once

#include <cstdint>

#include "common/carver.h"
#include "common/gemm.inl.h"
#include "common/mlp.h"
#include "common/packed_mlp.h"
#include "common/pair.inl.h"

namespace fastimpute {

// Row passes between the matrix products, each over rows that are still in L1. Widths are multiples of 32.

// 1 / (1 + exp(-u)). Exact: relative error 2e-7; otherwise 1.3e-4, below what bfloat16 operands lose anyway.
template <class S, bool exact>
[[gnu::always_inline]] inline typename S::Vec sigmoid(typename S::Vec u) {
    using Vec = typename S::Vec;
    const Vec minus_log2e = S::set1(-1.44269504f);
    Vec denominator;
    if constexpr (exact) {
        const Vec bounded = S::bound_exponent(u);
        const Vec whole = S::round(bounded * minus_log2e);
        const Vec part = S::fms(bounded, minus_log2e, whole);
        // 2^part on [-1/2, 1/2], minimax in relative error.
        Vec power = S::fma(S::set1(0x1.5c08e6p-10f), part, S::set1(0x1.3d0c52p-7f));
        power = S::fma(power, part, S::set1(0x1.c6b6e4p-5f));
        power = S::fma(power, part, S::set1(0x1.ebf918p-3f));
        power = S::fma(power, part, S::set1(0x1.62e428p-1f));
        power = S::fma(power, part, S::set1(0x1.000002p+0f));
        denominator = S::scale(power, whole) + S::set1(1.0f);
    } else {
        denominator = S::coarse_exp2(u * minus_log2e) + S::set1(1.0f);
    }
    const Vec estimate = S::reciprocal_estimate(denominator);
    if constexpr (!exact) return estimate;
    return estimate * S::fnma(denominator, estimate, S::set1(2.0f));
}

// `width` is a multiple of the vector's.
template <class S>
[[gnu::always_inline]] inline float dot_row(const float* a, const float* b, std::int64_t width) {
    typename S::Vec sum = S::zero();
    for (std::int64_t j = 0; j < width; j += S::kLanes) sum = S::fma(S::load(a + j), S::load(b + j), sum);
    return S::sum(sum);
}

// 1 / sqrt(mean(a^2) + eps): LayerNorm's, as the centred weights make mean(a) zero.
template <class S>
[[gnu::always_inline]] inline float row_rstd(const float* a, std::int64_t width, float inverse_width) {
    const float variance = dot_row<S>(a, a, width) * inverse_width;
    return 1.0f / __builtin_sqrtf(variance + static_cast<float>(kLayerNormEps));
}

// h = SiLU(u) and its derivatives by n = LN(a), at u = n * gain + shift.
template <class S, bool exact>
struct SiluPoint {
    using Vec = typename S::Vec;
    Vec gain, u, sigmoid_u, value;

    [[gnu::always_inline]] SiluPoint(Vec a, Vec rstd, const float* gains, const float* shifts) {
        gain = S::load(gains) + S::set1(1.0f);
        u = S::fma(a, gain * rstd, S::load(shifts));
        sigmoid_u = sigmoid<S, exact>(u);
        value = u * sigmoid_u;
    }
    // dh / dn
    [[gnu::always_inline]] Vec slope() const { return gain * S::fma(value, S::set1(1.0f) - sigmoid_u, sigmoid_u); }
    // d2h / dn2
    [[gnu::always_inline]] Vec curvature() const {
        const Vec one = S::set1(1.0f);
        const Vec spread = gain * gain * sigmoid_u * (one - sigmoid_u);
        return spread * S::fma(u, one - (sigmoid_u + sigmoid_u), S::set1(2.0f));
    }
};

// Row of operands from float32 values; zeros up to a whole step of inputs.
template <class S, class Op>
[[gnu::always_inline]] inline void load_operand_row(const float* values, std::int64_t width, typename Op::Type* out) {
    std::int64_t j = 0;
    for (; j + S::kLanes <= width; j += S::kLanes) Op::store(out + j, S::load(values + j));
    if (j < width) Op::store(out + j, S::load_first(values + j, width - j));
}

template <class S>
[[gnu::always_inline]] inline void store_row(const float* values, std::int64_t width, float* out) {
    std::int64_t j = 0;
    for (; j + S::kLanes <= width; j += S::kLanes) S::store(out + j, S::load(values + j));
    if (j < width) S::store_first(out + j, width - j, S::load(values + j));
}

// x - mean, zeros up to a whole vector.
template <class S>
[[gnu::always_inline]] inline void centre_row(const float* x, const float* mean, std::int64_t width, float* out) {
    std::int64_t j = 0;
    for (; j + S::kLanes <= width; j += S::kLanes) S::store(out + j, S::load(x + j) - S::load(mean + j));
    if (j < width) S::store(out + j, S::load_first(x + j, width - j) - S::load_first(mean + j, width - j));
}

// Asks for a row that is needed a few products from now: rows come from and go to memory once, and the processor's own
// prefetcher does not see them coming.
template <class S>
[[gnu::always_inline]] inline void prefetch_row(const float* row, std::int64_t width) {
    constexpr std::int64_t kLine = 16;
    for (std::int64_t j = 0; j < width; j += kLine) __builtin_prefetch(row + j, 0, 2);
}

template <class T>
[[gnu::always_inline]] inline void zero_rows(T* buffer, std::int64_t stride, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * stride; i < end * stride; ++i) buffer[i] = T(0);
}

// Operand rows start on cache lines and fall into different sets.
template <class Op>
static constexpr std::int64_t operand_stride(std::int64_t width) {
    return round_up(width, 32) + 64 / static_cast<std::int64_t>(sizeof(typename Op::Type));
}

}  // namespace fastimpute
