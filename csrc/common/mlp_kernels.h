#pragma once

#include <cstdint>

#include "common/cpu_features.h"
#include "common/mlp.h"
#include "common/packed_mlp.h"

namespace fastimpute {

template <typename T>
struct EnergyMlpArgs;
template <typename T>
struct ScoreMlpArgs;

// One instruction set and precision: rows [begin, end) in one thread, on scratch memory the caller owns.
// A block holds at most `block_rows` rows (`block_rows_hvp` with the Hessian-vector product).
struct MlpKernels {
    PackLayout layout;
    std::int64_t block_rows;
    std::int64_t block_rows_hvp;
    // Floats of scratch for `rows` rows; 64-byte aligned memory.
    std::int64_t (*energy_scratch)(const PackedMlp& mlp, std::int64_t rows, bool want_hvp);
    void (*energy_block)(const PackedMlp& mlp, const EnergyMlpArgs<float>& args, std::int64_t begin, std::int64_t end,
                         float* scratch);
    std::int64_t (*score_scratch)(const PackedMlp& mlp, std::int64_t rows);
    void (*score_block)(const PackedMlp& mlp, const ScoreMlpArgs<float>& args, std::int64_t begin, std::int64_t end,
                        float* scratch);
};

// Throws std::invalid_argument when no kernel has this combination.
const MlpKernels* find_mlp_kernels(Isa isa, Precision precision);

}  // namespace fastimpute
