#pragma once

#include "common/mlp_rows.inl.h"
#include "score_mlp/score_mlp.h"

namespace fastimpute {

// The direct network on one block of rows, once for all instruction sets. S: vectors, Op: what the products multiply.
template <class S, class Op>
class ScoreBlock {
  public:
    using Vec = typename S::Vec;
    using P = Pair<S>;
    using Operand = typename Op::Type;

    [[gnu::always_inline]] ScoreBlock(const PackedMlp& mlp, std::int64_t rows, float* scratch)
        : mlp_(mlp),
          rows_(rows),
          width_(mlp.hidden),
          dim_(mlp.dim),
          inverse_width_(1.0f / static_cast<float>(mlp.hidden)),
          stride_(buffer_stride(mlp.hidden)),
          dim_stride_(buffer_stride(mlp.dim)),
          x_stride_(operand_stride<Op>(mlp.dim)),
          h_stride_(operand_stride<Op>(mlp.hidden)) {
        Carver carver{scratch};
        const std::int64_t padded = round_up(rows, S::kTileRows);
        x_ = carver.template take<Operand>(padded * x_stride_);
        h_ = carver.template take<Operand>(padded * h_stride_);
        a_ = carver.template take<float>(padded * stride_);
        score_ = carver.template take<float>(padded * dim_stride_);
        rstd_ = carver.template take<float>(padded);
        if (mlp.pull.data) {
            centred_ = carver.template take<float>(padded * dim_stride_);
            pulled_ = carver.template take<float>(padded * dim_stride_);
        }
        floats_ = carver.used;
    }

    std::int64_t floats() const { return floats_; }

    // Rows [begin, begin + rows) of the arguments.
    [[gnu::always_inline]] void run(const ScoreMlpArgs<float>& args, std::int64_t begin) {
        load_x(args.x + begin * args.x_stride, args.x_stride);
        const auto modulation = [&](std::int64_t row) { return args.modulation.of(begin + row, width_); };
        const auto first = [&](std::int64_t from, std::int64_t to) {
            activate(from, to, [&](std::int64_t row) { return modulation(row); });
        };
        gemm<S, Op, Start::kBias>(rows_, x_, x_stride_, mlp_.w1, a_, stride_, mlp_.b1, first);
        const std::int64_t next = begin + rows_;
        const auto second = [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t row = from; row < to; ++row) {
                prefetch_row<S>(args.score + (begin + row) * args.score_stride, dim_);
                if (next + row < args.rows) prefetch_row<S>(args.x + (next + row) * args.x_stride, dim_);
            }
            activate(from, to, [&](std::int64_t row) { return modulation(row) + 2 * width_; });
        };
        gemm<S, Op, Start::kBias>(rows_, h_, h_stride_, mlp_.w2, a_, stride_, mlp_.b2, second);
        if (mlp_.pull.data) {
            const auto nothing = [](std::int64_t, std::int64_t) {};
            gemm<S, FloatOperand<S>, Start::kZero>(rows_, centred_, dim_stride_, mlp_.pull, pulled_, dim_stride_,
                                                   nullptr, nothing);
        }
        const auto store = [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t row = from; row < to; ++row) {
                store_score(row, 1.0f / args.sigma[begin + row], args.score + (begin + row) * args.score_stride);
            }
        };
        gemm<S, Op, Start::kBias>(rows_, h_, h_stride_, mlp_.w3_direct, score_, dim_stride_, mlp_.b3, store);
    }

  private:
    [[gnu::always_inline]] void load_x(const float* x, std::int64_t stride) {
        const std::int64_t padded = round_up(rows_, S::kTileRows);
        for (std::int64_t i = 0; i < rows_; ++i) {
            load_operand_row<S, Op>(x + i * stride, dim_, x_ + i * x_stride_);
            if (centred_) centre_row<S>(x + i * stride, mlp_.mean, dim_, centred_ + i * dim_stride_);
        }
        zero_rows(x_, x_stride_, rows_, padded);
        zero_rows(h_, h_stride_, rows_, padded);
        if (centred_) zero_rows(centred_, dim_stride_, rows_, padded);
    }

    // h = SiLU(LN(a) (1 + gain) + shift) on a tile; `modulation(row)` is the layer's gain, then its shift.
    template <class ModulationOf>
    [[gnu::always_inline]] void activate(std::int64_t from, std::int64_t to, const ModulationOf& modulation) {
        const std::int64_t width = width_;
        for (std::int64_t row = from; row < to; ++row) {
            rstd_[row] = row_rstd<P>(a_ + row * stride_, width, inverse_width_);
        }
        for (std::int64_t row = from; row < to; ++row) {
            const float* gain = modulation(row);
            const float* a = a_ + row * stride_;
            const auto rstd = P::set1(rstd_[row]);
            Operand* h = h_ + row * h_stride_;
            for (std::int64_t j = 0; j < width; j += P::kLanes) {
                const SiluPoint<P, Op::kExactSigmoid> point(P::load(a + j), rstd, gain + j, gain + width + j);
                store_operands<S, Op>(h + j, point.value);
            }
        }
    }

    [[gnu::always_inline]] void store_score(std::int64_t row, float inverse_sigma, float* out) {
        const std::int64_t dim = dim_;
        const float* score = score_ + row * dim_stride_;
        const float* pulled = centred_ ? pulled_ + row * dim_stride_ : nullptr;
        const Vec scale = S::set1(inverse_sigma);
        for (std::int64_t j = 0; j < dim; j += S::kLanes) {
            const Vec value = S::load(score + j) * scale;
            const Vec total = pulled ? value + S::load(pulled + j) : value;
            if (j + S::kLanes <= dim) {
                S::store(out + j, total);
            } else {
                S::store_first(out + j, dim - j, total);
            }
        }
    }

    const PackedMlp& mlp_;
    std::int64_t rows_, width_, dim_;
    float inverse_width_;
    std::int64_t stride_, dim_stride_, x_stride_, h_stride_;
    std::int64_t floats_ = 0;
    Operand* x_;
    Operand* h_;
    float* a_;  // what a product just left
    float* score_;
    float* rstd_;
    float* centred_ = nullptr;  // x - mean
    float* pulled_ = nullptr;   // -precision (x - mean)
};

template <class S, class Op>
[[gnu::always_inline]] inline std::int64_t score_scratch(const PackedMlp& mlp, std::int64_t rows) {
    return ScoreBlock<S, Op>(mlp, rows, nullptr).floats();
}

template <class S, class Op>
[[gnu::always_inline]] inline void score_block(const PackedMlp& mlp, const ScoreMlpArgs<float>& args,
                                               std::int64_t begin, std::int64_t end, float* scratch) {
    ScoreBlock<S, Op>(mlp, end - begin, scratch).run(args, begin);
}

}  // namespace fastimpute
