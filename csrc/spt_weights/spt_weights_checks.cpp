#include "common/errors.h"
#include "spt_weights/spt_weights.h"

namespace fastimpute {
namespace {

constexpr const char* kOp = "spt_weights";

}  // namespace

template <typename Real>
void check_spt_weights(const SptWeights<Real>& params) {
    if (params.rows < 0) throw_invalid(kOp, "rows", "at least 0", static_cast<long long>(params.rows));
    if (params.group < 1) throw_invalid(kOp, "group", "at least 1", static_cast<long long>(params.group));
    if (!(params.tau >= 0 && params.tau <= 1)) throw_invalid(kOp, "tau", "in [0, 1]", double(params.tau));
    if (!(params.bound > 0)) throw_invalid(kOp, "bound", "positive", double(params.bound));
    if (params.rows == 0) return;
    const bool complete = params.log_w && params.log_p && params.score_sq && params.log_w_new && params.mass;
    if (!complete) throw_invalid(kOp, "addresses", "non-null", "null");
}

template void check_spt_weights(const SptWeights<float>&);
template void check_spt_weights(const SptWeights<double>&);

}  // namespace fastimpute
