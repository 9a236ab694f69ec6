#pragma once

#include <cstdint>

#include "common/cpu_features.h"
#include "dit_block/dit_block.h"

namespace fastimpute {

// Gradients of sum(out_gradient * dit_block(...)) by all that the block read, each dense and laid out like its
// argument. Every element is written.
template <typename T>
struct DitBlockGradients {
    T* x;           // (sequences, tokens, hidden)
    T* modulation;  // (modulation_rows, 6, hidden)
    T* qkv;         // (3 hidden, hidden)
    T* b_qkv;
    T* proj;  // (hidden, hidden)
    T* b_proj;
    T* up;  // (inner, hidden)
    T* b_up;
    T* down;  // (hidden, inner)
    T* b_down;
    T* bias;    // (bias_rows, heads, tokens + memory_tokens, tokens), a key's row for all queries; null: not wanted
    T* memory;  // (memory_rows, memory_tokens, 2 hidden); null: not wanted, or no memory
};

// Runs the block again and then backwards: nothing but its arguments need be kept from the first run. `args.out` is not
// used. Sums over sequences are taken in an order that does not depend on `threads`. Throws std::invalid_argument
// naming the argument.
//
// Floors for n sequences of t tokens and m further keys, width h, MLP 4 h: 24 h^2 + 4 h (t + m) FLOPs a token forward,
// of which 16 h^2 + 4 h (t + m) are done again, and 48 h^2 + 10 h (t + m) back; 12 bytes a value of x.
void dit_block_gradient(Isa isa, const DitWeights<float>& weights, int threads, const DitBlockArgs<float>& args,
                        const float* out_gradient, const DitBlockGradients<float>& gradients);

}  // namespace fastimpute
