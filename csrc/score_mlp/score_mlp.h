#pragma once

#include <cstdint>

#include "common/mlp.h"
#include "common/packed_mlp.h"

namespace fastimpute {

class MlpPack;

// Score of the direct network: (w3 h2 + b3) / sigma [- precision (x - mean)], forward only. Strides in elements between
// rows. Every element of the output's rows is written, nothing between or behind them. `rows` may be zero.
template <typename T>
struct ScoreMlpArgs {
    std::int64_t rows;
    const T* x;  // (rows, dim)
    std::int64_t x_stride;
    const T* sigma;  // (rows), positive
    Modulation<T> modulation;
    T* score;  // (rows, dim)
    std::int64_t score_stride;
};

// Throws std::invalid_argument naming the argument. Same bits for any `threads` and any split of the rows.
void score_mlp(const MlpPack& pack, int threads, const ScoreMlpArgs<float>& args);

// The scalar oracle: no packing, no centring, sums in order.
template <typename T>
void score_mlp_ref(const MlpWeights<T>& weights, const ScoreMlpArgs<T>& args);

// One block of rows in one thread, without checks; see MlpKernels.
namespace avx2 {
std::int64_t score_scratch(const PackedMlp& mlp, std::int64_t rows);
void score_block(const PackedMlp& mlp, const ScoreMlpArgs<float>& args, std::int64_t begin, std::int64_t end,
                 float* scratch);
}  // namespace avx2
namespace avx512 {
std::int64_t score_scratch(const PackedMlp& mlp, std::int64_t rows);
void score_block(const PackedMlp& mlp, const ScoreMlpArgs<float>& args, std::int64_t begin, std::int64_t end,
                 float* scratch);
}  // namespace avx512
namespace avx512bf16 {
std::int64_t score_scratch(const PackedMlp& mlp, std::int64_t rows);
void score_block(const PackedMlp& mlp, const ScoreMlpArgs<float>& args, std::int64_t begin, std::int64_t end,
                 float* scratch);
}  // namespace avx512bf16

}  // namespace fastimpute
