#pragma once

#include "common/device.cuh"
#include "energy_mlp/energy_mlp_cuda.h"

// What the warps of energy_mlp.cuh work on, how they share a block's memory, and the activation.
namespace fastimpute::cuda {

inline constexpr int kTileRows = 16;
inline constexpr int kSteps = kHidden / 16;  // of a product over the hidden units
inline constexpr int kTiles = kHidden / 8;   // of a warp's accumulators
inline constexpr std::int64_t kW2Values = std::int64_t{kHidden} * kHidden;
inline constexpr int kOperandValues = kTileRows * kHidden;  // of a warp
inline constexpr std::uint32_t kAllLanes = 0xFFFFFFFFu;

// How a block is laid out in shared memory: W2, the operands of every warp, a slab of W1 in steps of 16 inputs.
struct Layout {
    int warps;
    int slab_steps;
    int shared_bytes;
};

inline constexpr int kMostWarps = 8;

// As many warps as leave room for two steps of W1, and then as many steps as fit; no warps: even one would not.
constexpr Layout energy_layout(std::int64_t dim, int shared_limit) {
    constexpr int kStepBytes = 16 * kHidden * 2;
    const int steps = static_cast<int>((dim + 15) / 16);
    for (int warps = kMostWarps; warps > 0; warps /= 2) {
        const int fixed = (static_cast<int>(kW2Values) + warps * kOperandValues) * 2;
        const int room = (shared_limit - fixed) / kStepBytes;
        const int slab = room < steps ? room : steps;
        if (slab >= (steps < 2 ? steps : 2)) return {warps, slab, fixed + slab * kStepBytes};
    }
    return {0, 0, 0};
}

// What waits for the way back, 16 bits a value, in the order of the accumulators: 8 KB a warp each.
enum Kept : int { kNormed1 = 0, kNormed2 = 1, kBack1 = 2, kNormedTangent1 = 3 };
inline constexpr int kKeptWords = kTiles * 2 * kWarp;
constexpr int kept_slots(bool want_hvp) { return want_hvp ? 4 : 1; }

struct EnergyJob {
    EnergyMlpArgs<float> args;
    EnergyWeights weights;
    std::uint32_t* kept;  // kept_slots * kKeptWords for every warp of the grid
    int slab_steps;       // steps of 16 inputs of W1 that lie in shared memory at a time
};

using Accumulators = float[kTiles][4];  // [tile][2 * half + i]: row lane / 4 + 8 half, unit 8 tile + 2 (lane % 4) + i

__device__ __forceinline__ float sigmoid(float u) {
#ifdef __CUDA_ARCH__
    return __fdividef(1.0f, 1.0f + __expf(-u));
#else
    return 1.0f / (1.0f + std::exp(-u));
#endif
}

// h = SiLU(u) and its derivatives by n = LN(a), at u = n * (1 + gain) + shift.
struct SiluPoint {
    float gain, u, sigmoid_u;

    __device__ __forceinline__ SiluPoint(float normed, float gain_less_one, float shift)
        : gain(1.0f + gain_less_one), u(normed * gain + shift), sigmoid_u(sigmoid(u)) {}
    __device__ __forceinline__ float value() const { return u * sigmoid_u; }
    __device__ __forceinline__ float slope() const { return gain * sigmoid_u * (1.0f + u * (1.0f - sigmoid_u)); }
    __device__ __forceinline__ float curvature() const {
        return gain * gain * sigmoid_u * (1.0f - sigmoid_u) * (2.0f + u * (1.0f - 2.0f * sigmoid_u));
    }
};

}  // namespace fastimpute::cuda
