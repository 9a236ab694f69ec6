#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "energy_mlp/energy_mlp.h"

namespace fastimpute::cuda {

inline constexpr int kHidden = 256;
inline constexpr std::int64_t kMaxDim = 2048;

// The network as the kernel reads it. Matrices are bfloat16 in blocks of 8 x 8 (outputs x inputs, rows of 16 bytes),
// blocks of one range of inputs beside each other: a block row serves ldmatrix in both directions without conflicts.
// W1, W2, b1 and b2 are centred over their outputs, so that LayerNorm needs no mean, in no direction.
struct EnergyWeights {
    std::int64_t dim;
    const std::uint16_t* w1;  // round_up(dim, 16) inputs, zeros behind dim
    const std::uint16_t* w2;
    const float* b1;
    const float* b2;
    const float* w3;
    const float* b3;
};

// Bytes of a packed network, and the network packed into `out` on the host: to be copied to the device as it is.
// Throws std::invalid_argument unless hidden is 256, 1 <= dim <= 2048, and there is no Gaussian part.
std::int64_t energy_pack_bytes(std::int64_t dim);
void pack_energy(const MlpWeights<float>& weights, void* out);
EnergyWeights unpack_energy(std::int64_t dim, const void* pack);

// `energy_mlp` with bfloat16 operands and float32 sums on the current device: addresses are the device's, `pack` begins
// on 16 bytes, `stream` is a cudaStream_t. modulation.index is not checked. `scratch` is for this call alone and holds
// at least energy_scratch_bytes on this device.
struct EnergyMlpCuda {
    EnergyMlpArgs<float> args;
    std::int64_t dim;
    const void* pack;
    void* scratch;
    std::int64_t scratch_bytes;
};
std::int64_t energy_scratch_bytes(bool want_hvp);
// Why the kernel cannot take such a network, given so much shared memory for a block; none when it can.
std::optional<std::string> energy_refusal(std::int64_t hidden, std::int64_t dim, bool gaussian, int shared_limit);
// Bytes of shared memory a block may have on the current device.
int shared_limit();
void energy_mlp(const EnergyMlpCuda& call, std::uintptr_t stream);

}  // namespace fastimpute::cuda
