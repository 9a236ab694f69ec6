#include "score_matching/score_matching.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "common/carver.h"
#include "common/errors.h"
#include "common/mlp_checks.h"
#include "common/phases.h"
#include "common/scratch.h"
#include "score_matching/training_pack.h"

namespace fastimpute {
namespace {

constexpr std::string_view kOp = "score_matching";

void require(const void* pointer, std::string_view name) {
    if (pointer == nullptr) throw_invalid(kOp, name, "an address", std::string_view("null"));
}

void check(Isa isa, const MlpWeights<float>& weights, const ScoreMatchingArgs<float>& args) {
    if (!isa_usable(isa)) throw_invalid(kOp, "isa", "usable on this machine", isa_name(isa));
    if (weights.dim < 1) throw_invalid(kOp, "dim", "at least 1", static_cast<long long>(weights.dim));
    const bool fits = weights.hidden % 32 == 0 && weights.hidden <= kMaxHidden;
    if (weights.hidden < 1 || (isa != Isa::kRef && !fits)) {
        throw_invalid(kOp, "hidden", "a multiple of 32 up to 1024 for the vector kernels",
                      static_cast<long long>(weights.hidden));
    }
    if (args.rows < 1) throw_invalid(kOp, "rows", "at least 1", static_cast<long long>(args.rows));
    if (args.conditions < 1 || args.rows % args.conditions != 0) {
        throw_invalid(kOp, "conditions", "a divisor of the rows", static_cast<long long>(args.conditions));
    }
    check_matrix(kOp, "x", args.x, args.rows, args.x_stride, weights.dim);
    check_matrix(kOp, "target", args.target, args.rows, args.target_stride, weights.dim);
    for (const float* input : {weights.w1, weights.b1, weights.w2, weights.b2, weights.w3, weights.b3}) {
        require(input, "weights");
    }
    require(args.modulation, "modulation");
    require(args.loss, "loss");
    const MlpGradients<float>& g = args.gradients;
    for (const float* output : {g.w1, g.b1, g.w2, g.b2, g.w3, g.b3, g.modulation}) require(output, "gradients");
}

// The memory of one call, cut out of the thread's scratch.
struct Memory {
    float* pack;
    double* loss;
    float* straddle;
    float* scratch;  // (threads, 3, slice_rows, stride)
    std::int64_t scratch_floats;
    std::int64_t floats;

