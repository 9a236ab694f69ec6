#include "common/factor_launch.h"
#include "gaussian_conditional/gaussian_conditional.cuh"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "gaussian_conditional";

template <typename Real>
__global__ void __launch_bounds__(kMostFactorThreads, kFactorWarps* kWarp / kMostFactorThreads)
    gaussian_conditional_kernel(const ConditionalJob<Real> job) {
    extern __shared__ __align__(16) double shared[];
    gaussian_conditional_block<Real>(Lane{}, job, shared);
}

template <typename Real>
void launch(const GaussianConditionalCuda<Real>& call, std::uintptr_t stream) {
    const GaussianConditional<Real>& args = call.args;
    const bool covariance = args.covariance != nullptr, precision = args.precision != nullptr;
    check_gaussian_conditional(args);
    check_scratch(kOp, call.scratch, call.scratch_bytes,
                  gaussian_conditional_scratch(args.rows, args.dim, covariance, precision));
    if (args.rows == 0) return;
    const ConditionalJob<Real> job = {call, conditional_layout(args.dim, covariance, precision, shared_limit())};
    launch_factor(kOp, gaussian_conditional_kernel<Real>, args.rows, job, stream);
}

}  // namespace

std::int64_t gaussian_conditional_scratch(std::int64_t rows, std::int64_t dim, bool covariance, bool precision) {
    check_cells(kOp, dim);
    return factor_scratch(kOp, rows, conditional_layout(dim, covariance, precision, shared_limit()));
}

void gaussian_conditional(const GaussianConditionalCuda<float>& call, std::uintptr_t stream) { launch(call, stream); }
void gaussian_conditional(const GaussianConditionalCuda<double>& call, std::uintptr_t stream) { launch(call, stream); }

}  // namespace fastimpute::cuda
