#include "spt_weights/spt_weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/parallel_for.h"
#include "common/scratch.h"
#include "dispatch.h"

namespace fastimpute {
namespace {

// Linear interpolation between order statistics, as torch.quantile does. Reorders `values`.
template <typename Real>
Real quantile(std::vector<Real>& values, double share) {
    const double position = share * static_cast<double>(values.size() - 1);
    const auto lower = static_cast<std::ptrdiff_t>(position);
    std::nth_element(values.begin(), values.begin() + lower, values.end());
    const Real low = values[lower];
    const Real fraction = static_cast<Real>(position - static_cast<double>(lower));
    if (fraction == 0) return low;
    const Real high = *std::min_element(values.begin() + lower + 1, values.end());
    return low + fraction * (high - low);
}

template <typename Real>
ValueScale<Real> value_scale(const SptWeights<Real>& params, std::int64_t begin, std::int64_t count) {
    if (!params.robust) return {};
    std::vector<Real> values(count);
    for (std::int64_t i = 0; i < count; ++i)
        values[i] = params.log_p[begin + i] - params.gamma / 2 * params.score_sq[begin + i];
    const Real center = quantile(values, 0.5);
    const Real spread = quantile(values, 0.75) - quantile(values, 0.25);
    return {center, 1 / std::max(spread, Real(1e-6))};
}

// Results of so many particles leave the caches before anyone reads them.
constexpr std::int64_t kManyRows = 1 << 18;

bool on_cache_lines(const SptWeights<float>& params) {
    const auto aligned = [](const float* address) { return reinterpret_cast<std::uintptr_t>(address) % 64 == 0; };
    return params.group % 16 == 0 && aligned(params.log_w_new) && aligned(params.mass);
}

}  // namespace

void spt_weights_group(Isa isa, const SptWeights<float>& params, std::int64_t begin, std::int64_t count) {
    kernels(isa).spt_weights_group(params, value_scale(params, begin, count), begin, count);
}

void spt_weights(Isa isa, const SptWeights<float>& params, int threads) {
    check_spt_weights(params);
    const std::int64_t groups = (params.rows + params.group - 1) / params.group;
    constexpr std::int64_t kRowsPerTask = 1 << 15;
    const bool streamed = params.rows >= kManyRows && params.group <= kStreamedGroup && on_cache_lines(params);
    parallel_for(0, groups, kRowsPerTask / params.group, threads, [&](std::int64_t first, std::int64_t last, int) {
        SptWeights<float> own = params;
        if (streamed) own.scratch = thread_scratch(2 * kStreamedGroup);
        for (std::int64_t index = first; index < last; ++index) {
            const std::int64_t begin = index * params.group;
            spt_weights_group(isa, own, begin, std::min(params.group, params.rows - begin));
        }
        // Streamed stores are weakly ordered: make them visible before the caller is told that they are done.
        if (streamed) std::atomic_thread_fence(std::memory_order_seq_cst);
    });
}

void spt_weights_ref_f64(const SptWeights<double>& params) {
    check_spt_weights(params);
    for (std::int64_t begin = 0; begin < params.rows; begin += params.group) {
        const std::int64_t count = std::min(params.group, params.rows - begin);
        ref::spt_weights_group(params, value_scale(params, begin, count), begin, count);
    }
}

}  // namespace fastimpute
