#pragma once

#include <array>
#include <cstdint>

#include "common/cpu_features.h"
#include "common/mlp.h"
#include "common/packed_mlp.h"

namespace fastimpute {

// Of the loss by the weights, dense and laid out like them, and by the modulation.
template <typename T>
struct MlpGradients {
    T* w1;
    T* b1;
    T* w2;
    T* b2;
    T* w3;
    T* b3;
    T* modulation;  // (conditions, 4, hidden)
};

// loss = mean over rows and columns of weight (net(x) - target)^2, with net = w3 h2 + b3 of the direct network, and its
// gradients. Strides in elements between rows. Every element of the outputs is written.
template <typename T>
struct ScoreMatchingArgs {
    std::int64_t rows;  // at least 1
    const T* x;         // (rows, dim)
    std::int64_t x_stride;
    const T* target;  // (rows, dim)
    std::int64_t target_stride;
    const T* weight;          // (rows); null: ones
    const T* modulation;      // (conditions, 4, hidden); runs of rows / conditions consecutive rows share one
    std::int64_t conditions;  // divides rows
    T* loss;                  // (1)
    MlpGradients<T> gradients;

    std::int64_t run_length() const { return rows / conditions; }
};

// Throws std::invalid_argument naming the argument. Same bits for any `threads`.
void score_matching(Isa isa, const MlpWeights<float>& weights, int threads, const ScoreMatchingArgs<float>& args);

// The scalar oracle: no packing, no centring, sums in order.
template <typename T>
void score_matching_ref(const MlpWeights<T>& weights, const ScoreMatchingArgs<T>& args);

// Some rows on their way through the network and back: what the weight gradients are made of. Buffers have `stride`
// floats a row (`dim_stride` for x and g) and rows up to a whole tile more.
struct ScoreMatchingChunk {
    const PackedMlp* mlp;
    const ScoreMatchingArgs<float>* args;
    std::int64_t begin;  // first of its rows in the arguments
    std::int64_t rows;
    std::int64_t stride;
    std::int64_t dim_stride;
    float* x;
    float* h[2];  // output of both layers
    float* d[2];  // slope of their SiLU, later the gradient by their LayerNorm's input
    float* g;     // gradient by the network's output
    // Of each slice of all rows: its loss, and the modulation gradient of a run that begins before the slice.
    double* loss;
    float* straddle;  // (slices, 4, hidden)
};

// out (a_columns, b_columns) (+)= A^T B over rows, sums (a_columns) (+)= A's columns.
struct OuterProduct {
    const float* a;
    std::int64_t a_stride;
    std::int64_t a_columns;
    const float* b;
    std::int64_t b_stride;
    std::int64_t b_columns;
    float* out;
    float* sums;
};

// [begin, end)
struct SliceRange {
    std::int64_t begin;
    std::int64_t end;
};

// The same step in two parts, for several processes that share it: each does some slices of rows, and with the buffers
// of all of them some columns of A of each product. A slice and a block come out the same whoever does them.
struct ScoreMatchingLayout {
    std::int64_t slice_rows;
    std::int64_t stride;      // of h and d
    std::int64_t dim_stride;  // of x and g
};

ScoreMatchingLayout score_matching_layout(Isa isa, std::int64_t hidden, std::int64_t dim);

// Fills the buffers of `chunk` (rows up to a whole slice; x, h, d, g, loss, straddle are given, all slices in one
// chunk), and of the gradients that by the modulation, but for what `straddle` keeps. Neither the loss nor a weight
// gradient is written.
void score_matching_slices(Isa isa, const MlpWeights<float>& weights, int threads, const ScoreMatchingArgs<float>& args,
                           ScoreMatchingChunk chunk, SliceRange some);

// Products over rows in their order.
void score_matching_products(Isa isa, int threads, std::int64_t rows, const std::array<OuterProduct, 3>& products);

inline constexpr std::int64_t kMostSliceRows = 64;
// Columns of A and of B in a block.
inline constexpr std::int64_t kOuterBlock = 32;

// One instruction set; every call in one thread.
struct ScoreMatchingKernels {
    PackLayout layout;
    std::int64_t slice_rows;  // whole tiles, at most kMostSliceRows
    std::int64_t chunk_rows;  // whole slices
    // Rows [begin, end) of the chunk, forward and back; slice number `slice` of all; scratch (3, slice_rows, stride).
    void (*slice)(const ScoreMatchingChunk& chunk, std::int64_t begin, std::int64_t end, std::int64_t slice,
                  float* scratch);
    // The block at (a_column, b_column); sums with b_column 0. `add` to the outputs or overwrite them.
    void (*outer_block)(const OuterProduct& product, std::int64_t rows, bool add, std::int64_t a_column,
                        std::int64_t b_column);
};

// Throws std::invalid_argument when there is none.
const ScoreMatchingKernels& score_matching_kernels(Isa isa);

namespace avx2 {
void score_matching_slice(const ScoreMatchingChunk& chunk, std::int64_t begin, std::int64_t end, std::int64_t slice,
                          float* scratch);
void outer_block(const OuterProduct& product, std::int64_t rows, bool add, std::int64_t a_column,
                 std::int64_t b_column);
}  // namespace avx2
namespace avx512 {
void score_matching_slice(const ScoreMatchingChunk& chunk, std::int64_t begin, std::int64_t end, std::int64_t slice,
                          float* scratch);
void outer_block(const OuterProduct& product, std::int64_t rows, bool add, std::int64_t a_column,
                 std::int64_t b_column);
}  // namespace avx512

}  // namespace fastimpute
