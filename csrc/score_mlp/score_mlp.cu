#include "common/mlp_launch.h"
#include "score_mlp/score_mlp.cuh"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "score_mlp";

__global__ void __launch_bounds__(kMostWarps* kWarp, 1) score_mlp_kernel(const ScoreJob job) {
    extern __shared__ __align__(128) std::uint16_t shared[];
    score_mlp_block(Lane{}, job, shared);
}

}  // namespace

void score_mlp(const ScoreMlpCuda& call, std::uintptr_t stream) {
    const ScoreMlpArgs<float>& args = call.args;
    check_network_call(kOp, Head::kDirect, call.dim, args.rows, args.x, args.x_stride, args.modulation, call.pack);
    check_gaussian(kOp, call.precision, call.mean);
    check_matrix(kOp, "sigma", args.sigma, args.rows, 1, 1);
    check_matrix(kOp, "score", args.score, args.rows, args.score_stride, call.dim);
    if (args.rows == 0) return;
    const Layout layout = mlp_layout(Head::kDirect, call.dim, shared_limit());
    check_layout(kOp, layout);
    const ScoreJob job = {args, unpack_mlp(Head::kDirect, call.dim, call.pack).with_gaussian(call.precision, call.mean),
                          layout.slab_steps};
    launch_network(kOp, score_mlp_kernel, layout, job, stream_of(stream));
}

}  // namespace fastimpute::cuda
