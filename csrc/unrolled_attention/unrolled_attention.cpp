#include "unrolled_attention/unrolled_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "common/errors.h"
#include "common/parallel_for.h"
#include "common/scratch.h"

namespace fastimpute {
namespace {

constexpr const char* kOp = "unrolled_attention";

template <typename Real>
void check(const UnrolledAttention<Real>& params) {
    check_unrolled_attention(params);
    if (params.sequences == 0 || params.frames == 0) return;
    for (std::int64_t channel = 0; params.variance && channel < params.channels; ++channel) {
        if (!(params.variance[channel] > 0))
            throw_invalid(kOp, "channel_covariance", "positive definite, each variance above 0",
                          static_cast<double>(params.variance[channel]));
    }
}

// Sequences sorted by their masks, equal ones in their own order.
template <typename Real>
std::vector<std::int64_t> order_by_mask(const UnrolledAttention<Real>& params) {
    std::vector<std::int64_t> order(params.sequences);
    std::iota(order.begin(), order.end(), std::int64_t{0});
    const auto mask = [&](std::int64_t sequence) { return params.missing + sequence * params.missing_stride; };
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
        return std::memcmp(mask(a), mask(b), static_cast<std::size_t>(params.frames)) < 0;
    });
    return order;
}

// The tables behind an UnrolledPlan.
template <typename Real>
struct Tables {
    std::vector<std::int64_t> order;
    std::vector<Real> decay;
    std::vector<Real> weight;

    explicit Tables(const UnrolledAttention<Real>& params) : order(order_by_mask(params)) {
        if (params.length == 0) return;
        decay.resize(params.frames, 0);
        weight.resize(params.frames, 1);
        for (std::int64_t gap = 1; gap < params.frames; ++gap) {
            const double correlation = std::exp(-static_cast<double>(gap) / params.length);
            decay[gap] = static_cast<Real>(correlation);
            weight[gap] = static_cast<Real>(1 / (1 - correlation * correlation));
        }
    }
    UnrolledPlan<Real> plan() const {
        return {order.data(), decay.empty() ? nullptr : decay.data(), weight.empty() ? nullptr : weight.data()};
    }
};

template <typename Real>
bool nothing_to_do(const UnrolledAttention<Real>& params) {
    return params.sequences == 0 || params.frames == 0 || params.channels == 0;
}

}  // namespace

void unrolled_attention(Isa isa, const UnrolledAttention<float>& params, int threads) {
    check(params);
    if (nothing_to_do(params)) return;
    const UnrolledKernels& kernel = find_unrolled_kernels(isa);
    const Tables<float> tables(params);
    const std::int64_t together = std::max<std::int64_t>(kernel.columns / params.channels, 1);
    parallel_for(0, params.sequences, together, threads, [&](std::int64_t begin, std::int64_t end, int) {
        kernel.solve(params, tables.plan(), begin, end, thread_scratch(kernel.scratch(params)));
    });
}

void unrolled_attention_ref_f64(const UnrolledAttention<double>& params) {
    check(params);
    if (nothing_to_do(params)) return;
    const Tables<double> tables(params);
    ref::unrolled_solve<double>(params, tables.plan(), 0, params.sequences, nullptr);
}

}  // namespace fastimpute