    Memory(const ScoreMatchingKernels& kernels, const MlpWeights<float>& weights, const ScoreMatchingArgs<float>& args,
           int threads, ScoreMatchingChunk& chunk, float* memory) {
        Carver carver{memory};
        const std::int64_t slices = round_up(args.rows, kernels.slice_rows) / kernels.slice_rows;
        const std::int64_t rows = std::min(round_up(args.rows, kernels.slice_rows), kernels.chunk_rows);
        pack = carver.take<float>(TrainingPack::floats(weights.hidden, weights.dim, kernels.layout));
        loss = carver.take<double>(slices);
        const bool whole_runs = kernels.slice_rows % args.run_length() == 0;
        straddle = carver.take<float>(whole_runs ? 0 : slices * 4 * weights.hidden);
        scratch_floats = 3 * kernels.slice_rows * chunk.stride;  // whole cache lines
        scratch = carver.take<float>(threads * scratch_floats);
        chunk.x = carver.take<float>(rows * chunk.dim_stride);
        chunk.g = carver.take<float>(rows * chunk.dim_stride);
        for (int layer = 0; layer < 2; ++layer) {
            chunk.h[layer] = carver.take<float>(rows * chunk.stride);
            chunk.d[layer] = carver.take<float>(rows * chunk.stride);
        }
        chunk.loss = loss;
        chunk.straddle = straddle;
        floats = carver.used;
    }
};

// Some slices of the chunk's rows forward and back, one task a slice; scratch (threads, scratch_floats).
Phase slices(const ScoreMatchingKernels& kernels, const ScoreMatchingChunk& chunk, SliceRange some, float* scratch,
             std::int64_t scratch_floats) {
    const auto body = [&kernels, &chunk, some, scratch, scratch_floats](std::int64_t task, int worker) {
        const std::int64_t slice = some.begin + task, begin = slice * kernels.slice_rows;
        kernels.slice(chunk, begin, std::min(begin + kernels.slice_rows, chunk.rows),
                      chunk.begin / kernels.slice_rows + slice, scratch + worker * scratch_floats);
    };
    return {some.end - some.begin, body};
}

// The products the weight gradients of a chunk are made of.
std::array<OuterProduct, 3> products_of(const ScoreMatchingChunk& chunk) {
    const std::int64_t hidden = chunk.mlp->hidden, dim = chunk.mlp->dim;
    const MlpGradients<float>& out = chunk.args->gradients;
    return {{
        {chunk.d[1], chunk.stride, hidden, chunk.h[0], chunk.stride, hidden, out.w2, out.b2},
        {chunk.d[0], chunk.stride, hidden, chunk.x, chunk.dim_stride, dim, out.w1, out.b1},
        {chunk.g, chunk.dim_stride, dim, chunk.h[1], chunk.stride, hidden, out.w3, out.b3},
    }};
}

// Products over `rows` rows in their order, one task a block.
Phase outer_products(const ScoreMatchingKernels& kernels, const std::array<OuterProduct, 3>& products,
                     std::int64_t rows, bool add) {
    const auto blocks = [](std::int64_t columns) { return round_up(columns, kOuterBlock) / kOuterBlock; };
    std::array<std::int64_t, 4> ends{};
    for (std::size_t i = 0; i < products.size(); ++i) {
        ends[i + 1] = ends[i] + blocks(products[i].a_columns) * blocks(products[i].b_columns);
    }
    const auto body = [&kernels, products, ends, blocks, rows, add](std::int64_t task, int) {
        std::size_t i = 0;
        while (task >= ends[i + 1]) ++i;
        const std::int64_t across = blocks(products[i].b_columns), block = task - ends[i];
        kernels.outer_block(products[i], rows, add, block / across * kOuterBlock, block % across * kOuterBlock);
    };
    return {ends.back(), body};
}

// Adds what slices kept aside of runs that began before them.
void add_straddling_runs(const ScoreMatchingArgs<float>& args, std::int64_t hidden, std::int64_t slice_rows,
                         const float* straddle) {
    const std::int64_t size = 4 * hidden;
    for (std::int64_t begin = 0; begin < args.rows; begin += slice_rows) {
        if (begin % args.run_length() == 0) continue;
        float* gradient = args.gradients.modulation + begin / args.run_length() * size;
        const float* part = straddle + begin / slice_rows * size;
        for (std::int64_t j = 0; j < size; ++j) gradient[j] += part[j];
    }
}

}  // namespace

void score_matching(Isa isa, const MlpWeights<float>& weights, int threads, const ScoreMatchingArgs<float>& args) {
    check(isa, weights, args);
    if (isa == Isa::kRef) {
        score_matching_ref(weights, args);
        return;
    }
    const ScoreMatchingKernels& kernels = score_matching_kernels(isa);
    const std::int64_t slice_rows = kernels.slice_rows;
    threads = std::max(threads, 1);
    ScoreMatchingChunk chunk{};
    chunk.args = &args;
    chunk.stride = buffer_stride(weights.hidden);
    chunk.dim_stride = buffer_stride(weights.dim);
    const std::int64_t floats = Memory(kernels, weights, args, threads, chunk, nullptr).floats;
    const Memory memory(kernels, weights, args, threads, chunk, thread_scratch(floats));
    const TrainingPack pack(weights, kernels.layout, memory.pack);
    chunk.mlp = &pack.packed();
    std::vector<ScoreMatchingChunk> chunks;
    for (chunk.begin = 0; chunk.begin < args.rows; chunk.begin += kernels.chunk_rows) {
        chunk.rows = std::min(kernels.chunk_rows, args.rows - chunk.begin);
        chunks.push_back(chunk);
    }
    std::vector<Phase> phases = {pack.means(), pack.panels()};
    for (const ScoreMatchingChunk& part : chunks) {
        const SliceRange all{0, round_up(part.rows, slice_rows) / slice_rows};
        phases.push_back(slices(kernels, part, all, memory.scratch, memory.scratch_floats));
        phases.push_back(outer_products(kernels, products_of(part), part.rows, part.begin > 0));
    }
    run_phases(std::move(phases), threads);
    if (slice_rows % args.run_length() != 0) {
        add_straddling_runs(args, weights.hidden, slice_rows, memory.straddle);
    }
    double loss = 0;
    for (std::int64_t begin = 0; begin < args.rows; begin += slice_rows) loss += memory.loss[begin / slice_rows];
    *args.loss = static_cast<float>(loss);
}

ScoreMatchingLayout score_matching_layout(Isa isa, std::int64_t hidden, std::int64_t dim) {
    return {score_matching_kernels(isa).slice_rows, buffer_stride(hidden), buffer_stride(dim)};
}

void score_matching_slices(Isa isa, const MlpWeights<float>& weights, int threads, const ScoreMatchingArgs<float>& args,
                           ScoreMatchingChunk chunk, SliceRange some) {
    check(isa, weights, args);
    const ScoreMatchingKernels& kernels = score_matching_kernels(isa);
    threads = std::max(threads, 1);
    chunk.args = &args;
    chunk.begin = 0;
    chunk.rows = args.rows;
    chunk.stride = buffer_stride(weights.hidden);
    chunk.dim_stride = buffer_stride(weights.dim);
    const std::int64_t packed = round_up(TrainingPack::floats(weights.hidden, weights.dim, kernels.layout), 16);
    const std::int64_t scratch_floats = 3 * kernels.slice_rows * chunk.stride;  // whole cache lines
    float* memory = thread_scratch(packed + threads * scratch_floats);
    const TrainingPack pack(weights, kernels.layout, memory);
    chunk.mlp = &pack.packed();
    run_phases({pack.means(), pack.panels(), slices(kernels, chunk, some, memory + packed, scratch_floats)}, threads);
}

void score_matching_products(Isa isa, int threads, std::int64_t rows, const std::array<OuterProduct, 3>& products) {
    run_phases({outer_products(score_matching_kernels(isa), products, rows, false)}, std::max(threads, 1));
}

}  // namespace fastimpute
