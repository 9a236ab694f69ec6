#pragma once

#include <cstdint>

#include "score_mlp/score_mlp.h"

namespace fastimpute::cuda {

// `score_mlp` with bfloat16 operands and float32 sums on the current device: addresses are the device's, `pack` (of
// pack_mlp) begins on 16 bytes, `stream` is a cudaStream_t. modulation.index is not checked.
struct ScoreMlpCuda {
    ScoreMlpArgs<float> args;
    std::int64_t dim;
    const void* pack;
    const float* precision;  // the Gaussian part; null: none
    const float* mean;
};
void score_mlp(const ScoreMlpCuda& call, std::uintptr_t stream);

}  // namespace fastimpute::cuda
