#include "common/mlp_pack_cuda.h"

#include <cstring>

#include "common/errors.h"
#include "common/mlp_tile.cuh"
#include "common/packed_mlp.h"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOwner = "pack_mlp";

// To nearest, ties to even; NaN stays NaN.
std::uint16_t to_bf16(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    return static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

std::int64_t matrix_values(std::int64_t inputs) { return round_up(inputs, 16) * kHidden; }
std::int64_t tail_values(Head head, std::int64_t dim) {  // w3 and b3, padded to 16 bytes
    return head == Head::kDirect ? round_up(dim, 16) : kHidden + 4;
}

// value(output, input) for kHidden outputs.
template <typename Value>
void pack_matrix(std::int64_t inputs, bool centred, const Value& value, std::uint16_t* out) {
    std::memset(out, 0, static_cast<std::size_t>(matrix_values(inputs)) * sizeof(*out));
    for (std::int64_t input = 0; input < inputs; ++input) {
        double mean = 0;
        for (std::int64_t output = 0; centred && output < kHidden; ++output) mean += value(output, input);
        mean /= kHidden;
        for (std::int64_t output = 0; output < kHidden; ++output) {
            const std::int64_t block = input / 8 * (kHidden / 8) + output / 8;
            out[block * 64 + output % 8 * 8 + input % 8] = to_bf16(static_cast<float>(value(output, input) - mean));
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

std::int64_t mlp_pack_bytes(Head head, std::int64_t dim) {
    if (dim < 1 || dim > kMaxDim) throw_invalid(kOwner, "dim", "in [1, 2048]", static_cast<long long>(dim));
    const std::int64_t matrices = input_matrices(head) * matrix_values(dim) + matrix_values(kHidden);
    return matrices * 2 + (2 * kHidden + tail_values(head, dim)) * 4;
}

MlpCuda unpack_mlp(Head head, std::int64_t dim, const void* pack) {
    const auto* inputs = static_cast<const std::uint16_t*>(pack);
    const std::uint16_t* w2 = inputs + input_matrices(head) * matrix_values(dim);
    const auto* b1 = reinterpret_cast<const float*>(w2 + matrix_values(kHidden));
    const float* tail = b1 + 2 * kHidden;
    if (head == Head::kDirect) return {dim, inputs, w2, b1, b1 + kHidden, nullptr, tail};
    return {dim, inputs, w2, b1, b1 + kHidden, tail, tail + kHidden};
}

void pack_mlp(Head head, const MlpWeights<float>& weights, void* out) {
    std::memset(out, 0, static_cast<std::size_t>(mlp_pack_bytes(head, weights.dim)));
    if (weights.hidden != kHidden) throw_invalid(kOwner, "hidden", "256", static_cast<long long>(weights.hidden));
    const std::int64_t dim = weights.dim;
    const MlpCuda to = unpack_mlp(head, dim, out);
    auto* w1 = const_cast<std::uint16_t*>(to.inputs);
    pack_matrix(dim, true, [&](auto o, auto i) -> double { return weights.w1[o * dim + i]; }, w1);
    pack_matrix(
        kHidden, true, [&](auto o, auto i) -> double { return weights.w2[o * kHidden + i]; },
        const_cast<std::uint16_t*>(to.w2));
    pack_bias(weights.b1, const_cast<float*>(to.b1));
    pack_bias(weights.b2, const_cast<float*>(to.b2));
    if (head == Head::kDirect) {
        std::uint16_t* w3 = w1 + matrix_values(dim);
        pack_matrix(dim, false, [&](auto o, auto i) -> double { return weights.w3[i * kHidden + o]; }, w3);
        std::memcpy(const_cast<float*>(to.b3), weights.b3, static_cast<std::size_t>(dim) * sizeof(float));
    } else {
        std::memcpy(const_cast<float*>(to.w3), weights.w3, kHidden * sizeof(float));
        *const_cast<float*>(to.b3) = weights.b3[0];
    }
}

void check_gaussian(const char* op, const float* precision, const float* mean) {
    if ((precision == nullptr) != (mean == nullptr))
        throw_invalid(op, "precision_matrix", "given with mean", "only one of them");
}

std::optional<std::string> mlp_refusal(Head head, std::int64_t hidden, std::int64_t dim, int shared_limit) {
    if (hidden != kHidden)
        return "hidden width is " + std::to_string(hidden) + ", the kernel takes " + std::to_string(kHidden);
    if (dim < 1 || dim > kMaxDim)
        return "the particles have " + std::to_string(dim) + " cells, the kernel takes 1 to " + std::to_string(kMaxDim);
    if (mlp_layout(head, dim, shared_limit).warps == 0)
        return "the device has " + std::to_string(shared_limit / 1024) +
               " KB of shared memory for a block, too little for the network";
    return std::nullopt;
}

}  // namespace fastimpute::cuda
