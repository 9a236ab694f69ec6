#pragma once

#include "common/device.cuh"
#include "common/mlp_pack_cuda.h"

// How a block of the network kernels (common/mlp_warp.cuh) is laid out, and the activation.
namespace fastimpute::cuda {

inline constexpr std::int64_t kMostRows = std::int64_t{1} << 30;  // of a launch
inline constexpr int kTileRows = 16;                              // of a warp
inline constexpr int kSteps = kHidden / 16;                       // of a product over the hidden units
inline constexpr int kTiles = kHidden / 8;                        // of a warp's accumulators
inline constexpr std::int64_t kW2Values = std::int64_t{kHidden} * kHidden;
inline constexpr int kOperandValues = kTileRows * kHidden;  // of a warp
inline constexpr int kStepValues = 16 * kHidden;            // of 16 inputs of W1 or W3^T
inline constexpr std::uint32_t kAllLanes = 0xFFFFFFFFu;

// Matrices that face the particles' cells: W1; direct head: also W3^T.
constexpr int input_matrices(Head head) { return head == Head::kDirect ? 2 : 1; }

// A block in shared memory: W2, the operands of every warp, a slab of the input matrices in steps of 16 inputs.
struct Layout {
    int warps;
    int slab_steps;
    int shared_bytes;
};

inline constexpr int kMostWarps = 8;

// Up to `most` warps, as many as leave room for two steps of a matrix, and then as many steps as fit; no warps: even
// one would not.
constexpr Layout mlp_layout(Head head, std::int64_t dim, int shared_limit, int most = kMostWarps) {
    const int steps = input_matrices(head) * static_cast<int>((dim + 15) / 16);
    for (int warps = most; warps > 0; warps /= 2) {
        const int fixed = (static_cast<int>(kW2Values) + warps * kOperandValues) * 2;
        const int room = (shared_limit - fixed) / (kStepValues * 2);
        const int slab = room < steps ? room : steps;
        if (slab >= (steps < 2 ? steps : 2)) return {warps, slab, fixed + slab * kStepValues * 2};
    }
    return {0, 0, 0};
}

// Four warps multiply together on Hopper (common/mlp_group.cuh): their blocks keep W2 and all of W1 in shared memory.
inline constexpr int kGroupWarps = 4;
inline constexpr int kGroupSteps[] = {2, 6, 11};  // of 16 inputs: what W1 is filled up to

// Of kGroupSteps the least that hold `dim` inputs; 0: W1 is too large.
constexpr int group_steps(std::int64_t dim) {
    for (const int steps : kGroupSteps) {
        if (dim <= 16 * steps) return steps;
    }
    return 0;
}

// As mlp_layout. Two groups, unless one to a multiprocessor takes all rows; no warps: W1 and W2 do not fit.
constexpr Layout group_layout(std::int64_t dim, std::int64_t rows, int multiprocessors, int shared_limit) {
    const int steps = group_steps(dim);
    const int bytes = (static_cast<int>(kW2Values) + steps * kStepValues) * 2;
    if (steps == 0 || bytes > shared_limit) return {0, 0, 0};
    const bool one = rows <= std::int64_t{kGroupWarps} * kTileRows * multiprocessors;
    return {one ? kGroupWarps : 2 * kGroupWarps, steps, bytes};
}

// Calls body.operator()<steps>() for the `steps` of group_steps.
template <typename Body>
void with_group_steps(int steps, const Body& body) {
    if (steps == kGroupSteps[0]) return body.template operator()<kGroupSteps[0]>();
    if (steps == kGroupSteps[1]) return body.template operator()<kGroupSteps[1]>();
    body.template operator()<kGroupSteps[2]>();
}

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
