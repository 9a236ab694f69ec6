#pragma once

#include <cstdint>

#include "dit_block/dit_block.h"

namespace fastimpute {

// What the kernels read and write: plain data, so that it may be included under any instruction set's flags.

// The weights with rows a little apart, since rows a power of two apart would share a cache set. The queries' rows are
// divided by sqrt(head size).
struct SpacedDit {
    std::int64_t hidden, heads, inner;
    std::int64_t hidden_stride, inner_stride;  // of rows with that many inputs
    const float* qkv;
    const float* b_qkv;
    const float* proj;
    const float* b_proj;
    const float* up;
    const float* b_up;
    const float* down;
    const float* down_turned;  // (inner, hidden), dense
    const float* b_down;
};

// What the sequences of one task add to.
struct DitSums {
    float* qkv;  // (3 hidden, hidden), by the scaled queries
    float* b_qkv;
    float* proj;
    float* b_proj;
    float* up;
    float* b_up;
    float* down_turned;  // (inner, hidden)
    float* b_down;
    float* bias;    // (bias_rows, heads, tokens + memory_tokens, tokens) or null
    float* memory;  // (memory_rows, memory_tokens, 2 hidden) or null
};

struct DitGradientTask {
    const DitBlockArgs<float>* args;
    const SpacedDit* block;
    const float* out_gradient;
    float* x;           // (sequences, tokens, hidden)
    float* modulation;  // (sequences, 6, hidden)
    DitSums sums;
};

// One sequence in one thread, on scratch memory the caller owns; floats of scratch, 64-byte aligned.
struct DitGradientKernels {
    std::int64_t (*scratch)(const DitGradientTask& task);
    void (*sequence)(const DitGradientTask& task, std::int64_t sequence, float* scratch);
};

namespace ref {
std::int64_t dit_gradient_scratch(const DitGradientTask& task);
void dit_gradient_sequence(const DitGradientTask& task, std::int64_t sequence, float* scratch);
}  // namespace ref
namespace avx2 {
std::int64_t dit_gradient_scratch(const DitGradientTask& task);
void dit_gradient_sequence(const DitGradientTask& task, std::int64_t sequence, float* scratch);
}  // namespace avx2
namespace avx512 {
std::int64_t dit_gradient_scratch(const DitGradientTask& task);
void dit_gradient_sequence(const DitGradientTask& task, std::int64_t sequence, float* scratch);
}  // namespace avx512

}  // namespace fastimpute
