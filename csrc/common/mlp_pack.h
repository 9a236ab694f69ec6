#pragma once

#include <vector>

#include "common/aligned_buffer.h"
#include "common/cpu_features.h"
#include "common/mlp.h"
#include "common/packed_mlp.h"

namespace fastimpute {

struct MlpKernels;

// One network's weights, copied and rearranged for one instruction set and precision. Immutable once built; may be
// shared by threads.
class MlpPack {
  public:
    // Throws std::invalid_argument when the instruction set is unusable here, bfloat16 is asked of one that has none,
    // or the vector kernels cannot serve the width (a multiple of 32 up to 1024; "ref" takes any).
    MlpPack(Isa isa, Precision precision, Head head, const MlpWeights<float>& weights);

    Isa isa() const { return isa_; }
    Precision precision() const { return precision_; }
    Head head() const { return head_; }
    std::int64_t hidden() const { return weights_.hidden; }
    std::int64_t dim() const { return weights_.dim; }
    // The network as given, for the scalar oracle.
    const MlpWeights<float>& weights() const { return weights_; }
    const PackedMlp& packed() const { return packed_; }
    // Null for "ref".
    const MlpKernels* kernels() const { return kernels_; }

  private:
    void keep_weights(const MlpWeights<float>& weights);
    void pack();
    PackedMatrix pack_matrix(const float* b, std::int64_t inputs, std::int64_t outputs, std::int64_t input_stride,
                             std::int64_t output_stride, PackLayout layout);
    const float* keep_vector(const float* values, std::int64_t size, std::int64_t padded);

    Isa isa_;
    Precision precision_;
    Head head_;
    MlpWeights<float> weights_{};
    PackedMlp packed_{};
    const MlpKernels* kernels_ = nullptr;
    std::vector<AlignedBuffer<std::byte>> storage_;
};

}  // namespace fastimpute
