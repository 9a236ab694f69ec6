#include "common/mlp_launch.h"
#include "proximal_recursion/proximal_recursion.cuh"
#include "proximal_recursion/recursion_network.h"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "proximal_recursion";
constexpr int kAverageThreads = 256;

template <class Network, class Job>
__global__ void __launch_bounds__(kMostWarps* kWarp, 1) recursion_kernel(const Job job) {
    extern __shared__ __align__(128) std::uint16_t shared[];
    recursion_block<Network>(Lane{}, job, shared);
}

__global__ void __launch_bounds__(kAverageThreads)
    average_overlaps_kernel(const ProximalRecursionArgs<float> args, const std::uint64_t* overlap) {
    average_overlaps(Lane{}, args, overlap);
}

template <class Network, class Job>
void launch(const Job& job, const RecursionPlan& plan, cudaStream_t stream) {
    const auto kernel = recursion_kernel<Network, Job>;
    const int bytes = plan.layout.shared_bytes + kBlockBytes;
    check_launch(kOp, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    kernel<<<static_cast<unsigned>(plan.blocks), plan.layout.warps * kWarp, bytes, stream>>>(job);
    check_launch(kOp, cudaGetLastError());
}

RecursionPlan plan_of(const RecursionCuda& call) { return plan_recursion(call, shared_limit(), multiprocessors(kOp)); }

}  // namespace

std::int64_t recursion_scratch_bytes(const RecursionCuda& call) {
    std::int64_t bytes = 0;
    carve_recursion(call, plan_of(call), nullptr, bytes);
    return bytes;
}

void proximal_recursion(const RecursionCuda& call, std::uintptr_t stream) {
    const ProximalRecursionArgs<float>& args = call.args;
    check_recursion_call(call);
    const std::int64_t cells = args.steps * args.sensors;
    if (cells == 0) return;
    const RecursionPlan plan = plan_of(call);
    check_layout(kOp, plan.layout);
    std::int64_t bytes = 0;
    const RecursionRows rows = carve_recursion(call, plan, call.scratch, bytes);
    check_launch(kOp, cudaMemsetAsync(rows.overlap, 0, static_cast<std::size_t>(cells) * 16, stream_of(stream)));
    if (args.patches() > 0) {
        with_recursion_job<Lane>(
            call, plan, rows, [&]<class Network>(const auto& job) { launch<Network>(job, plan, stream_of(stream)); });
    }
    average_overlaps_kernel<<<grid_of(kOp, cells, kAverageThreads), kAverageThreads, 0, stream_of(stream)>>>(
        args, rows.overlap);
    check_launch(kOp, cudaGetLastError());
}

}  // namespace fastimpute::cuda
