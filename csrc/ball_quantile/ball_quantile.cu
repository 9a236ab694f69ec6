#include "ball_quantile/ball_quantile.cuh"
#include "ball_quantile/ball_quantile_cuda.h"
#include "common/launch.h"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "ball_quantile";
constexpr int kWindowsOfBlock = 4;  // one warp each

template <bool kWide>
__global__ void __launch_bounds__(kWindowsOfBlock* kWarp, 6) ball_warp_kernel(const BallQuantile<float> params) {
    constexpr int kSamples = ball_samples(BallForm::kOfWarp);
    __shared__ float squares[kWindowsOfBlock * kSamples];
    const Lane lane;
    const int warp = lane.thread() / kWarp;
    const std::int64_t window = lane.block() * kWindowsOfBlock + warp;
    ball_window<BallForm::kOfWarp, kWide>(BallWarp<Lane>{lane}, lane, params, window, squares + warp * kSamples);
}

// Blocks of few samples share a multiprocessor: some load while others compute.
template <BallForm kForm, bool kWide>
__global__ void __launch_bounds__(ball_warps(kForm) * kWarp, kForm == BallForm::kFew ? 3 : 1)
    ball_block_kernel(const BallQuantile<float> params) {
    __shared__ TileCells partial[2 * ball_warps(kForm) * kTileLanes];
    __shared__ float squares[ball_samples(kForm)];
    const Lane lane;
    ball_window<kForm, kWide>(BallBlock<Lane>{lane, partial}, lane, params, lane.block(), squares);
}

}  // namespace

void ball_quantile(const BallQuantile<float>& params, std::uintptr_t stream) {
    with_ball_kernel(params, [&]<BallForm kForm, bool kWide>(int warps) {
        if constexpr (kForm == BallForm::kOfWarp) {
            const dim3 grid = grid_of(kOp, params.windows, kWindowsOfBlock);
            ball_warp_kernel<kWide><<<grid, kWindowsOfBlock * kWarp, 0, stream_of(stream)>>>(params);
        } else {
            const dim3 grid = grid_of(kOp, params.windows, 1);
            ball_block_kernel<kForm, kWide><<<grid, warps * kWarp, 0, stream_of(stream)>>>(params);
        }
    });
    check_launch(kOp, cudaGetLastError());
}

}  // namespace fastimpute::cuda
