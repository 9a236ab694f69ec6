#include <cstring>
#include <vector>

#include "common/errors.h"
#include "common/packed_mlp.h"
#include "energy_mlp/energy_job.cuh"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "energy_mlp";
constexpr std::int64_t kVectors = 3 * kHidden + 4;  // b1, b2, w3, b3, padded to 16 bytes

// To nearest, ties to even; NaN stays NaN.
std::uint16_t to_bf16(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    return static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

std::int64_t matrix_values(std::int64_t inputs) { return round_up(inputs, 16) * kHidden; }

// `values`: (kHidden, inputs), row-major.
void pack_matrix(const float* values, std::int64_t inputs, std::uint16_t* out) {
    std::memset(out, 0, static_cast<std::size_t>(matrix_values(inputs)) * sizeof(*out));
    for (std::int64_t input = 0; input < inputs; ++input) {
        double mean = 0;
        for (std::int64_t output = 0; output < kHidden; ++output) mean += values[output * inputs + input];
        mean /= kHidden;
        for (std::int64_t output = 0; output < kHidden; ++output) {
            const std::int64_t block = input / 8 * (kHidden / 8) + output / 8;
            out[block * 64 + output % 8 * 8 + input % 8] =
                to_bf16(static_cast<float>(values[output * inputs + input] - mean));
        }
    }
}

void pack_bias(const float* bias, float* out) {
    double mean = 0;
    for (std::int64_t i = 0; i < kHidden; ++i) mean += bias[i];
    mean /= kHidden;
    for (std::int64_t i = 0; i < kHidden; ++i) out[i] = static_cast<float>(bias[i] - mean);
}

}  // namespace

std::int64_t energy_pack_bytes(std::int64_t dim) {
    if (dim < 1 || dim > kMaxDim) throw_invalid(kOp, "dim", "in [1, 2048]", static_cast<long long>(dim));
    return (matrix_values(dim) + matrix_values(kHidden)) * 2 + kVectors * 4;
}

EnergyWeights unpack_energy(std::int64_t dim, const void* pack) {
    const auto* w1 = static_cast<const std::uint16_t*>(pack);
    const std::uint16_t* w2 = w1 + matrix_values(dim);
    const auto* b1 = reinterpret_cast<const float*>(w2 + matrix_values(kHidden));
    return {dim, w1, w2, b1, b1 + kHidden, b1 + 2 * kHidden, b1 + 3 * kHidden};
}

std::optional<std::string> energy_refusal(std::int64_t hidden, std::int64_t dim, bool gaussian, int shared_limit) {
    if (hidden != kHidden)
        return "hidden width is " + std::to_string(hidden) + ", the kernel takes " + std::to_string(kHidden);
    if (dim < 1 || dim > kMaxDim)
        return "the particles have " + std::to_string(dim) + " cells, the kernel takes 1 to " + std::to_string(kMaxDim);
    if (gaussian) return "there is a Gaussian part, which the kernel does not take";
    if (energy_layout(dim, shared_limit).warps == 0)
        return "the device has " + std::to_string(shared_limit / 1024) +
               " KB of shared memory for a block, too little for the network";
    return std::nullopt;
}

void pack_energy(const MlpWeights<float>& weights, void* out) {
    energy_pack_bytes(weights.dim);
    if (weights.hidden != kHidden) throw_invalid(kOp, "hidden", "256", static_cast<long long>(weights.hidden));
    if (weights.precision != nullptr) throw_invalid(kOp, "precision_matrix", "absent", "one");
    const EnergyWeights to = unpack_energy(weights.dim, out);
    pack_matrix(weights.w1, weights.dim, const_cast<std::uint16_t*>(to.w1));
    pack_matrix(weights.w2, kHidden, const_cast<std::uint16_t*>(to.w2));
    pack_bias(weights.b1, const_cast<float*>(to.b1));
    pack_bias(weights.b2, const_cast<float*>(to.b2));
    std::memcpy(const_cast<float*>(to.w3), weights.w3, kHidden * sizeof(float));
    const float tail[4] = {weights.b3[0], 0, 0, 0};
    std::memcpy(const_cast<float*>(to.b3), tail, sizeof(tail));
}

}  // namespace fastimpute::cuda
