#include "common/simd_avx512.h"
#include "unrolled_attention/unrolled_attention.inl.h"

namespace fastimpute::avx512 {

std::int64_t unrolled_scratch(const UnrolledAttention<float>& params) { return UnrolledTile<Simd>::scratch(params); }

void unrolled_solve(const UnrolledAttention<float>& params, const UnrolledPlan<float>& plan, std::int64_t begin,
                    std::int64_t end, float* scratch) {
    UnrolledTile<Simd>(params, plan, begin, end, scratch).solve();
}

}  // namespace fastimpute::avx512
