#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "unrolled_attention/unrolled_attention.h"

namespace fastimpute::cuda {

// `unrolled_attention` on the current device: addresses are the device's, `stream` is a cudaStream_t. The variances are
// not checked; args.length is not read. Same bits for any split of the sequences.
struct UnrolledAttentionCuda {
    UnrolledAttention<float> args;
    // By gap between neighbouring frames seen, `frames` long, as in UnrolledPlan; null: no preconditioner.
    const float* decay = nullptr;
    const float* weight = nullptr;
};
void unrolled_attention(const UnrolledAttentionCuda& call, std::uintptr_t stream);

// Why the kernel cannot take such sequences, given so much shared memory for a block; none when it can.
std::optional<std::string> unrolled_attention_refusal(std::int64_t frames, std::int64_t channels, int shared_limit);

// Throws std::invalid_argument naming the argument.
void check_unrolled_attention(const UnrolledAttentionCuda& call, int shared_limit);

}  // namespace fastimpute::cuda
