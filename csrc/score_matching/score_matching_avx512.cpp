#include "common/simd_avx512.h"
#include "score_matching/score_matching.inl.h"

namespace fastimpute::avx512 {

void score_matching_slice(const ScoreMatchingChunk& chunk, std::int64_t begin, std::int64_t end, std::int64_t slice,
                          float* scratch) {
    ScoreMatchingSlice<Simd>(chunk, begin, end, slice, scratch).run();
}

void outer_block(const OuterProduct& product, std::int64_t rows, bool add, std::int64_t a_column,
                 std::int64_t b_column) {
    fastimpute::outer_block<Simd>(product, rows, add, a_column, b_column);
}

}  // namespace fastimpute::avx512
