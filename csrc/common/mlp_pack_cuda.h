#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/mlp.h"

namespace fastimpute::cuda {

inline constexpr int kHidden = 256;
inline constexpr std::int64_t kMaxDim = 2048;

// A network as the kernels read it. Matrices are bfloat16 in blocks of 8 x 8 (outputs x inputs, rows of 16 bytes),
// blocks of one range of inputs beside each other: a block row serves ldmatrix in both directions without conflicts.
// W1, W2, b1 and b2 are centred over their outputs, so that LayerNorm needs no mean, in no direction.
struct MlpCuda {
    std::int64_t dim;
    const std::uint16_t* inputs;  // W1; behind it, direct head: W3^T. Each round_up(dim, 16) inputs, zeros behind dim
    const std::uint16_t* w2;
    const float* b1;
    const float* b2;
    const float* w3;  // energy head: (kHidden); direct head: null
    const float* b3;  // energy head: (1); direct head: (dim)
    // The Gaussian part, no part of the pack: (dim, dim), symmetric, and (dim). Null: none.
    const float* precision = nullptr;
    const float* mean = nullptr;

    MlpCuda with_gaussian(const float* precision_matrix, const float* its_mean) const {
        MlpCuda both = *this;
        both.precision = precision_matrix;
        both.mean = its_mean;
        return both;
    }
};

// Bytes of a packed network, and the network packed into `out` on the host: to be copied to the device as it is.
// Throws std::invalid_argument unless hidden is 256 and 1 <= dim <= 2048.
std::int64_t mlp_pack_bytes(Head head, std::int64_t dim);
void pack_mlp(Head head, const MlpWeights<float>& weights, void* out);
MlpCuda unpack_mlp(Head head, std::int64_t dim, const void* pack);

// Why the kernels cannot take such a network, given so much shared memory for a block; none when they can.
std::optional<std::string> mlp_refusal(Head head, std::int64_t hidden, std::int64_t dim, int shared_limit);
// Throws std::invalid_argument naming the argument unless both are given, or none.
void check_gaussian(const char* op, const float* precision, const float* mean);
// Bytes of shared memory a block may have on the current device.
int shared_limit();

}  // namespace fastimpute::cuda
