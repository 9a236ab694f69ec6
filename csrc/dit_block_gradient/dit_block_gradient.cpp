#include "dit_block_gradient/dit_block_gradient.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/carver.h"
#include "common/errors.h"
#include "common/parallel_for.h"
#include "common/scratch.h"
#include "dit_block/dit_checks.h"
#include "dit_block_gradient/gradient_kernels.h"

namespace fastimpute {
namespace {

constexpr std::string_view kOp = "dit_block_gradient";
constexpr std::int64_t kMostSlices = 8;

const DitGradientKernels& kernels_of(Isa isa) {
    static constexpr DitGradientKernels kRef = {ref::dit_gradient_scratch, ref::dit_gradient_sequence};
    static constexpr DitGradientKernels kAvx2 = {avx2::dit_gradient_scratch, avx2::dit_gradient_sequence};
    static constexpr DitGradientKernels kAvx512 = {avx512::dit_gradient_scratch, avx512::dit_gradient_sequence};
    if (isa == Isa::kRef) return kRef;
    return isa == Isa::kAvx2 ? kAvx2 : kAvx512;
}

void check(Isa isa, const DitWeights<float>& weights, const DitBlockArgs<float>& args, const float* out_gradient,
           const DitBlockGradients<float>& g) {
    if (!isa_usable(isa)) throw_invalid(kOp, "isa", "usable on this machine", isa_name(isa));
    check_dit_weights(kOp, weights);
    if (isa != Isa::kRef) check_dit_vector_sizes(kOp, weights);
    if (!check_dit_counts(kOp, args)) {
        throw_invalid(kOp, "sequences and tokens", "at least 1 of each", std::string_view("none"));
    }
    check_dit_inputs(kOp, args);
    check_dit_address(kOp, "out_gradient", out_gradient);
    for (const float* out : {g.x, g.modulation, g.qkv, g.b_qkv, g.proj, g.b_proj, g.up, g.b_up, g.down, g.b_down}) {
        check_dit_address(kOp, "gradients", out);
    }
}

// Floats of what a task sums up apart from the others.
struct SumSizes {
    std::int64_t hidden, inner, bias, memory;

    SumSizes(const DitWeights<float>& weights, const DitBlockArgs<float>& args)
        : hidden(weights.hidden),
          inner(weights.inner),
          bias(args.bias_rows * weights.heads * (args.tokens + args.memory_tokens) * args.tokens),
          memory(args.memory_rows * args.memory_tokens * 2 * weights.hidden) {}
};

DitSums carve(const SumSizes& sizes, bool bias, bool memory, Carver& carver) {
    const auto take = [&](std::int64_t count) { return carver.take<float>(count); };
    const std::int64_t hidden = sizes.hidden, inner = sizes.inner;
    DitSums sums{};
    sums.qkv = take(3 * hidden * hidden);
    sums.b_qkv = take(3 * hidden);
    sums.proj = take(hidden * hidden);
    sums.b_proj = take(hidden);
    sums.up = take(inner * hidden);
    sums.b_up = take(inner);
    sums.down_turned = take(inner * hidden);
    sums.b_down = take(hidden);
    if (bias) sums.bias = take(sizes.bias);
    if (memory) sums.memory = take(sizes.memory);
    return sums;
}

// Which sequences form a task: those whose number modulo `rows` lies in a slice, so that as much as possible of what
// sequences share belongs to one task alone.
struct Slices {
    std::int64_t rows, count;

    explicit Slices(const DitBlockArgs<float>& args) {
        const std::int64_t bias = args.bias ? args.bias_rows : 1;
        const std::int64_t memory = args.memory_tokens > 0 ? args.memory_rows : 1;
        rows = std::lcm(bias, memory);
        if (rows < kMostSlices) rows = args.sequences;
        count = std::min(rows, kMostSlices);
    }

    std::int64_t begin(std::int64_t slice) const { return slice * rows / count; }
};

// The weights as the kernels want them.
class Spaced {
  public:
    explicit Spaced(const DitWeights<float>& w) {
        const std::int64_t hidden = w.hidden, inner = w.inner;
        const std::int64_t hidden_stride = hidden + kSpace, inner_stride = inner + kSpace;
        storage_ = AlignedBuffer<float>(static_cast<std::size_t>(hidden_stride * (4 * hidden + inner) +
                                                                 inner_stride * hidden + inner * hidden + 3 * hidden));
        Carver carver{storage_.data()};
        scale_ = static_cast<float>(1.0 / std::sqrt(static_cast<double>(hidden / w.heads)));
        float* qkv = copy(w.qkv, 3 * hidden, hidden, hidden_stride, carver);
        float* b_qkv = copy(w.b_qkv, 1, 3 * hidden, 3 * hidden, carver);
        for (std::int64_t i = 0; i < hidden * hidden_stride; ++i) qkv[i] *= scale_;
        for (std::int64_t i = 0; i < hidden; ++i) b_qkv[i] *= scale_;
        float* turned = carver.take<float>(inner * hidden);
        for (std::int64_t j = 0; j < hidden; ++j) {
            for (std::int64_t i = 0; i < inner; ++i) turned[i * hidden + j] = w.down[j * inner + i];
        }
        block_ = {hidden,       w.heads,
                  inner,        hidden_stride,
                  inner_stride, qkv,
                  b_qkv,        copy(w.proj, hidden, hidden, hidden_stride, carver),
                  w.b_proj,     copy(w.up, inner, hidden, hidden_stride, carver),
                  w.b_up,       copy(w.down, hidden, inner, inner_stride, carver),
                  turned,       w.b_down};
    }

