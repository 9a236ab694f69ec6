#include "common/errors.h"
#include "gaussian_whitening/gaussian_whitening.h"

namespace fastimpute {
namespace {

constexpr const char* kOp = "gaussian_whitening";

}  // namespace

template <typename Real>
void check_gaussian_whitening(const GaussianWhitening<Real>& params) {
    if (params.rows < 0) throw_invalid(kOp, "rows", "at least 0", static_cast<long long>(params.rows));
    if (params.dim < 1) throw_invalid(kOp, "dim", "at least 1", static_cast<long long>(params.dim));
    if (params.most < 0 || params.most > params.dim)
        throw_invalid(kOp, "most", "in 0 to dim", static_cast<long long>(params.most));
    if (params.rows == 0) return;
    const bool given = params.x && params.missing && params.mean && params.precision && params.filled &&
                       params.deviation &&
                       (params.most == 0 || (params.cells && params.real && params.factor && params.inverse));
    if (!given) throw_invalid(kOp, "addresses", "non-null", "null");
}

template void check_gaussian_whitening(const GaussianWhitening<float>&);
template void check_gaussian_whitening(const GaussianWhitening<double>&);

}  // namespace fastimpute
