#pragma once

#include <cstdint>

namespace fastimpute {

class DitPack;

inline constexpr std::int64_t kMaxDitTokens = 288;
inline constexpr std::int64_t kMaxDitHidden = 512;
inline constexpr std::int64_t kMaxHeadSize = 64;

// Weights laid out like torch.nn.Linear: (outputs, inputs), row-major and dense. No member owns memory.
template <typename T>
struct DitWeights {
    std::int64_t hidden;
    std::int64_t heads;
    std::int64_t inner;  // width of the MLP
    const T* qkv;        // (3 hidden, hidden): queries, keys, values
    const T* b_qkv;
    const T* proj;  // (hidden, hidden)
    const T* b_proj;
    const T* up;  // (inner, hidden)
    const T* b_up;
    const T* down;  // (hidden, inner)
    const T* b_down;
};

// x <- x + gate1 (proj attention(LN(x) (1 + gain1) + shift1) + b_proj)
// out = x + gate2 (down GELU(up (LN(x) (1 + gain2) + shift2) + b_up) + b_down), GELU in its tanh form.
// What is shared by sequences has fewer rows than there are: sequence i reads row i modulo their number. Arrays are
// dense unless a stride (in elements) is named. Every element of the output is written.
template <typename T>
struct DitBlockArgs {
    std::int64_t sequences;
    std::int64_t tokens;
    const T* x;           // (sequences, tokens, hidden)
    const T* modulation;  // (modulation_rows, 6, hidden): gain1, shift1, gate1, gain2, shift2, gate2
    std::int64_t modulation_rows;
    const T* bias;  // (bias_rows, heads, tokens + memory_tokens, tokens), a key's row for all queries; null: none
    std::int64_t bias_rows;
    std::int64_t bias_stride;
    std::int64_t bias_head_stride;
    std::int64_t bias_key_stride;
    const std::uint8_t* absent;  // (sequences, tokens), nonzero: no key; null: all are. Without any key attention is 0.
    const T* memory;             // (memory_rows, memory_tokens, 2 hidden): further keys, then values; null: none
    std::int64_t memory_rows;
    std::int64_t memory_tokens;
    T* out;  // (sequences, tokens, hidden), may be x itself
};

// Throws std::invalid_argument naming the argument. Same bits for any `threads` and any split of the sequences.
void dit_block(const DitPack& pack, int threads, const DitBlockArgs<float>& args);

// The scalar oracle: no packing, sums in order. Any sizes.
template <typename T>
void dit_block_ref(const DitWeights<T>& weights, const DitBlockArgs<T>& args);

}  // namespace fastimpute
