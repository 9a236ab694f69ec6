#pragma once

#include <cstdint>

#include "dit_block/token_attention.inl.h"
#include "dit_block/token_product.inl.h"

namespace fastimpute {

// Rows `stride` apart; a row's values are side by side, up to whole vectors.
struct Rows {
    float* data;
    std::int64_t stride;

    [[gnu::always_inline]] float* row(std::int64_t i) const { return data + i * stride; }
    [[gnu::always_inline]] Rows from(std::int64_t i) const { return {data + i * stride, stride}; }
    [[gnu::always_inline]] Rows right(std::int64_t j) const { return {data + j, stride}; }
};

[[gnu::always_inline]] inline Rows rows_of(const float* data, std::int64_t stride) {
    return {const_cast<float*>(data), stride};
}

// C = start + A B with columns in the lanes, A and B where they are. Left::kRows: A's rows are rows; kColumns: A is the
// transpose of what is stored. A's rows, and those of C, up to a multiple of kRows may be read and overwritten.
template <class S>
struct RowProduct {
    using Vec = typename S::Vec;
    static constexpr int kRows = S::kLanes == 16 ? 8 : 4;  // kRows x 3 sums, a row of B and one value of A

    template <Left left, Start start, int V>
    [[gnu::noinline]] static void tile(std::int64_t words, const float* a, std::int64_t a_stride, const float* b,
                                       std::int64_t b_stride, float* c, std::int64_t c_stride, const float* bias) {
        const std::int64_t row = left == Left::kRows ? a_stride : 1;
        const std::int64_t next = left == Left::kRows ? 1 : a_stride;
        Vec sum[kRows][V];
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                if constexpr (start == Start::kZero) sum[r][v] = S::zero();
                if constexpr (start == Start::kBias) sum[r][v] = S::set1(bias[r]);
                if constexpr (start == Start::kAccumulate) sum[r][v] = S::load(c + r * c_stride + v * S::kLanes);
            }
        }
#pragma GCC unroll 2
        for (std::int64_t k = 0; k < words; ++k) {
            Vec right[V];
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) right[v] = S::load(b + v * S::kLanes);
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
                const Vec value = S::set1(a[r * row]);
#pragma GCC unroll 3
                for (int v = 0; v < V; ++v) sum[r][v] = S::fma(value, right[v], sum[r][v]);
            }
            a += next;
            b += b_stride;
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) S::store(c + r * c_stride + v * S::kLanes, sum[r][v]);
        }
    }

    // `after(row)` follows each tile of rows while it is in L1.
    template <Left left, Start start, class After>
    [[gnu::always_inline]] static void run(std::int64_t rows, const TokenPanels<S>& columns, std::int64_t words, Rows a,
                                           Rows b, Rows c, const float* bias, const After& after) {
        for (std::int64_t row = 0; row < rows; row += kRows) {
            const float* left_rows = left == Left::kRows ? a.row(row) : a.data + row;
            columns.for_each([&](std::int64_t column, auto vectors) {
                tile<left, start, decltype(vectors)::value>(words, left_rows, a.stride, b.data + column, b.stride,
                                                            c.row(row) + column, c.stride, bias ? bias + row : nullptr);
            });
            after(row);
        }
    }

    template <Left left, Start start>
    [[gnu::always_inline]] static void run(std::int64_t rows, const TokenPanels<S>& columns, std::int64_t words, Rows a,
                                           Rows b, Rows c, const float* bias = nullptr) {
        run<left, start>(rows, columns, words, a, b, c, bias, [](std::int64_t) {});
    }
};

// out (width, rows) = in (rows, width) turned, `out_rows` rows of it; columns of `out` up to whole vectors are zero
// beyond `rows`.
template <class S>
[[gnu::noinline]] void turn(Rows in, std::int64_t rows, std::int64_t width, Rows out, std::int64_t out_rows) {
    for (std::int64_t i = 0; i < rows; i += S::kLanes) {
        for (std::int64_t j = 0; j < width; j += S::kLanes) {
            typename S::Vec square[S::kLanes];
#pragma GCC unroll 16
            for (int k = 0; k < S::kLanes; ++k) square[k] = i + k < rows ? S::load(in.row(i + k) + j) : S::zero();
            transpose<S>(square);
#pragma GCC unroll 16
            for (int k = 0; k < S::kLanes; ++k) {
                if (j + k < out_rows) S::store(out.row(j + k) + i, square[k]);
            }
        }
    }
}

}  // namespace fastimpute
