#pragma once

#include <cstdint>

#include "common/cpu_features.h"

namespace fastimpute {

// (step, momentum) of each iteration, per sequence (rows x count x 2) or the same for all (rows = 1).
template <typename Real>
struct IterationRates {
    const Real* rates = nullptr;  // null: conjugate gradients
    std::int64_t rows = 0;
    std::int64_t count = 0;
};

// Score and conditional mean of masked Gaussian sequences of `frames` x `channels` (arXiv 2510.02216, Theorem 1). Two
// frames seen (o) or missing (m) have covariance lag_table[|i - k|]; channels are independent with variances `variance`
// in the orthogonal `basis` (columns). `outer` iterations from zero solve
//     (alpha^2 (S_mm - S_mo S_oo^-1 S_om) + sigma^2) score = -(v - alpha mu),   mu = mean_m + S_mo S_oo^-1 (x_o -
//     mean_o)
// and every product with S_oo^-1 is `inner` iterations from zero. score is zero, conditional_mean is x, bit for bit, at
// frames seen. v is read at missing frames and x at frames seen only. Strides are between sequences.
template <typename Real>
struct UnrolledAttention {
    std::int64_t sequences = 0;
    std::int64_t frames = 0;
    std::int64_t channels = 0;
    const Real* v = nullptr;
    std::int64_t v_stride = 0;
    const Real* x = nullptr;
    std::int64_t x_stride = 0;
    const std::uint8_t* missing = nullptr;
    std::int64_t missing_stride = 0;
    const Real* lag_table = nullptr;  // frames
    const Real* alpha = nullptr;      // sequences
    const Real* sigma = nullptr;      // sequences
    const Real* mean = nullptr;       // frames x channels; null: zero
    const Real* basis = nullptr;      // channels x channels, with variance; null: identity
    const Real* variance = nullptr;   // channels
    IterationRates<Real> outer;
    IterationRates<Real> inner;
    double length = 0;                 // of the preconditioner, in frames; 0: none
    Real* score = nullptr;             // sequences x frames x channels
    Real* conditional_mean = nullptr;  // sequences x frames x channels
};

// What the tasks of a call share. By gap between neighbouring frames seen: correlation of the exponential kernel and
// 1 / (1 - correlation^2), both `frames` long; index 0 stands for a first frame (0 and 1).
template <typename Real>
struct UnrolledPlan {
    const std::int64_t* order = nullptr;  // sequences, those with equal masks together
    const Real* decay = nullptr;          // null: no preconditioner
    const Real* weight = nullptr;
};

// Throws std::invalid_argument naming the argument; what the addresses hold is not looked at.
template <typename Real>
void check_unrolled_attention(const UnrolledAttention<Real>& params);

// Checks the arguments, then solves all sequences, spread over `threads`; the bits do not depend on `threads`, nor on
// the sequences that share a call.
void unrolled_attention(Isa isa, const UnrolledAttention<float>& params, int threads);
void unrolled_attention_ref_f64(const UnrolledAttention<double>& params);

// The body for one instruction set: sequences order[begin, end), at most `columns / channels` of them (at least one),
// solved together as columns of one matrix, in `scratch(params)` floats.
struct UnrolledKernels {
    std::int64_t columns;
    std::int64_t (*scratch)(const UnrolledAttention<float>&);
    void (*solve)(const UnrolledAttention<float>&, const UnrolledPlan<float>&, std::int64_t begin, std::int64_t end,
                  float* scratch);
};
const UnrolledKernels& find_unrolled_kernels(Isa isa);

namespace ref {
std::int64_t unrolled_scratch(const UnrolledAttention<float>& params);
template <typename Real>
void unrolled_solve(const UnrolledAttention<Real>& params, const UnrolledPlan<Real>& plan, std::int64_t begin,
                    std::int64_t end, Real* scratch);
}  // namespace ref
namespace avx2 {
std::int64_t unrolled_scratch(const UnrolledAttention<float>& params);
void unrolled_solve(const UnrolledAttention<float>& params, const UnrolledPlan<float>& plan, std::int64_t begin,
                    std::int64_t end, float* scratch);
}  // namespace avx2
namespace avx512 {
std::int64_t unrolled_scratch(const UnrolledAttention<float>& params);
void unrolled_solve(const UnrolledAttention<float>& params, const UnrolledPlan<float>& plan, std::int64_t begin,
                    std::int64_t end, float* scratch);
}  // namespace avx512

}  // namespace fastimpute
