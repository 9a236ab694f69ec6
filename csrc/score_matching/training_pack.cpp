#include "score_matching/training_pack.h"

#include <algorithm>
#include <cstring>

#include "common/carver.h"

namespace fastimpute {
namespace {

constexpr std::int64_t kQuad = 4;

struct Quad {
    typedef float Vec __attribute__((vector_size(16)));

    static Vec load(const float* source) {
        Vec value;
        std::memcpy(&value, source, sizeof(value));
        return value;
    }
    static void store(float* target, Vec value) { std::memcpy(target, &value, sizeof(value)); }
};

std::int64_t padded_outputs(std::int64_t outputs, const PackLayout& layout) { return round_up(outputs, layout.lanes); }

// Means over the outputs (rows) of columns [begin, end) of w (outputs, columns).
void column_means(const float* w, std::int64_t outputs, std::int64_t columns, std::int64_t begin, std::int64_t end,
                  float* mean) {
    std::fill(mean + begin, mean + end, 0.0f);
    for (std::int64_t o = 0; o < outputs; ++o) {
        for (std::int64_t i = begin; i < end; ++i) mean[i] += w[o * columns + i];
    }
    for (std::int64_t i = begin; i < end; ++i) mean[i] /= static_cast<float>(outputs);
}

void centre(const float* b, std::int64_t size, float* out) {
    double sum = 0;
    for (std::int64_t i = 0; i < size; ++i) sum += b[i];
    for (std::int64_t i = 0; i < size; ++i) out[i] = static_cast<float>(b[i] - sum / static_cast<double>(size));
}

struct Pieces {
    float *w1, *w2, *w2_back, *w3, *w3_back, *b1, *b2, *b3, *mean1, *mean2;
    std::int64_t floats;

    Pieces(std::int64_t hidden, std::int64_t dim, const PackLayout& layout, float* memory) {
        Carver carver{memory};
        const std::int64_t wide = padded_outputs(hidden, layout), narrow = padded_outputs(dim, layout);
        w1 = carver.take<float>(dim * wide);
        w2 = carver.take<float>(hidden * wide);
        w2_back = carver.take<float>(hidden * wide);
        w3 = carver.take<float>(hidden * narrow);
        w3_back = carver.take<float>(dim * wide);
        b1 = carver.take<float>(wide);
        b2 = carver.take<float>(wide);
        b3 = carver.take<float>(round_up(dim, 3 * layout.lanes));
        mean1 = carver.take<float>(dim);
        mean2 = carver.take<float>(hidden);
        floats = carver.used;
    }
};

}  // namespace

// Four inputs by four outputs, inputs adjacent in the source and outputs in the target.
void TrainingPack::Panel::transpose(std::int64_t i, std::int64_t o) const {
    const float* from = source + i + o * output_stride;
    const Quad::Vec a = Quad::load(from), b = Quad::load(from + output_stride);
    const Quad::Vec c = Quad::load(from + 2 * output_stride), d = Quad::load(from + 3 * output_stride);
    const Quad::Vec low_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    const Quad::Vec low_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    const Quad::Vec high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const Quad::Vec high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    float* to = target + i * width + o;
    const auto store = [&](std::int64_t step, Quad::Vec values) {
        Quad::store(to + step * width, values - (mean ? mean[i + step] : 0.0f));
    };
    store(0, __builtin_shufflevector(low_ab, low_cd, 0, 1, 4, 5));
    store(1, __builtin_shufflevector(low_ab, low_cd, 2, 3, 6, 7));
    store(2, __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5));
    store(3, __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7));
}

void TrainingPack::Panel::fill_row(std::int64_t i, std::int64_t first) const {
    float* row = target + i * width;
    const float* from = source + i * input_stride;
    const float less = mean ? mean[i] : 0.0f;
    if (output_stride == 1) {  // a loop of its own: it becomes vectors
        for (std::int64_t o = first; o < outputs; ++o) row[o] = from[o] - less;
    } else {
        for (std::int64_t o = first; o < outputs; ++o) row[o] = from[o * output_stride] - less;
    }
    std::fill(row + outputs, row + width, 0.0f);
}

