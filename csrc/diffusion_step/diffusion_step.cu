#include "common/launch.h"
#include "diffusion_step/diffusion_step.cuh"
#include "diffusion_step/diffusion_step_cuda.h"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "diffusion_step";
constexpr int kThreads = 256;

template <int kWide, bool kPrevious, bool kNoise>
__global__ void __launch_bounds__(kThreads) diffusion_step_kernel(const DiffusionStep<float> params) {
    diffusion_step_cells<kWide, kPrevious, kNoise>(Lane{}, params);
}

}  // namespace

void diffusion_step(const DiffusionStep<float>& params, std::uintptr_t stream) {
    with_diffusion_kernel(params, [&]<int kWide, bool kPrevious, bool kNoise>(const DiffusionStep<float>& chosen) {
        const dim3 grid = grid_of(kOp, diffusion_blocks<kWide, kNoise>(chosen, kThreads), 1);
        diffusion_step_kernel<kWide, kPrevious, kNoise><<<grid, kThreads, 0, stream_of(stream)>>>(chosen);
    });
    check_launch(kOp, cudaGetLastError());
}

}  // namespace fastimpute::cuda
