#pragma once

#include <cstdint>

#include "common/cpu_features.h"

namespace fastimpute {

// Semi-proximal-transport weight update (arXiv 2602.01182), for groups of `group` consecutive particles (the last group
// may be shorter), B = particles of the group:
//     value = log_p - gamma / 2 * score_sq                     [robust: (value - median) / max(IQR, 1e-6) of the group]
//     log_w <- log_softmax(log_ref + (1 - tau) * (log_w - log_ref) + eta_w * value)
// The weighted mean of `value` in T_w is one constant per group, which log_softmax removes. Where |log(B w)| would
// exceed `bound`, it is clamped there and the rest shifted so that the weights still sum to one. mass = B * w. All
// arrays have `rows` elements; log_w_new may be log_w itself.
template <typename Real>
struct SptWeights {
    std::int64_t rows = 0;
    std::int64_t group = 1;
    const Real* log_w = nullptr;
    const Real* log_p = nullptr;
    const Real* score_sq = nullptr;
    const Real* log_ref = nullptr;  // null: uniform
    Real* log_w_new = nullptr;
    Real* mass = nullptr;
    Real gamma = 0;
    Real eta_w = 0;
    Real tau = 0;
    Real bound = 0;  // infinity: none
    bool robust = false;
    // Kernels for vectors only: 2 * kStreamedGroup values to compute in while the results are streamed past the caches,
    // for groups of up to kStreamedGroup particles whose results begin on a cache line. Null: compute in the results.
    Real* scratch = nullptr;
};

constexpr std::int64_t kStreamedGroup = 4096;

// value -> (value - center) * scale, before eta_w.
template <typename Real>
struct ValueScale {
    Real center = 0;
    Real scale = 1;
};

// Throws std::invalid_argument naming op and argument.
template <typename Real>
void check_spt_weights(const SptWeights<Real>& params);

// Checks the arguments, then updates all groups, spread over `threads`; the bits do not depend on `threads`.
void spt_weights(Isa isa, const SptWeights<float>& params, int threads);
void spt_weights_ref_f64(const SptWeights<double>& params);

// Updates the particles [begin, begin + count) as one group, without checks: for callers that fuse the update.
void spt_weights_group(Isa isa, const SptWeights<float>& params, std::int64_t begin, std::int64_t count);

namespace ref {
template <typename Real>
void spt_weights_group(const SptWeights<Real>& params, const ValueScale<Real>& scaling, std::int64_t begin,
                       std::int64_t count);
}
namespace avx2 {
void spt_weights_group(const SptWeights<float>& params, const ValueScale<float>& scaling, std::int64_t begin,
                       std::int64_t count);
}
namespace avx512 {
void spt_weights_group(const SptWeights<float>& params, const ValueScale<float>& scaling, std::int64_t begin,
                       std::int64_t count);
}

}  // namespace fastimpute
