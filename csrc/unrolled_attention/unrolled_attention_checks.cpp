#include <string>

#include "common/errors.h"
#include "unrolled_attention/unrolled_attention.h"

namespace fastimpute {
namespace {

constexpr const char* kOp = "unrolled_attention";

void check_at_least(const char* argument, std::int64_t value, std::int64_t least) {
    if (value < least) throw_invalid(kOp, argument, "at least " + std::to_string(least), static_cast<long long>(value));
}

template <typename Real>
void check_rates(const char* argument, const IterationRates<Real>& rates, std::int64_t sequences) {
    check_at_least(argument, rates.count, 0);
    if (rates.rates != nullptr && rates.rows != 1 && rates.rows != sequences)
        throw_invalid(kOp, argument, "one row, or one per sequence", static_cast<long long>(rates.rows));
}

}  // namespace

template <typename Real>
void check_unrolled_attention(const UnrolledAttention<Real>& params) {
    check_at_least("sequences", params.sequences, 0);
    check_at_least("frames", params.frames, 0);
    check_at_least("channels", params.channels, 0);
    if (params.sequences == 0 || params.frames == 0 || params.channels == 0) return;
    const bool complete = params.v && params.x && params.missing && params.lag_table && params.alpha && params.sigma &&
                          params.score && params.conditional_mean;
    if (!complete) throw_invalid(kOp, "addresses", "non-null", "null");
    check_at_least("v_stride", params.v_stride, params.frames * params.channels);
    check_at_least("x_stride", params.x_stride, params.frames * params.channels);
    check_at_least("missing_stride", params.missing_stride, params.frames);
    check_rates("outer", params.outer, params.sequences);
    check_rates("inner", params.inner, params.sequences);
    const bool both = params.outer.count > 0 && params.inner.count > 0;
    if (both && (params.outer.rates == nullptr) != (params.inner.rates == nullptr))
        throw_invalid(kOp, "rates", "given for both systems or none", "one");
    if ((params.basis == nullptr) != (params.variance == nullptr))
        throw_invalid(kOp, "basis", "given with the variances", "one of both");
    if (!(params.length >= 0)) throw_invalid(kOp, "length", "at least 0", params.length);
}

template void check_unrolled_attention(const UnrolledAttention<float>&);
template void check_unrolled_attention(const UnrolledAttention<double>&);

}  // namespace fastimpute
