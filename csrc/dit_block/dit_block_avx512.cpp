#include "dit_block/dit_block.inl.h"
#include "dit_block/lanes_avx512.h"

namespace fastimpute::avx512 {

using Lanes = TokenLanes<Simd>;

std::int64_t dit_scratch(const PackedDit& block, std::int64_t tokens, std::int64_t memory_tokens) {
    return fastimpute::dit_scratch<Lanes, FloatOperand<Lanes>>(block, tokens, memory_tokens);
}

void dit_sequence(const PackedDit& block, const DitBlockArgs<float>& args, std::int64_t sequence, float* scratch) {
    fastimpute::dit_sequence<Lanes, FloatOperand<Lanes>>(block, args, sequence, scratch);
}

}  // namespace fastimpute::avx512