    const SpacedDit& block() const { return block_; }
    float query_scale() const { return scale_; }

  private:
    static constexpr std::int64_t kSpace = 16;

    static float* copy(const float* values, std::int64_t rows, std::int64_t width, std::int64_t stride,
                       Carver& carver) {
        float* out = carver.take<float>(rows * stride);
        for (std::int64_t i = 0; i < rows; ++i) std::copy_n(values + i * width, width, out + i * stride);
        return out;
    }

    AlignedBuffer<float> storage_;
    SpacedDit block_{};
    float scale_;
};

// out = the tasks' parts, in their order.
void add_up(const std::vector<DitSums>& tasks, float* DitSums::* part, std::int64_t count, float* out) {
    std::copy_n(tasks[0].*part, count, out);
    for (std::size_t task = 1; task < tasks.size(); ++task) {
        const float* values = tasks[task].*part;
        for (std::int64_t i = 0; i < count; ++i) out[i] += values[i];
    }
}

void add_up_rows(const float* parts, std::int64_t sequences, std::int64_t rows, std::int64_t width, float* out) {
    std::copy_n(parts, rows * width, out);
    for (std::int64_t i = rows; i < sequences; ++i) {
        float* row = out + i % rows * width;
        for (std::int64_t j = 0; j < width; ++j) row[j] += parts[i * width + j];
    }
}

// Gradients of the weights from what the tasks summed up.
void finish_weights(const std::vector<DitSums>& tasks, const SumSizes& sizes, float query_scale, float* turned,
                    const DitBlockGradients<float>& out) {
    const std::int64_t hidden = sizes.hidden, inner = sizes.inner;
    add_up(tasks, &DitSums::qkv, 3 * hidden * hidden, out.qkv);
    add_up(tasks, &DitSums::b_qkv, 3 * hidden, out.b_qkv);
    for (std::int64_t i = 0; i < hidden * hidden; ++i) out.qkv[i] *= query_scale;
    for (std::int64_t i = 0; i < hidden; ++i) out.b_qkv[i] *= query_scale;
    add_up(tasks, &DitSums::proj, hidden * hidden, out.proj);
    add_up(tasks, &DitSums::b_proj, hidden, out.b_proj);
    add_up(tasks, &DitSums::up, inner * hidden, out.up);
    add_up(tasks, &DitSums::b_up, inner, out.b_up);
    add_up(tasks, &DitSums::down_turned, inner * hidden, turned);
    for (std::int64_t j = 0; j < hidden; ++j) {
        for (std::int64_t i = 0; i < inner; ++i) out.down[j * inner + i] = turned[i * hidden + j];
    }
    add_up(tasks, &DitSums::b_down, hidden, out.b_down);
}

}  // namespace

void dit_block_gradient(Isa isa, const DitWeights<float>& weights, int threads, const DitBlockArgs<float>& args,
                        const float* out_gradient, const DitBlockGradients<float>& gradients) {
    check(isa, weights, args, out_gradient, gradients);
    const SumSizes sizes(weights, args);
    const Slices slices(args);
    // What has a row for every residue belongs to one task alone and needs no sum.
    const bool bias_apart = gradients.bias && args.bias_rows != slices.rows;
    const bool memory_apart = gradients.memory && args.memory_rows != slices.rows;
    if (gradients.bias && !bias_apart) std::fill_n(gradients.bias, sizes.bias, 0.0f);
    if (gradients.memory && !memory_apart) std::fill_n(gradients.memory, sizes.memory, 0.0f);

    Carver counter{nullptr};
    carve(sizes, bias_apart, memory_apart, counter);
    const std::int64_t width = 6 * weights.hidden;
    AlignedBuffer<float> memory(
        static_cast<std::size_t>(counter.used * slices.count + args.sequences * width + sizes.inner * sizes.hidden));
    float* modulation = memory.data() + counter.used * slices.count;
    std::vector<DitSums> tasks;
    for (std::int64_t slice = 0; slice < slices.count; ++slice) {
        Carver carver{memory.data() + slice * counter.used};
        tasks.push_back(carve(sizes, bias_apart, memory_apart, carver));
        if (!bias_apart) tasks.back().bias = gradients.bias;
        if (!memory_apart) tasks.back().memory = gradients.memory;
    }

    const Spaced spaced(weights);
    const DitGradientKernels& kernels = kernels_of(isa);
    parallel_for(0, slices.count, 1, threads, [&](std::int64_t slice, std::int64_t, int) {
        const DitGradientTask task{&args, &spaced.block(), out_gradient, gradients.x, modulation, tasks[slice]};
        float* scratch = thread_scratch(kernels.scratch(task));
        for (std::int64_t first = 0; first < args.sequences; first += slices.rows) {
            for (std::int64_t row = slices.begin(slice); row < slices.begin(slice + 1); ++row) {
                kernels.sequence(task, first + row, scratch);
            }
        }
    });

    finish_weights(tasks, sizes, spaced.query_scale(), modulation + args.sequences * width, gradients);
    add_up_rows(modulation, args.sequences, args.modulation_rows, width, gradients.modulation);
    if (bias_apart) add_up(tasks, &DitSums::bias, sizes.bias, gradients.bias);
    if (memory_apart) add_up(tasks, &DitSums::memory, sizes.memory, gradients.memory);
}

}  // namespace fastimpute
