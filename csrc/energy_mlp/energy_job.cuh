#pragma once

#include "common/mlp_tile.cuh"
#include "energy_mlp/energy_mlp_cuda.h"

// What the warps of energy_mlp.cuh work on.
namespace fastimpute::cuda {

// What waits for the way back, 16 bits a value, in the order of the accumulators: 8 KB a warp each.
enum Kept : int { kNormed1 = 0, kNormed2 = 1, kBack1 = 2, kNormedTangent1 = 3 };
inline constexpr int kKeptWords = kTiles * 2 * kWarp;
constexpr int kept_slots(bool want_hvp) { return want_hvp ? 4 : 1; }

struct EnergyJob {
    static constexpr Head kHead = Head::kEnergy;

    EnergyMlpArgs<float> args;
    MlpCuda weights;
    std::uint32_t* kept;  // kept_slots * kKeptWords for every warp of the grid
    int slab_steps;       // steps of 16 inputs of W1 that lie in shared memory at a time
};

inline EnergyJob energy_job(const EnergyMlpCuda& call, const Layout& layout) {
    return {call.args, unpack_mlp(Head::kEnergy, call.dim, call.pack).with_gaussian(call.precision, call.mean),
            static_cast<std::uint32_t*>(call.scratch), layout.slab_steps};
}

}  // namespace fastimpute::cuda
