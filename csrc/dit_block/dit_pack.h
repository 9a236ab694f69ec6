#pragma once

#include <vector>

#include "common/aligned_buffer.h"
#include "common/cpu_features.h"
#include "common/mlp.h"
#include "dit_block/dit_block.h"
#include "dit_block/packed_dit.h"

namespace fastimpute {

// Throws std::invalid_argument when no kernel has this combination.
const DitKernels* find_dit_kernels(Isa isa, Precision precision);

// One block's weights, copied and rearranged for one instruction set and precision. Immutable once built; may be shared
// by threads.
class DitPack {
  public:
    // Throws std::invalid_argument when the instruction set is unusable here, bfloat16 is asked of one that has none,
    // or the vector kernels cannot serve the sizes (widths multiples of 32, hidden up to 512, head size a multiple of 8
    // up to 64; "ref" takes any).
    DitPack(Isa isa, Precision precision, const DitWeights<float>& weights);

    Isa isa() const { return isa_; }
    // As given, for the scalar oracle.
    const DitWeights<float>& weights() const { return weights_; }
    const PackedDit& packed() const { return packed_; }
    // Null for "ref".
    const DitKernels* kernels() const { return kernels_; }
    // Whether the pack was made from these values (qkv, b_qkv, ... b_down), bit for bit; null: not compared.
    bool holds(const std::vector<const float*>& values) const;

  private:
    const float* keep(const float* values, std::int64_t count, float scale = 1.0f);
    RowTiles tiles(const float* weights, std::int64_t outputs, std::int64_t inputs, float scale = 1.0f);
    void pack();

    Isa isa_;
    DitWeights<float> weights_{};
    PackedDit packed_{};
    const DitKernels* kernels_ = nullptr;
    std::vector<AlignedBuffer<std::byte>> storage_;
};

}  // namespace fastimpute
