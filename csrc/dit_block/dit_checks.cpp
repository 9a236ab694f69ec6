#include "dit_block/dit_checks.h"

#include <array>
#include <string>
#include <utility>

#include "common/errors.h"

namespace fastimpute {
namespace {

void check_tokens(std::string_view op, std::string_view name, std::int64_t count) {
    if (count < 0 || count > kMaxDitTokens) {
        throw_invalid(op, name, "in [0, " + std::to_string(kMaxDitTokens) + "]", static_cast<long long>(count));
    }
}

// Rows shared by the sequences.
void check_shared(std::string_view op, std::string_view name, std::int64_t rows, std::int64_t sequences) {
    if (rows < 1 || sequences % rows != 0) {
        throw_invalid(op, name, "a divisor of sequences = " + std::to_string(sequences), static_cast<long long>(rows));
    }
}

}  // namespace

void check_dit_address(std::string_view op, std::string_view name, const void* data) {
    if (data == nullptr) throw_invalid(op, name, "an address", std::string_view("null"));
}

void check_dit_weights(std::string_view op, const DitWeights<float>& weights) {
    if (weights.hidden < 1) throw_invalid(op, "hidden", "at least 1", static_cast<long long>(weights.hidden));
    if (weights.inner < 1) throw_invalid(op, "inner", "at least 1", static_cast<long long>(weights.inner));
    if (weights.heads < 1 || weights.hidden % weights.heads != 0) {
        throw_invalid(op, "heads", "a divisor of hidden = " + std::to_string(weights.hidden),
                      static_cast<long long>(weights.heads));
    }
    const std::array<std::pair<std::string_view, const float*>, 8> arrays = {{{"w_qkv", weights.qkv},
                                                                              {"b_qkv", weights.b_qkv},
                                                                              {"w_proj", weights.proj},
                                                                              {"b_proj", weights.b_proj},
                                                                              {"w_up", weights.up},
                                                                              {"b_up", weights.b_up},
                                                                              {"w_down", weights.down},
                                                                              {"b_down", weights.b_down}}};
    for (const auto& [name, data] : arrays) check_dit_address(op, name, data);
}

void check_dit_vector_sizes(std::string_view op, const DitWeights<float>& weights) {
    const std::int64_t hidden = weights.hidden, head = hidden / weights.heads;
    if (hidden % 32 != 0 || hidden > kMaxDitHidden) {
        throw_invalid(op, "hidden", "a multiple of 32 up to 512 for the vector kernels",
                      static_cast<long long>(hidden));
    }
    if (weights.inner % 32 != 0) {
        throw_invalid(op, "inner", "a multiple of 32 for the vector kernels", static_cast<long long>(weights.inner));
    }
    if (head % 8 != 0 || head > kMaxHeadSize) {
        throw_invalid(op, "head size", "a multiple of 8 up to 64 for the vector kernels", static_cast<long long>(head));
    }
}

bool check_dit_counts(std::string_view op, const DitBlockArgs<float>& args) {
    if (args.sequences < 0) throw_invalid(op, "sequences", "at least 0", static_cast<long long>(args.sequences));
    check_tokens(op, "tokens", args.tokens);
    check_tokens(op, "memory_tokens", args.memory_tokens);
    return args.sequences > 0 && args.tokens > 0;
}

void check_dit_inputs(std::string_view op, const DitBlockArgs<float>& args) {
    check_dit_address(op, "x", args.x);
    check_dit_address(op, "modulation", args.modulation);
    check_shared(op, "modulation_rows", args.modulation_rows, args.sequences);
    if (args.bias != nullptr) check_shared(op, "bias_rows", args.bias_rows, args.sequences);
    if (args.memory_tokens > 0) {
        check_dit_address(op, "memory", args.memory);
        check_shared(op, "memory_rows", args.memory_rows, args.sequences);
    }
}

}  // namespace fastimpute
