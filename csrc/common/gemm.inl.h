#pragma once

#include <cstdint>

#include "common/packed_mlp.h"

namespace fastimpute {

// C = start + A B on row tiles, B packed in panels. Templates over the instruction set's vector type, which is in a
// namespace of its own: no instance is shared between files compiled with different flags.

enum class Start { kZero, kBias, kAccumulate };

// Float32 operands; see simd_avx512bf16.h for the other kind.
template <class S>
struct FloatOperand {
    using Type = float;
    using Vec = typename S::Vec;
    static constexpr int kStep = 1;  // inputs consumed per multiply-add
    static constexpr bool kExactSigmoid = true;

    [[gnu::always_inline]] static Vec broadcast(const float* a) { return S::set1(*a); }
    [[gnu::always_inline]] static Vec load_panel(const float* b) { return S::load(b); }
    [[gnu::always_inline]] static Vec multiply_add(Vec a, Vec b, Vec c) { return S::fma(a, b, c); }
    [[gnu::always_inline]] static void store(float* p, Vec v) { S::store(p, v); }
};

// R rows by V vectors. Indices of `acc` are constants once unrolled, else gcc keeps it in memory.
template <class S, class Op, int R, int V, Start start>
[[gnu::always_inline]] inline void panel_tile(std::int64_t inputs, const typename Op::Type* __restrict a,
                                              std::int64_t a_stride, const typename Op::Type* __restrict b,
                                              float* __restrict c, std::int64_t c_stride,
                                              const float* __restrict bias) {
    using Vec = typename S::Vec;
    constexpr int kWidth = V * S::kLanes;
    Vec acc[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) {
            if constexpr (start == Start::kZero) acc[r][v] = S::zero();
            if constexpr (start == Start::kBias) acc[r][v] = S::load(bias + v * S::kLanes);
            if constexpr (start == Start::kAccumulate) acc[r][v] = S::load(c + r * c_stride + v * S::kLanes);
        }
    }
#pragma GCC unroll 2
    for (std::int64_t k = 0; k < inputs; k += Op::kStep) {
        typename Op::Vec panel[V];
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) panel[v] = Op::load_panel(b + v * S::kLanes * Op::kStep);
        b += kWidth * Op::kStep;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const typename Op::Vec value = Op::broadcast(a + r * a_stride + k);
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) acc[r][v] = Op::multiply_add(value, panel[v], acc[r][v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) S::store(c + r * c_stride + v * S::kLanes, acc[r][v]);
    }
}

// All panels of B for one tile of R rows: the tile of A stays in L1 while B streams by.
template <class S, class Op, Start start, int R>
[[gnu::noinline]] void gemm_tile(const typename Op::Type* a, std::int64_t a_stride, const PackedMatrix& b, float* c,
                                 std::int64_t c_stride, const float* bias) {
    const auto* panels = static_cast<const typename Op::Type*>(b.data);
    const std::int64_t inputs = round_up(b.inputs, Op::kStep);
    const std::int64_t columns = round_up(b.outputs, S::kLanes);
    const std::int64_t odd = columns / S::kLanes % 2 * S::kOddPanel * S::kLanes;
    std::int64_t column = 0;
    for (; column < columns - odd; column += 2 * S::kLanes) {
        panel_tile<S, Op, R, 2, start>(inputs, a, a_stride, panels + column * inputs, c + column, c_stride,
                                       bias + column);
    }
    if constexpr (S::kOddPanel == 3) {
        if (column + 3 * S::kLanes == columns) {
            panel_tile<S, Op, R, 3, start>(inputs, a, a_stride, panels + column * inputs, c + column, c_stride,
                                           bias + column);
            return;
        }
    }
    if (column < columns) {
        panel_tile<S, Op, R, 1, start>(inputs, a, a_stride, panels + column * inputs, c + column, c_stride,
                                       bias + column);
    }
}

// C (rows, outputs) = start + A (rows, inputs) B, then `after(first_row, end_row)` for each tile while it is in L1.
// Buffers of A and C have rows up to a multiple of S::kTileRows; those beyond `rows` may be read and overwritten.
// A row's sum is taken in the same order in every tile shape: results do not depend on how rows are split.
template <class S, class Op, Start start, class After>
[[gnu::always_inline]] inline void gemm(std::int64_t rows, const typename Op::Type* a, std::int64_t a_stride,
                                        const PackedMatrix& b, float* c, std::int64_t c_stride, const float* bias,
                                        const After& after) {
    std::int64_t row = 0;
    while (row < rows) {
        const std::int64_t left = rows - row;
        const auto* a_tile = a + row * a_stride;
        float* c_tile = c + row * c_stride;
        std::int64_t tile = S::kTileRows;
        if (left == 1) {
            tile = 1;
            gemm_tile<S, Op, start, 1>(a_tile, a_stride, b, c_tile, c_stride, bias);
        } else if (left == 2) {
            tile = 2;
            gemm_tile<S, Op, start, 2>(a_tile, a_stride, b, c_tile, c_stride, bias);
        } else if (left <= 4) {
            tile = left;
            gemm_tile<S, Op, start, 4>(a_tile, a_stride, b, c_tile, c_stride, bias);
        } else {
            tile = left < tile ? left : tile;
            gemm_tile<S, Op, start, S::kTileRows>(a_tile, a_stride, b, c_tile, c_stride, bias);
        }
        after(row, row + tile);
        row += tile;
    }
}

}  // namespace fastimpute
