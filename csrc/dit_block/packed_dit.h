#pragma once

#include <cstdint>

#include "dit_block/dit_block.h"

namespace fastimpute {

// What the kernels read: plain data, no library code, so that it may be included under any instruction set's flags.

// A matrix cut into tiles of output rows; a tile holds its inputs one after another (bfloat16: pairs of them), each for
// all rows of the tile, so the kernel streams it.
struct RowTiles {
    const void* data;
    std::int64_t inputs;
    std::int64_t outputs;
};

// The queries' rows are scaled by log2(e) / sqrt(head size): scores come out as exponents of two.
struct PackedDit {
    std::int64_t hidden;
    std::int64_t heads;
    std::int64_t inner;
    RowTiles query, key, value, proj, up, down;
    const float* b_query;
    const float* b_key;
    const float* b_value;
    const float* b_proj;
    const float* b_up;
    const float* b_down;
};

// One instruction set and precision: one sequence in one thread, on scratch memory the caller owns.
struct DitKernels {
    int tile_rows;
    int inputs_per_step;  // 2: bfloat16 in pairs
    // Floats of scratch; 64-byte aligned memory.
    std::int64_t (*scratch)(const PackedDit& block, std::int64_t tokens, std::int64_t memory_tokens);
    void (*sequence)(const PackedDit& block, const DitBlockArgs<float>& args, std::int64_t sequence, float* scratch);
};

namespace avx2 {
std::int64_t dit_scratch(const PackedDit& block, std::int64_t tokens, std::int64_t memory_tokens);
void dit_sequence(const PackedDit& block, const DitBlockArgs<float>& args, std::int64_t sequence, float* scratch);
}  // namespace avx2
namespace avx512 {
std::int64_t dit_scratch(const PackedDit& block, std::int64_t tokens, std::int64_t memory_tokens);
void dit_sequence(const PackedDit& block, const DitBlockArgs<float>& args, std::int64_t sequence, float* scratch);
}  // namespace avx512
namespace avx512bf16 {
std::int64_t dit_scratch(const PackedDit& block, std::int64_t tokens, std::int64_t memory_tokens);
void dit_sequence(const PackedDit& block, const DitBlockArgs<float>& args, std::int64_t sequence, float* scratch);
}  // namespace avx512bf16

}  // namespace fastimpute
