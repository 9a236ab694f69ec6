#include "common/launch.h"
#include "common/mlp_pack_cuda.h"
#include "unrolled_attention/unrolled_attention.cuh"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "unrolled_attention";

template <class Shape>
__global__ void __launch_bounds__(kMostSequenceWarps* kWarp, 1) unrolled_attention_kernel(const UnrolledJob job) {
    extern __shared__ __align__(16) float shared[];
    unrolled_attention_block<Shape>(Lane{}, job, shared);
}

template <class Shape>
void launch(const UnrolledAttentionCuda& call, cudaStream_t stream) {
    const UnrolledJob job = {call, layout_of<Shape>(call.args.channels)};
    const auto kernel = unrolled_attention_kernel<Shape>;
    const int bytes = job.layout.shared_bytes;
    reserve_shared(kOp, kernel, bytes);
    const dim3 grid = grid_of(kOp, call.args.sequences, job.layout.sequences);
    kernel<<<grid, job.layout.warps * kWarp, bytes, stream>>>(job);
}

}  // namespace

void unrolled_attention(const UnrolledAttentionCuda& call, std::uintptr_t stream) {
    check_unrolled_attention(call, shared_limit());
    const UnrolledAttention<float>& args = call.args;
    if (args.sequences == 0 || args.frames == 0 || args.channels == 0) return;
    with_sequence_shape(args.frames, [&]<class Shape>() { launch<Shape>(call, stream_of(stream)); });
    check_launch(kOp, cudaGetLastError());
}

}  // namespace fastimpute::cuda
