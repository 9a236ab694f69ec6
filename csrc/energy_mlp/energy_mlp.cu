#include <algorithm>

#include "common/launch.h"
#include "common/mlp_checks.h"
#include "energy_mlp/energy_mlp.cuh"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "energy_mlp";
constexpr int kMostThreads = kMostWarps * kWarp;

template <bool kHvp>
__global__ void __launch_bounds__(kMostThreads, 1) energy_mlp_kernel(const EnergyJob job) {
    extern __shared__ __align__(128) std::uint16_t shared[];
    energy_mlp_block<kHvp>(Lane{}, job, shared);
}

int attribute(cudaDeviceAttr which) {
    int device = 0;
    int value = 0;
    check_launch(kOp, cudaGetDevice(&device));
    check_launch(kOp, cudaDeviceGetAttribute(&value, which, device));
    return value;
}

void check(const EnergyMlpCuda& call) {
    const EnergyMlpArgs<float>& args = call.args;
    energy_pack_bytes(call.dim);
    check_rows(kOp, args.rows);
    check_matrix(kOp, "x", args.x, args.rows, args.x_stride, call.dim);
    check_matrix(kOp, "modulation", args.modulation.values, args.rows, 4 * kHidden, 4 * kHidden);
    if (args.rows > 0 && !aligned(args.modulation.values, 8))
        throw_invalid(kOp, "modulation", "on 8 bytes", "another address");
    if (args.rows > 0 && args.modulation.index == nullptr && args.modulation.rows != 1)
        throw_invalid(kOp, "modulation_rows", "1 without modulation_index",
                      static_cast<long long>(args.modulation.rows));
    check_matrix(kOp, "log_p", args.log_p, args.rows, 1, 1);
    check_matrix(kOp, "score", args.score, args.rows, args.score_stride, call.dim);
    if (args.want_hvp) check_matrix(kOp, "hvp", args.hvp, args.rows, args.hvp_stride, call.dim);
    if (args.vector) check_matrix(kOp, "vector", args.vector, args.rows, args.vector_stride, call.dim);
    if (call.pack == nullptr || !aligned(call.pack, 16)) throw_invalid(kOp, "pack", "on 16 bytes", "another address");
    const std::int64_t needed = energy_scratch_bytes(args.want_hvp);
    if (call.scratch == nullptr || call.scratch_bytes < needed)
        throw_invalid(kOp, "scratch_bytes", "at least " + std::to_string(needed),
                      static_cast<long long>(call.scratch == nullptr ? 0 : call.scratch_bytes));
}

Layout layout_of(std::int64_t dim) {
    const int limit = shared_limit();
    const Layout layout = energy_layout(dim, limit);
    if (layout.warps == 0)
        throw_invalid(kOp, "device", "one with 152 KB of shared memory for a block", static_cast<long long>(limit));
    return layout;
}

template <bool kHvp>
void launch(const EnergyMlpCuda& call, cudaStream_t stream) {
    const Layout layout = layout_of(call.dim);
    check_launch(kOp, cudaFuncSetAttribute(energy_mlp_kernel<kHvp>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           layout.shared_bytes));
    const std::int64_t block_rows = layout.warps * kTileRows;
    const std::int64_t tiles = (call.args.rows + block_rows - 1) / block_rows;
    const auto blocks = static_cast<unsigned>(std::min<std::int64_t>(tiles, attribute(cudaDevAttrMultiProcessorCount)));
    const EnergyJob job = {call.args, unpack_energy(call.dim, call.pack), static_cast<std::uint32_t*>(call.scratch),
                           layout.slab_steps};
    energy_mlp_kernel<kHvp><<<blocks, layout.warps * kWarp, layout.shared_bytes, stream>>>(job);
    check_launch(kOp, cudaGetLastError());
}

}  // namespace

int shared_limit() { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

std::int64_t energy_scratch_bytes(bool want_hvp) {
    const std::int64_t warps = std::int64_t{kMostWarps} * attribute(cudaDevAttrMultiProcessorCount);
    return warps * kept_slots(want_hvp) * kKeptWords * 4;
}

void energy_mlp(const EnergyMlpCuda& call, std::uintptr_t stream) {
    check(call);
    if (call.args.rows == 0) return;
    call.args.want_hvp ? launch<true>(call, stream_of(stream)) : launch<false>(call, stream_of(stream));
}

}  // namespace fastimpute::cuda
