#pragma once

#include <cstdint>
#include <vector>

#include "common/mlp.h"
#include "common/packed_mlp.h"
#include "common/phases.h"

namespace fastimpute {

// The direct network's weights in panels for both directions. Weights change with every step of training, so this is
// part of each step: in parallel, and by small transposes.
class TrainingPack {
  public:
    static std::int64_t floats(std::int64_t hidden, std::int64_t dim, const PackLayout& layout);

    // In `memory`, 64-byte aligned. The phases that fill it are still to run; `weights` is read then.
    TrainingPack(const MlpWeights<float>& weights, const PackLayout& layout, float* memory);

    const PackedMlp& packed() const { return packed_; }

    // Means over the outputs, for the centring; then the panels. Valid while this object is.
    Phase means() const;
    Phase panels() const;

  private:
    // One panel: element (i, o) is source[i * input_stride + o * output_stride] - mean[i].
    struct Panel {
        const float* source;
        std::int64_t input_stride;
        std::int64_t output_stride;
        const float* mean;  // null: zeros
        std::int64_t inputs;
        std::int64_t outputs;  // those beyond, up to `width`, are zero
        std::int64_t width;
        float* target;  // (inputs, width)

        void fill() const;
        void fill_row(std::int64_t i, std::int64_t first) const;
        void transpose(std::int64_t i, std::int64_t o) const;
    };

    void cut(const Panel& whole, const PackLayout& layout);

    MlpWeights<float> weights_;
    float* mean1_;
    float* mean2_;
    std::vector<Panel> panels_;
    PackedMlp packed_{};
};

}  // namespace fastimpute
