#include "common/errors.h"
#include "gaussian_conditional/gaussian_conditional.h"

namespace fastimpute {
namespace {

constexpr const char* kOp = "gaussian_conditional";

}  // namespace

template <typename Real>
void check_gaussian_conditional(const GaussianConditional<Real>& params) {
    if (params.rows < 0) throw_invalid(kOp, "rows", "at least 0", static_cast<long long>(params.rows));
    if (params.dim < 1) throw_invalid(kOp, "dim", "at least 1", static_cast<long long>(params.dim));
    if (params.covariance == nullptr && params.precision == nullptr)
        throw_invalid(kOp, "covariance", "given, or precision", "neither");
    if (params.rows == 0) return;
    if (!params.x || !params.missing || !params.mean || !params.filled)
        throw_invalid(kOp, "addresses", "non-null", "null");
}

template void check_gaussian_conditional(const GaussianConditional<float>&);
template void check_gaussian_conditional(const GaussianConditional<double>&);

}  // namespace fastimpute
