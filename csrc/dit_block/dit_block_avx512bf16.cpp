#include "dit_block/bf16_rows.h"
#include "dit_block/dit_block.inl.h"
#include "dit_block/lanes_avx512.h"

namespace fastimpute::avx512bf16 {

using Lanes = avx512::TokenLanes<Simd>;

std::int64_t dit_scratch(const PackedDit& block, std::int64_t tokens, std::int64_t memory_tokens) {
    return fastimpute::dit_scratch<Lanes, Bf16Rows>(block, tokens, memory_tokens);
}

void dit_sequence(const PackedDit& block, const DitBlockArgs<float>& args, std::int64_t sequence, float* scratch) {
    fastimpute::dit_sequence<Lanes, Bf16Rows>(block, args, sequence, scratch);
}

}  // namespace fastimpute::avx512bf16
