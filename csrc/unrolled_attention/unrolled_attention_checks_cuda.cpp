#include "common/errors.h"
#include "unrolled_attention/sequence_layout.h"
#include "unrolled_attention/unrolled_attention_cuda.h"

namespace fastimpute::cuda {

std::optional<std::string> unrolled_attention_refusal(std::int64_t frames, std::int64_t channels, int shared_limit) {
    if (frames > kMostFrames)
        return "the sequences have " + std::to_string(frames) + " frames, the kernel takes up to " +
               std::to_string(kMostFrames);
    return with_sequence_shape(frames, [&]<class Shape>() -> std::optional<std::string> {
        constexpr int kMost = kMostSequenceWarps * Shape::kWarpLines;
        if (channels > kMost)
            return "the sequences of " + std::to_string(frames) + " frames have " + std::to_string(channels) +
                   " channels, the kernel takes up to " + std::to_string(kMost);
        const int bytes = layout_of<Shape>(channels).shared_bytes;
        if (bytes > shared_limit)
            return "sequences of " + std::to_string(frames) + " frames and " + std::to_string(channels) +
                   " channels need " + std::to_string(bytes) + " bytes of shared memory, a block may have " +
                   std::to_string(shared_limit);
        return std::nullopt;
    });
}

void check_unrolled_attention(const UnrolledAttentionCuda& call, int shared_limit) {
    constexpr const char* kOp = "unrolled_attention";
    fastimpute::check_unrolled_attention(call.args);
    if ((call.decay == nullptr) != (call.weight == nullptr))
        throw_invalid(kOp, "links", "decay and weight, or none", "one of both");
    const auto refusal = unrolled_attention_refusal(call.args.frames, call.args.channels, shared_limit);
    if (refusal) throw_invalid(kOp, "shape", "one that the kernel takes", *refusal);
}

}  // namespace fastimpute::cuda
