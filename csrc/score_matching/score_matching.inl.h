#pragma once

#include "common/mlp_rows.inl.h"
#include "score_matching/score_matching.h"

namespace fastimpute {

// One slice of rows through the network and back, once for all instruction sets.
template <class S>
class ScoreMatchingSlice {
  public:
    using Vec = typename S::Vec;
    using P = Pair<S>;
    using Op = FloatOperand<S>;

    [[gnu::always_inline]] ScoreMatchingSlice(const ScoreMatchingChunk& chunk, std::int64_t begin, std::int64_t end,
                                              std::int64_t slice, float* scratch)
        : chunk_(chunk),
          args_(*chunk.args),
          mlp_(*chunk.mlp),
          begin_(begin),
          rows_(end - begin),
          width_(mlp_.hidden),
          dim_(mlp_.dim),
          stride_(chunk.stride),
          dim_stride_(chunk.dim_stride),
          run_length_(args_.run_length()),
          straddle_(chunk.straddle + slice * 4 * mlp_.hidden),
          loss_(chunk.loss + slice),
          back_(scratch) {
        const std::int64_t size = round_up(rows_, S::kTileRows) * stride_;
        normed_[0] = scratch + size;
        normed_[1] = scratch + 2 * size;
    }

    [[gnu::always_inline]] void run() {
        load_x();
        clear_modulation_gradients();
        *loss_ = 0;
        const auto first = [&](std::int64_t from, std::int64_t to) { activate(0, from, to); };
        gemm<S, Op, Start::kBias>(rows_, row_of(chunk_.x, 0, dim_stride_), dim_stride_, mlp_.w1, normed(0, 0), stride_,
                                  mlp_.b1, first);
        const auto second = [&](std::int64_t from, std::int64_t to) { activate(1, from, to); };
        gemm<S, Op, Start::kBias>(rows_, row_of(chunk_.h[0], 0, stride_), stride_, mlp_.w2, normed(1, 0), stride_,
                                  mlp_.b2, second);
        const auto output = [&](std::int64_t from, std::int64_t to) { compare(from, to); };
        gemm<S, Op, Start::kBias>(rows_, row_of(chunk_.h[1], 0, stride_), stride_, mlp_.w3_direct,
                                  row_of(chunk_.g, 0, dim_stride_), dim_stride_, mlp_.b3, output);
        const auto second_back = [&](std::int64_t from, std::int64_t to) { differentiate(1, from, to); };
        gemm<S, Op, Start::kZero>(rows_, row_of(chunk_.g, 0, dim_stride_), dim_stride_, mlp_.w3_back, back_, stride_,
                                  nullptr, second_back);
        const auto first_back = [&](std::int64_t from, std::int64_t to) { differentiate(0, from, to); };
        gemm<S, Op, Start::kZero>(rows_, row_of(chunk_.d[1], 0, stride_), stride_, mlp_.w2_back, back_, stride_,
                                  nullptr, first_back);
    }

  private:
    static constexpr std::int64_t kMaxTile = 8;

    [[gnu::always_inline]] float* row_of(float* buffer, std::int64_t row, std::int64_t stride) const {
        return buffer + (begin_ + row) * stride;
    }
    [[gnu::always_inline]] float* normed(int layer, std::int64_t row) const { return normed_[layer] + row * stride_; }
    // Row of the arguments.
    [[gnu::always_inline]] std::int64_t argument(std::int64_t row) const { return chunk_.begin + begin_ + row; }
    [[gnu::always_inline]] const float* modulation(std::int64_t row) const {
        return args_.modulation + argument(row) / run_length_ * 4 * width_;
    }
    // Where a row's share of the modulation gradient goes: to its run, or aside if the run began in another slice.
    [[gnu::always_inline]] float* modulation_gradient(std::int64_t row) const {
        const std::int64_t run = argument(row) / run_length_;
        return run * run_length_ < argument(0) ? straddle_ : args_.gradients.modulation + run * 4 * width_;
    }

    [[gnu::always_inline]] void clear_modulation_gradients() const {
        for (std::int64_t row = 0; row < rows_; ++row) {
            if (row != 0 && argument(row) % run_length_ != 0) continue;
            float* gradient = modulation_gradient(row);
            for (std::int64_t j = 0; j < 4 * width_; j += S::kLanes) S::store(gradient + j, S::zero());
        }
    }

    [[gnu::always_inline]] void load_x() const {
        for (std::int64_t row = 0; row < rows_; ++row) {
            load_operand_row<S, Op>(args_.x + argument(row) * args_.x_stride, dim_, row_of(chunk_.x, row, dim_stride_));
        }
    }

