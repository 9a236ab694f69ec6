#include <algorithm>

#include "common/carver.h"
#include "common/errors.h"
#include "energy_mlp/energy_job.cuh"
#include "proximal_recursion/recursion_job.cuh"

namespace fastimpute::cuda {
namespace {

std::int64_t tile_patches(const ProximalRecursionArgs<float>& args, std::int64_t warps) {
    const std::int64_t rows = warps * kTileRows;
    return shares_weights(args) ? args.group * std::max<std::int64_t>(rows / args.group, 1) : rows;
}

std::int64_t tiles_of(const ProximalRecursionArgs<float>& args, std::int64_t warps) {
    const std::int64_t patches = tile_patches(args, warps);
    return (args.patches() + patches - 1) / patches;
}

}  // namespace

std::optional<std::string> group_refusal(std::int64_t group) {
    if (group <= kMostGroup) return std::nullopt;
    return "groups have " + std::to_string(group) + " patches, a block takes up to " + std::to_string(kMostGroup);
}

void check_recursion_call(const RecursionCuda& call) {
    constexpr const char* kOp = "proximal_recursion";
    const ProximalRecursionArgs<float>& args = call.args;
    const auto check = [](bool holds, const char* name, const char* expected, std::int64_t got) {
        if (!holds) throw_invalid(kOp, name, expected, static_cast<long long>(got));
    };
    mlp_pack_bytes(call.head, args.dim());
    check_gaussian(kOp, call.precision, call.mean);
    check_recursion_sizes(args, call.head, args.dim());
    check(args.group <= kMostGroup || !shares_weights(args), "group", "at most 1024", args.group);
    check(call.cover >= 1 || args.patches() == 0, "cover", "at least 1", call.cover);
    check(args.patches() < (1 << 30), "patches", "fewer than 2^30", args.patches());
    check(args.iterations < (1 << 30), "iterations", "fewer than 2^30", args.iterations);
    const auto at = [](const void* address) { return reinterpret_cast<std::uintptr_t>(address); };
    check(call.pack != nullptr && at(call.pack) % 16 == 0, "pack", "on 16 bytes", 0);
    check(at(args.modulation) % 8 == 0, "modulation", "on 8 bytes", 0);
    check(call.scratch != nullptr && at(call.scratch) % 64 == 0, "scratch", "on 64 bytes", 0);
    const std::int64_t needed = recursion_scratch_bytes(call);
    if (call.scratch_bytes < needed)
        throw_invalid(kOp, "scratch_bytes", "at least " + std::to_string(needed),
                      static_cast<long long>(call.scratch_bytes));
}

RecursionPlan plan_recursion(const RecursionCuda& call, int shared_limit, int multiprocessors) {
    const ProximalRecursionArgs<float>& args = call.args;
    int most = kMostWarps;
    while (most > 1 && tiles_of(args, most / 2) <= multiprocessors) most /= 2;
    RecursionPlan plan{};
    plan.layout = mlp_layout(call.head, args.dim(), shared_limit - kBlockBytes, most);
    const std::int64_t warps = std::max(plan.layout.warps, 1);
    plan.tiles = tiles_of(args, warps);
    plan.blocks = std::min<std::int64_t>(plan.tiles, multiprocessors);
    plan.tile_patches = tile_patches(args, warps);
    plan.tile_rows = round_up(plan.tile_patches, warps * kTileRows);
    plan.stride = round_up(args.dim(), 4);
    return plan;
}

RecursionRows carve_recursion(const RecursionCuda& call, const RecursionPlan& plan, void* scratch,
                              std::int64_t& bytes) {
    const ProximalRecursionArgs<float>& args = call.args;
    const std::int64_t rows = plan.blocks * plan.tile_rows;
    const std::int64_t cells = rows * plan.stride;
    Carver carver{static_cast<float*>(scratch)};
    RecursionRows to{};
    to.x = carver.take<float>(cells);
    to.direction = carver.take<float>(cells);
    to.hvp = carver.take<float>(args.gamma > 0 ? cells : 0);
    to.moment1 = carver.take<float>(args.adam ? cells : 0);
    to.moment2 = carver.take<float>(args.adam ? cells : 0);
    for (float** each : {&to.log_p, &to.score_sq, &to.mass, &to.sigma}) *each = carver.take<float>(rows);
    to.modulation_index = carver.take<std::int64_t>(rows);
    to.missing = carver.take<std::uint8_t>(cells);
    if (call.head == Head::kEnergy)
        to.kept = carver.take<std::uint32_t>(rows / kTileRows * kept_slots(args.gamma > 0) * kKeptWords);
    to.overlap = carver.take<std::uint64_t>(args.steps * args.sensors * 2);
    bytes = carver.used * static_cast<std::int64_t>(sizeof(float));
    return to;
}

}  // namespace fastimpute::cuda
