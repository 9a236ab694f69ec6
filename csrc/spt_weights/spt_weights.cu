#include <algorithm>

#include "common/launch.h"
#include "spt_weights/spt_weights.cuh"
#include "spt_weights/spt_weights_cuda.h"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "spt_weights";
constexpr int kTeamThreads = 256;
constexpr int kBlockThreads = 512;
constexpr int kSharedParticles = 8192;

template <int kLanes, int kHeld>
__global__ void __launch_bounds__(kTeamThreads, 2) spt_weights_teams_kernel(const SptWeights<float> params) {
    spt_weights_teams<kLanes, kHeld>(Lane{}, params);
}

template <bool kShared>
__global__ void __launch_bounds__(kBlockThreads) spt_weights_block_kernel(const SptWeights<float> params) {
    __shared__ double partial[kBlockThreads / kWarp];
    __shared__ float held[kShared ? kSharedParticles : 1];
    spt_weights_block(Lane{}, params, kShared ? held : nullptr, partial);
}

template <int kLanes, int kHeld>
void launch_teams(const SptWeights<float>& params, std::int64_t groups, cudaStream_t stream) {
    const dim3 grid = grid_of(kOp, groups, kTeamThreads / kLanes);
    spt_weights_teams_kernel<kLanes, kHeld><<<grid, kTeamThreads, 0, stream>>>(params);
}

void launch(const SptWeights<float>& params, std::int64_t groups, std::int64_t largest, cudaStream_t stream) {
    if (largest <= 8) return launch_teams<8, 1>(params, groups, stream);
    if (largest <= 32) return launch_teams<32, 1>(params, groups, stream);
    if (largest <= 64) return launch_teams<32, 2>(params, groups, stream);
    if (largest <= 128) return launch_teams<32, 4>(params, groups, stream);
    if (largest <= 256) return launch_teams<32, 8>(params, groups, stream);
    if (largest <= 512) return launch_teams<32, 16>(params, groups, stream);
    const dim3 grid = grid_of(kOp, groups, 1);
    if (largest <= kSharedParticles) {
        spt_weights_block_kernel<true><<<grid, kBlockThreads, 0, stream>>>(params);
    } else {
        spt_weights_block_kernel<false><<<grid, kBlockThreads, 0, stream>>>(params);
    }
}

}  // namespace

void spt_weights(const SptWeights<float>& params, std::uintptr_t stream) {
    check_spt_weights(params);
    if (params.rows == 0) return;
    const std::int64_t largest = std::min(params.group, params.rows);
    if (largest > 0x7FFFFFFF) throw_invalid(kOp, "group", "below 2^31", static_cast<long long>(largest));
    SptWeights<float> own = params;
    own.group = largest;
    launch(own, (params.rows + largest - 1) / largest, largest, stream_of(stream));
    check_launch(kOp, cudaGetLastError());
}

}  // namespace fastimpute::cuda