    // A tile of a becomes LN(a); h and SiLU's slope are left beside it.
    [[gnu::always_inline]] void activate(int layer, std::int64_t from, std::int64_t to) {
        const std::int64_t width = width_;
        const float inverse_width = 1.0f / static_cast<float>(width);
        float* rstds = rstd_[layer];
        for (std::int64_t row = from; row < to; ++row) {
            rstds[row] = row_rstd<P>(normed(layer, row), width, inverse_width);
        }
        for (std::int64_t row = from; row < to; ++row) {
            const float* gain = modulation(row) + 2 * layer * width;
            float* a = normed(layer, row);
            float* h = row_of(chunk_.h[layer], row, stride_);
            float* slope = row_of(chunk_.d[layer], row, stride_);
            const auto rstd = P::set1(rstds[row]);
            const auto one = P::set1(1.0f);
            for (std::int64_t j = 0; j < width; j += P::kLanes) {
                const auto value = P::load(a + j);
                const SiluPoint<P, true> point(value, rstd, gain + j, gain + width + j);
                P::store(h + j, point.value);
                P::store(slope + j, P::fma(point.value, one - point.sigmoid_u, point.sigmoid_u));
                P::store(a + j, value * rstd);
            }
        }
    }

    // Outputs become the gradient by them; their loss is added up.
    [[gnu::always_inline]] void compare(std::int64_t from, std::int64_t to) const {
        const std::int64_t dim = dim_;
        const double cells = static_cast<double>(args_.rows) * static_cast<double>(dim);
        for (std::int64_t row = from; row < to; ++row) {
            const float weight = args_.weight ? args_.weight[argument(row)] : 1.0f;
            const Vec scale = S::set1(static_cast<float>(2.0 * weight / cells));
            const float* target = args_.target + argument(row) * args_.target_stride;
            float* out = row_of(chunk_.g, row, dim_stride_);
            Vec sum = S::zero();
            for (std::int64_t j = 0; j < dim; j += S::kLanes) {
                const std::int64_t left = dim - j;
                const Vec wanted = left < S::kLanes ? S::load_first(target + j, left) : S::load(target + j);
                const Vec residual = S::load(out + j) - wanted;  // columns beyond dim are zero
                sum = S::fma(residual, residual, sum);
                S::store(out + j, residual * scale);
            }
            *loss_ += static_cast<double>(weight) * static_cast<double>(S::sum(sum)) / cells;
        }
    }

    // The gradient by h of a tile becomes the one by a, in place of the slope.
    [[gnu::always_inline]] void differentiate(int layer, std::int64_t from, std::int64_t to) const {
        const std::int64_t width = width_;
        const float inverse_width = 1.0f / static_cast<float>(width);
        float mean[kMaxTile], projection[kMaxTile];
        for (std::int64_t row = from; row < to; ++row) {
            const float* gain = modulation(row) + 2 * layer * width;
            float* gain_gradient = modulation_gradient(row) + 2 * layer * width;
            float* shift_gradient = gain_gradient + width;
            const float* normal = normed(layer, row);
            const float* slope = row_of(chunk_.d[layer], row, stride_);
            float* gradient = back_ + row * stride_;
            auto sum = P::zero(), product = P::zero();
            for (std::int64_t j = 0; j < width; j += P::kLanes) {
                const auto inner = P::load(gradient + j) * P::load(slope + j);
                const auto n = P::load(normal + j);
                P::store(gain_gradient + j, P::fma(inner, n, P::load(gain_gradient + j)));
                P::store(shift_gradient + j, inner + P::load(shift_gradient + j));
                const auto outer = P::fma(inner, P::load(gain + j), inner);
                sum = sum + outer;
                product = P::fma(outer, n, product);
                P::store(gradient + j, outer);
            }
            mean[row - from] = P::sum(sum) * inverse_width;
            projection[row - from] = P::sum(product) * inverse_width;
        }
        const float* rstds = rstd_[layer];
        for (std::int64_t row = from; row < to; ++row) {
            const auto rstd = P::set1(rstds[row]);
            const auto offset = P::set1(mean[row - from] * rstds[row]);
            const auto along = P::set1(projection[row - from] * rstds[row]);
            const float* normal = normed(layer, row);
            const float* gradient = back_ + row * stride_;
            float* out = row_of(chunk_.d[layer], row, stride_);
            for (std::int64_t j = 0; j < width; j += P::kLanes) {
                const auto kept = P::fms(P::load(gradient + j), rstd, offset);
                P::store(out + j, P::fnma(P::load(normal + j), along, kept));
            }
        }
    }

