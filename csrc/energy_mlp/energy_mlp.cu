#include "common/mlp_launch.h"
#include "energy_mlp/energy_body_cuda.h"
#include "energy_mlp/energy_mlp.cuh"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "energy_mlp";

template <bool kHvp>
__global__ void __launch_bounds__(kMostWarps* kWarp, 1) energy_mlp_kernel(const EnergyJob job) {
    extern __shared__ __align__(128) std::uint16_t shared[];
    energy_mlp_block<kHvp>(Lane{}, job, shared);
}

void check(const EnergyMlpCuda& call) {
    const EnergyMlpArgs<float>& args = call.args;
    check_network_call(kOp, Head::kEnergy, call.dim, args.rows, args.x, args.x_stride, args.modulation, call.pack);
    check_gaussian(kOp, call.precision, call.mean);
    check_matrix(kOp, "log_p", args.log_p, args.rows, 1, 1);
    check_matrix(kOp, "score", args.score, args.rows, args.score_stride, call.dim);
    if (args.want_hvp) check_matrix(kOp, "hvp", args.hvp, args.rows, args.hvp_stride, call.dim);
    if (args.vector) check_matrix(kOp, "vector", args.vector, args.rows, args.vector_stride, call.dim);
    check_scratch(kOp, call.scratch, call.scratch_bytes, energy_scratch_bytes(args.want_hvp));
}

}  // namespace

int shared_limit() { return device_attribute("shared_limit", cudaDevAttrMaxSharedMemoryPerBlockOptin); }

std::int64_t energy_scratch_bytes(bool want_hvp) {
    return std::int64_t{kMostWarps} * multiprocessors(kOp) * kept_slots(want_hvp) * kKeptWords * 4;
}

void energy_by_warps(const EnergyMlpCuda& call, std::uintptr_t stream) {
    const Layout layout = mlp_layout(Head::kEnergy, call.dim, shared_limit());
    check_layout(kOp, layout);
    const auto kernel = call.args.want_hvp ? energy_mlp_kernel<true> : energy_mlp_kernel<false>;
    launch_network(kOp, kernel, layout, energy_job(call, layout), stream_of(stream));
}

void energy_mlp(const EnergyMlpCuda& call, std::uintptr_t stream) {
    check(call);
    if (call.args.rows == 0) return;
    if (energy_body(call.dim, call.precision != nullptr, call.args.want_hvp) == EnergyBody::kWarps)
        return energy_by_warps(call, stream);
    energy_by_groups(call, multiprocessors(kOp), stream);
}

}  // namespace fastimpute::cuda
