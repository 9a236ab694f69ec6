#include "dit_block/lanes_avx2.h"
#include "dit_block_gradient/dit_block_gradient.inl.h"

namespace fastimpute::avx2 {

using Lanes = TokenLanes;

std::int64_t dit_gradient_scratch(const DitGradientTask& task) { return fastimpute::dit_gradient_scratch<Lanes>(task); }

void dit_gradient_sequence(const DitGradientTask& task, std::int64_t sequence, float* scratch) {
    fastimpute::dit_gradient_sequence<Lanes>(task, sequence, scratch);
}

}  // namespace fastimpute::avx2
