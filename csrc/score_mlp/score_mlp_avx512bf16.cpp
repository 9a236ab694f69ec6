#include "common/simd_avx512bf16.h"
#include "score_mlp/score_mlp.inl.h"

namespace fastimpute::avx512bf16 {

std::int64_t score_scratch(const PackedMlp& mlp, std::int64_t rows) {
    return fastimpute::score_scratch<Simd, Bf16Operand>(mlp, rows);
}

void score_block(const PackedMlp& mlp, const ScoreMlpArgs<float>& args, std::int64_t begin, std::int64_t end,
                 float* scratch) {
    fastimpute::score_block<Simd, Bf16Operand>(mlp, args, begin, end, scratch);
}

}  // namespace fastimpute::avx512bf16
