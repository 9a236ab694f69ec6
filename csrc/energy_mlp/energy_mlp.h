#pragma once

#include <cstdint>

#include "common/mlp.h"
#include "common/packed_mlp.h"

namespace fastimpute {

class MlpPack;

// log p, its input gradient (score) and Hessian-vector product of the energy network, in one pass over the rows.
// Strides are in elements between rows; inside a row elements are contiguous. Every element of the outputs' rows is
// written, nothing between or behind them. `rows` may be zero.
template <typename T>
struct EnergyMlpArgs {
    std::int64_t rows;
    const T* x;  // (rows, dim)
    std::int64_t x_stride;
    Modulation<T> modulation;
    const T* vector;  // (rows, dim); null: the score itself
    std::int64_t vector_stride;
    bool want_hvp;
    T* log_p;  // (rows)
    T* score;  // (rows, dim)
    std::int64_t score_stride;
    T* hvp;  // (rows, dim), written when want_hvp; may be null otherwise
    std::int64_t hvp_stride;
};

// Throws std::invalid_argument naming the argument. Same bits for any `threads` and any split of the rows.
void energy_mlp(const MlpPack& pack, int threads, const EnergyMlpArgs<float>& args);

// The scalar oracle: no packing, no centring, sums in order.
template <typename T>
void energy_mlp_ref(const MlpWeights<T>& weights, const EnergyMlpArgs<T>& args);

// One block of rows in one thread, without checks; see MlpKernels.
namespace avx2 {
std::int64_t energy_scratch(const PackedMlp& mlp, std::int64_t rows, bool want_hvp);
void energy_block(const PackedMlp& mlp, const EnergyMlpArgs<float>& args, std::int64_t begin, std::int64_t end,
                  float* scratch);
}  // namespace avx2
namespace avx512 {
std::int64_t energy_scratch(const PackedMlp& mlp, std::int64_t rows, bool want_hvp);
void energy_block(const PackedMlp& mlp, const EnergyMlpArgs<float>& args, std::int64_t begin, std::int64_t end,
                  float* scratch);
}  // namespace avx512
namespace avx512bf16 {
std::int64_t energy_scratch(const PackedMlp& mlp, std::int64_t rows, bool want_hvp);
void energy_block(const PackedMlp& mlp, const EnergyMlpArgs<float>& args, std::int64_t begin, std::int64_t end,
                  float* scratch);
}  // namespace avx512bf16

}  // namespace fastimpute
