// The kernels of Gaussian windows over emulated lanes.

#include <vector>

#include "common/mlp_pack_cuda.h"
#include "emulated_lane.h"
#include "gaussian_conditional/gaussian_conditional.cuh"
#include "gaussian_whitening/gaussian_whitening.cuh"

namespace fastimpute::cuda {
namespace {

constexpr int kBlocks = 2;

// `body(lane, shared memory)` for two blocks.
template <typename Body>
void launch_factor(const FactorLayout& layout, const Body& body) {
    std::vector<FourWords> shared(layout.shared_bytes / sizeof(FourWords), FourWords{{~0u, ~0u, ~0u, ~0u}});
    emulated::launch(kBlocks, layout.warps * kWarp,
                     [&](const emulated::Lane& lane) { body(lane, reinterpret_cast<double*>(shared.data())); });
}

template <typename Real>
void conditional(const GaussianConditionalCuda<Real>& call) {
    const GaussianConditional<Real>& args = call.args;
    check_gaussian_conditional(args);
    const ConditionalJob<Real> job = {
        call, conditional_layout(args.dim, args.covariance != nullptr, args.precision != nullptr, shared_limit())};
    launch_factor(job.layout,
                  [&](const emulated::Lane& lane, double* shared) { gaussian_conditional_block(lane, job, shared); });
}

template <typename Real>
void whitening(const GaussianWhiteningCuda<Real>& call) {
    check_gaussian_whitening(call.args);
    const WhiteningJob<Real> job = {call, whitening_layout(call.args.dim, call.args.most, shared_limit())};
    launch_factor(job.layout,
                  [&](const emulated::Lane& lane, double* shared) { gaussian_whitening_block(lane, job, shared); });
}

}  // namespace

std::int64_t gaussian_conditional_scratch(std::int64_t, std::int64_t dim, bool covariance, bool precision) {
    return kBlocks * 8 * conditional_layout(dim, covariance, precision, shared_limit()).scratch_values;
}

void gaussian_conditional(const GaussianConditionalCuda<float>& call, std::uintptr_t) { conditional(call); }
void gaussian_conditional(const GaussianConditionalCuda<double>& call, std::uintptr_t) { conditional(call); }

std::int64_t gaussian_whitening_scratch(std::int64_t, std::int64_t dim, std::int64_t most) {
    return kBlocks * 8 * whitening_layout(dim, most, shared_limit()).scratch_values;
}

void gaussian_whitening(const GaussianWhiteningCuda<float>& call, std::uintptr_t) { whitening(call); }
void gaussian_whitening(const GaussianWhiteningCuda<double>& call, std::uintptr_t) { whitening(call); }

}  // namespace fastimpute::cuda

// (warps, blocks of a multiprocessor, rows of tiles on chip, bytes, doubles of scratch) for windows of so many cells,
// all of which may have to be factorised.
extern "C" void factor_layout(int dim, int shared_limit, std::int64_t* out) {
    const fastimpute::cuda::FactorLayout layout = fastimpute::cuda::factor_layout(dim, dim, shared_limit);
    out[0] = layout.warps;
    out[1] = layout.blocks;
    out[2] = layout.tiles;
    out[3] = layout.shared_bytes;
    out[4] = layout.scratch_values;
}
