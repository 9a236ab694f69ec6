#include "ball_quantile/ball_quantile.h"
#include "common/errors.h"

namespace fastimpute {
namespace {

constexpr const char* kOp = "ball_quantile";

void check_stride(const char* argument, std::int64_t stride, std::int64_t least) {
    if (stride < least) throw_invalid(kOp, argument, "at least the row length", static_cast<long long>(stride));
}

}  // namespace

template <typename Real>
void check_ball_quantile(const BallQuantile<Real>& params) {
    if (params.samples < 2) throw_invalid(kOp, "samples", "at least 2", static_cast<long long>(params.samples));
    if (params.windows < 0) throw_invalid(kOp, "windows", "at least 0", static_cast<long long>(params.windows));
    if (params.dim < 0) throw_invalid(kOp, "dim", "at least 0", static_cast<long long>(params.dim));
    if (params.rank < 1 || params.rank > params.samples)
        throw_invalid(kOp, "rank", "between 1 and the number of samples", static_cast<long long>(params.rank));
    if (params.windows == 0) return;
    if (params.radius == nullptr) throw_invalid(kOp, "radius", "non-null", "null");
    if (params.dim == 0) return;
    if (!(params.x && params.missing && params.centre)) throw_invalid(kOp, "addresses", "non-null", "null");
    check_stride("sample_stride", params.sample_stride, params.dim);
    check_stride("window_stride", params.window_stride, params.dim);
    check_stride("missing_stride", params.missing_stride, params.dim);
    check_stride("centre_stride", params.centre_stride, params.dim);
}

template void check_ball_quantile(const BallQuantile<float>&);
template void check_ball_quantile(const BallQuantile<double>&);

}  // namespace fastimpute