    const ScoreMatchingChunk& chunk_;
    const ScoreMatchingArgs<float>& args_;
    const PackedMlp& mlp_;
    std::int64_t begin_, rows_, width_, dim_, stride_, dim_stride_, run_length_;
    float* straddle_;
    double* loss_;
    float* back_;       // what a product of the way back just left
    float* normed_[2];  // LN(a) of both layers
    float rstd_[2][kMostSliceRows];
};

// R columns of A by two vectors of columns of B: C += A^T B over `rows` rows; C is (kOuterBlock, kOuterBlock).
template <class S, int R>
[[gnu::always_inline]] inline void outer_tile(std::int64_t rows, const float* __restrict a, std::int64_t a_stride,
                                              const float* __restrict b, std::int64_t b_stride, float* __restrict c) {
    using Vec = typename S::Vec;
    constexpr std::int64_t kAhead = 12;
    Vec acc[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        acc[r][0] = S::load(c + r * kOuterBlock);
        acc[r][1] = S::load(c + r * kOuterBlock + S::kLanes);
    }
#pragma GCC unroll 2
    for (std::int64_t k = 0; k < rows; ++k) {
        // Rows lie pages apart for the processor's own prefetcher.
        __builtin_prefetch(a + kAhead * a_stride);
        __builtin_prefetch(b + kAhead * b_stride);
        __builtin_prefetch(b + kAhead * b_stride + S::kLanes);
        const Vec left = S::load(b), right = S::load(b + S::kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Vec value = S::set1(a[r]);
            acc[r][0] = S::fma(value, left, acc[r][0]);
            acc[r][1] = S::fma(value, right, acc[r][1]);
        }
        a += a_stride;
        b += b_stride;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        S::store(c + r * kOuterBlock, acc[r][0]);
        S::store(c + r * kOuterBlock + S::kLanes, acc[r][1]);
    }
}

// `columns` columns of A by those of one pair of vectors of B.
template <class S>
[[gnu::always_inline]] inline void outer_strip(std::int64_t rows, const float* a, std::int64_t a_stride,
                                               std::int64_t columns, const float* b, std::int64_t b_stride, float* c) {
    std::int64_t r = 0;
    for (; r + S::kTileRows <= columns; r += S::kTileRows) {
        outer_tile<S, S::kTileRows>(rows, a + r, a_stride, b, b_stride, c + r * kOuterBlock);
    }
    for (; r + 4 <= columns; r += 4) outer_tile<S, 4>(rows, a + r, a_stride, b, b_stride, c + r * kOuterBlock);
    for (; r < columns; ++r) outer_tile<S, 1>(rows, a + r, a_stride, b, b_stride, c + r * kOuterBlock);
}

template <class S>
[[gnu::always_inline]] inline void column_sums(const OuterProduct& product, std::int64_t rows, bool add,
                                               std::int64_t column, std::int64_t count) {
    for (std::int64_t j = 0; j < count; j += S::kLanes) {
        const std::int64_t width = count - j < S::kLanes ? count - j : S::kLanes;
        float* out = product.sums + column + j;
        typename S::Vec sum = S::zero();
        if (add) sum = width < S::kLanes ? S::load_first(out, width) : S::load(out);
        const float* a = product.a + column + j;
        for (std::int64_t k = 0; k < rows; ++k) sum = sum + S::load(a + k * product.a_stride);
        if (width < S::kLanes) {
            S::store_first(out, width, sum);
        } else {
            S::store(out, sum);
        }
    }
}

template <class S>
[[gnu::always_inline]] inline void outer_block(const OuterProduct& product, std::int64_t rows, bool add,
                                               std::int64_t a_column, std::int64_t b_column) {
    constexpr std::int64_t kWidth = 2 * S::kLanes;
    constexpr std::int64_t kDepth = 128;  // rows of A's and B's columns that stay in L1 together
    const std::int64_t columns =
        product.a_columns - a_column < kOuterBlock ? product.a_columns - a_column : kOuterBlock;
    const std::int64_t width = product.b_columns - b_column < kOuterBlock ? product.b_columns - b_column : kOuterBlock;
    alignas(64) float c[kOuterBlock * kOuterBlock];
    float* out = product.out + a_column * product.b_columns + b_column;
    for (std::int64_t r = 0; r < kOuterBlock; ++r) {
        for (std::int64_t j = 0; j < kOuterBlock; ++j) {
            c[r * kOuterBlock + j] = add && r < columns && j < width ? out[r * product.b_columns + j] : 0.0f;
        }
    }
    for (std::int64_t k = 0; k < rows; k += kDepth) {
        const std::int64_t depth = rows - k < kDepth ? rows - k : kDepth;
        const float* a = product.a + k * product.a_stride + a_column;
        const float* b = product.b + k * product.b_stride + b_column;
        for (std::int64_t j = 0; j < width; j += kWidth) {
            outer_strip<S>(depth, a, product.a_stride, columns, b + j, product.b_stride, c + j);
        }
    }
    for (std::int64_t r = 0; r < columns; ++r) {
        store_row<S>(c + r * kOuterBlock, width, out + r * product.b_columns);
    }
    if (b_column == 0) column_sums<S>(product, rows, add, a_column, columns);
}

}  // namespace fastimpute
