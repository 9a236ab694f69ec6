#pragma once

#include "common/mlp_tile.cuh"
#include "proximal_recursion/proximal_recursion_cuda.h"

// What the blocks of proximal_recursion.cuh work on.
namespace fastimpute::cuda {

inline constexpr std::int64_t kMostGroup = 1024;
inline constexpr int kTeamGroup = 128;  // groups up to this are updated by one warp each, larger ones by the block
// Behind the network's shared memory: a sum and the loops' counters for every warp.
enum Counter : int { kTileCounter = 0, kIterationCounter = 1, kBeginCounter = 2 };
inline constexpr int kCounters = 4;
inline constexpr int kBlockBytes = kMostWarps * (8 + kCounters * 4);
inline constexpr double kOverlapScale = 0x1p36;
inline constexpr double kOverlapMost = 0x1p26;
inline constexpr std::uint64_t kOverlapPoison = std::uint64_t{1} << 62;  // in a cell's weight

// Whether the patches of a group have weights of their own; else all have the same, and groups do not matter.
constexpr bool shares_weights(const ProximalRecursionArgs<float>& args) {
    return args.eta_w > 0 || args.log_ref != nullptr;
}

// A block takes tiles of whole groups, as rows that are a multiple of 16 for each of its warps. Small calls get small
// blocks, to have one for every multiprocessor.
struct RecursionPlan {
    Layout layout;
    std::int64_t blocks;
    std::int64_t tiles;
    std::int64_t tile_patches;
    std::int64_t tile_rows;
    std::int64_t stride;  // of a row of cells
};

RecursionPlan plan_recursion(const RecursionCuda& call, int shared_limit, int multiprocessors);

// Beside the tables of the call, what the tiles in work need: a row for each of their patches.
struct RecursionRows {
    float* x;
    float* direction;
    float* hvp;
    float* moment1;
    float* moment2;
    float* log_p;
    float* score_sq;
    float* mass;
    float* sigma;
    std::int64_t* modulation_index;
    std::uint8_t* missing;
    std::uint32_t* kept;     // of energy_mlp
    std::uint64_t* overlap;  // (steps, sensors, 2): mass * x, mass
};

// The pieces of `scratch`; `bytes`: how long it must be. Null: only that.
RecursionRows carve_recursion(const RecursionCuda& call, const RecursionPlan& plan, void* scratch, std::int64_t& bytes);

// Network: EnergyJob or ScoreJob, over all rows of the grid.
template <class Network>
struct RecursionJob {
    Network network;
    ProximalRecursionArgs<float> args;
    RecursionRows rows;
    std::int64_t tile_patches;
    int patches;
    int dim;
    int warps;
    int tiles;
    int tile_rows;
    int stride;
    int network_bytes;  // of shared memory
    float overlap_limit;
};

}  // namespace fastimpute::cuda
