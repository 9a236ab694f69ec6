#include "common/simd_avx512.h"
#include "score_mlp/score_mlp.inl.h"

namespace fastimpute::avx512 {

std::int64_t score_scratch(const PackedMlp& mlp, std::int64_t rows) {
    return fastimpute::score_scratch<Simd, FloatOperand<Simd>>(mlp, rows);
}

void score_block(const PackedMlp& mlp, const ScoreMlpArgs<float>& args, std::int64_t begin, std::int64_t end,
                 float* scratch) {
    fastimpute::score_block<Simd, FloatOperand<Simd>>(mlp, args, begin, end, scratch);
}

}  // namespace fastimpute::avx512