void TrainingPack::Panel::fill() const {
    const std::int64_t quads = input_stride == 1 ? inputs / kQuad * kQuad : 0;
    const std::int64_t full = outputs / kQuad * kQuad;
    for (std::int64_t i = 0; i < quads; i += kQuad) {
        for (std::int64_t o = 0; o < full; o += kQuad) transpose(i, o);
        for (std::int64_t step = 0; step < kQuad; ++step) fill_row(i + step, full);
    }
    for (std::int64_t i = quads; i < inputs; ++i) fill_row(i, 0);
}

// The panels of one matrix, see gemm.inl.h; `whole` is the matrix as one panel.
void TrainingPack::cut(const Panel& whole, const PackLayout& layout) {
    const std::int64_t vectors = padded_outputs(whole.outputs, layout) / layout.lanes;
    for (std::int64_t vector = 0; vector < vectors;) {
        const std::int64_t left = vectors - vector;
        const std::int64_t in_panel = left == 1 ? 1 : (vectors % 2 == 1 && left == layout.odd_panel) ? left : 2;
        const std::int64_t first = vector * layout.lanes;
        Panel panel = whole;
        panel.width = in_panel * layout.lanes;
        panel.source += first * whole.output_stride;
        panel.outputs = std::min(panel.width, whole.outputs - first);
        panel.target += first * whole.inputs;
        panels_.push_back(panel);
        vector += in_panel;
    }
}

std::int64_t TrainingPack::floats(std::int64_t hidden, std::int64_t dim, const PackLayout& layout) {
    return Pieces(hidden, dim, layout, nullptr).floats;
}

TrainingPack::TrainingPack(const MlpWeights<float>& weights, const PackLayout& layout, float* memory)
    : weights_(weights) {
    const std::int64_t hidden = weights.hidden, dim = weights.dim;
    const Pieces to(hidden, dim, layout, memory);
    mean1_ = to.mean1;
    mean2_ = to.mean2;
    // The way back needs no centring: LayerNorm's gradient has no mean.
    cut({weights.w1, 1, dim, mean1_, dim, hidden, 0, to.w1}, layout);
    cut({weights.w2, 1, hidden, mean2_, hidden, hidden, 0, to.w2}, layout);
    cut({weights.w2, hidden, 1, nullptr, hidden, hidden, 0, to.w2_back}, layout);
    cut({weights.w3, 1, hidden, nullptr, hidden, dim, 0, to.w3}, layout);
    cut({weights.w3, hidden, 1, nullptr, dim, hidden, 0, to.w3_back}, layout);
    centre(weights.b1, hidden, to.b1);
    centre(weights.b2, hidden, to.b2);
    std::copy(weights.b3, weights.b3 + dim, to.b3);
    std::fill(to.b3 + dim, to.b3 + round_up(dim, 3 * layout.lanes), 0.0f);
    packed_.hidden = hidden;
    packed_.dim = dim;
    packed_.w1 = {to.w1, dim, hidden};
    packed_.w2 = {to.w2, hidden, hidden};
    packed_.w2_back = {to.w2_back, hidden, hidden};
    packed_.w3_direct = {to.w3, hidden, dim};
    packed_.w3_back = {to.w3_back, dim, hidden};
    packed_.b1 = to.b1;
    packed_.b2 = to.b2;
    packed_.b3 = to.b3;
}

Phase TrainingPack::means() const {
    constexpr std::int64_t kColumns = 64;
    const std::int64_t hidden = weights_.hidden, dim = weights_.dim;
    const std::int64_t first_tasks = round_up(dim, kColumns) / kColumns;
    const auto body = [this, hidden, dim, first_tasks](std::int64_t task, int) {
        const bool first = task < first_tasks;
        const std::int64_t columns = first ? dim : hidden;
        const std::int64_t begin = (first ? task : task - first_tasks) * kColumns;
        column_means(first ? weights_.w1 : weights_.w2, hidden, columns, begin, std::min(begin + kColumns, columns),
                     first ? mean1_ : mean2_);
    };
    return {first_tasks + round_up(hidden, kColumns) / kColumns, body};
}

Phase TrainingPack::panels() const {
    return {static_cast<std::int64_t>(panels_.size()),
            [this](std::int64_t panel, int) { panels_[static_cast<std::size_t>(panel)].fill(); }};
}

}  // namespace fastimpute
