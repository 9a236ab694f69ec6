#include "common/factor_launch.h"
#include "gaussian_whitening/gaussian_whitening.cuh"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "gaussian_whitening";

template <typename Real>
__global__ void __launch_bounds__(kMostFactorThreads, kFactorWarps* kWarp / kMostFactorThreads)
    gaussian_whitening_kernel(const WhiteningJob<Real> job) {
    extern __shared__ __align__(16) double shared[];
    gaussian_whitening_block<Real>(Lane{}, job, shared);
}

template <typename Real>
void launch(const GaussianWhiteningCuda<Real>& call, std::uintptr_t stream) {
    const GaussianWhitening<Real>& args = call.args;
    check_gaussian_whitening(args);
    check_scratch(kOp, call.scratch, call.scratch_bytes, gaussian_whitening_scratch(args.rows, args.dim, args.most));
    if (args.rows == 0) return;
    const WhiteningJob<Real> job = {call, whitening_layout(args.dim, args.most, shared_limit())};
    launch_factor(kOp, gaussian_whitening_kernel<Real>, args.rows, job, stream);
}

}  // namespace

std::int64_t gaussian_whitening_scratch(std::int64_t rows, std::int64_t dim, std::int64_t most) {
    check_cells(kOp, dim);
    return factor_scratch(kOp, rows, whitening_layout(dim, most, shared_limit()));
}

void gaussian_whitening(const GaussianWhiteningCuda<float>& call, std::uintptr_t stream) { launch(call, stream); }
void gaussian_whitening(const GaussianWhiteningCuda<double>& call, std::uintptr_t stream) { launch(call, stream); }

}  // namespace fastimpute::cuda
