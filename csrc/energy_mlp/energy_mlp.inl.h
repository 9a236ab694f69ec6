#pragma once

#include "common/mlp_rows.inl.h"
#include "energy_mlp/energy_mlp.h"

namespace fastimpute {

// The energy network on one block of rows, once for all instruction sets. S: vectors, Op: what the products multiply.
// Notation of the comments: a pre-activation (centred), r = rstd, n = LN(a) = r a, g = gradient at n, t.. = tangent
// along the vector.
template <class S, class Op>
class EnergyBlock {
  public:
    using P = Pair<S>;
    using Vec = typename P::Vec;
    using Operand = typename Op::Type;

    [[gnu::always_inline]] EnergyBlock(const PackedMlp& mlp, std::int64_t rows, bool want_hvp, float* scratch)
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
        a1_ = carver.template take<float>(padded * stride_);
        slope1_ = carver.template take<float>(padded * stride_);
        a2_ = carver.template take<float>(padded * stride_);
        score_ = carver.template take<float>(padded * dim_stride_);
        grad_ = carver.template take<float>(S::kTileRows * stride_);
        scalars_ = carver.template take<RowScalars>(padded);
        if (mlp.pull.data) centred_ = carver.template take<float>(padded * dim_stride_);
        work_ = a2_;
        if (want_hvp) {
            work_ = carver.template take<float>(padded * stride_);
            curve1_ = carver.template take<float>(padded * stride_);
            curve2_ = carver.template take<float>(padded * stride_);
            da1_ = carver.template take<float>(padded * stride_);
            da2_ = carver.template take<float>(padded * stride_);
            tangent1_ = carver.template take<float>(padded * stride_);
            hvp_ = carver.template take<float>(padded * dim_stride_);
        }
        floats_ = carver.used;
    }

    std::int64_t floats() const { return floats_; }

    // Rows [begin, begin + rows) of the arguments.
    template <bool want_hvp>
    [[gnu::always_inline]] void run(const EnergyMlpArgs<float>& args, std::int64_t begin) {
        load_x(args.x + begin * args.x_stride, args.x_stride);
        const auto modulation = [&](std::int64_t row) { return args.modulation.of(begin + row, width_); };
        const float* next_x = args.x + (begin + rows_) * args.x_stride;
        const std::int64_t next_rows = args.rows - (begin + rows_);
        const auto fetch_x = [&](std::int64_t row) {
            if (row < next_rows) prefetch_row<S>(next_x + row * args.x_stride, dim_);
        };
        value_and_score<want_hvp>(modulation, fetch_x, args.log_p + begin, args.score + begin * args.score_stride,
                                  args.score_stride);
        if constexpr (want_hvp) {
            const float* vector = args.vector ? args.vector + begin * args.vector_stride : nullptr;
            hessian_vector(vector, args.vector_stride, args.hvp + begin * args.hvp_stride, args.hvp_stride);
        }
    }

  private:
    using Point = SiluPoint<P, Op::kExactSigmoid>;
    struct RowScalars {
        float rstd1, rstd2;    // r
        float along1, along2;  // mean(g n)
        float slant1, slant2;  // mean(n ta)
        float t_along;         // the part of mean(g n)'s tangent that needs a sum over the row
        float log_p;
    };
    static constexpr auto kNothing = [](std::int64_t, std::int64_t) {};

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

    // Passes over a tile run one after another, not row by row: the sums of its rows (a chain each) overlap.
    template <class Body>
    [[gnu::always_inline]] static void each_row(std::int64_t first, std::int64_t end, const Body& body) {
        for (std::int64_t row = first; row < end; ++row) body(row);
    }

    template <bool want_hvp, class ModulationOf, class Fetch>
    [[gnu::always_inline]] void value_and_score(const ModulationOf& modulation, const Fetch& fetch_x, float* log_p,
                                                float* score, std::int64_t score_stride) {
        const auto first = [&](std::int64_t begin, std::int64_t end) {
            each_row(begin, end, [&](std::int64_t row) {
                scalars_[row].rstd1 = row_rstd<P>(row_of(a1_, row), width_, inverse_width_);
            });
            each_row(begin, end, [&](std::int64_t row) { forward_first<want_hvp>(row, modulation(row)); });
        };
        gemm<S, Op, Start::kBias>(rows_, x_, x_stride_, mlp_.w1, a1_, stride_, mlp_.b1, first);
        const auto second = [&](std::int64_t begin, std::int64_t end) {
            each_row(begin, end, fetch_x);
            each_row(begin, end, [&](std::int64_t row) {
                scalars_[row].rstd2 = row_rstd<P>(row_of(a2_, row), width_, inverse_width_);
            });
            each_row(begin, end, [&](std::int64_t row) {
                turn_second<want_hvp>(row, modulation(row) + 2 * width_, row_of(grad_, row - begin));
            });
            each_row(begin, end, [&](std::int64_t row) {
                norm_backward<want_hvp>(row, row_of(grad_, row - begin), row_of(a2_, row), scalars_[row].rstd2,
                                        scalars_[row].along2, da2_);
            });
        };
        gemm<S, Op, Start::kBias>(rows_, h_, h_stride_, mlp_.w2, a2_, stride_, mlp_.b2, second);
        const auto back = [&](std::int64_t begin, std::int64_t end) {
            each_row(begin, end, [&](std::int64_t row) { prefetch_row<S>(score + row * score_stride, dim_); });
            each_row(begin, end, [&](std::int64_t row) { backward_first<want_hvp>(row); });
            each_row(begin, end, [&](std::int64_t row) {
                norm_backward<want_hvp>(row, row_of(work_, row), row_of(a1_, row), scalars_[row].rstd1,
                                        scalars_[row].along1, da1_);
            });
        };
        gemm<S, Op, Start::kZero>(rows_, h_, h_stride_, mlp_.w2_back, work_, stride_, nullptr, back);
        const auto store = [&](std::int64_t begin, std::int64_t end) {
            each_row(begin, end, [&](std::int64_t row) {
                store_row<S>(score_ + row * dim_stride_, dim_, score + row * score_stride);
                log_p[row] = scalars_[row].log_p;
            });
        };
        if (mlp_.pull.data) {
            const auto square = [&](std::int64_t begin, std::int64_t end) {
                each_row(begin, end, [&](std::int64_t row) {
                    scalars_[row].log_p += 0.5f * dot_row<S>(centred_ + row * dim_stride_, score_ + row * dim_stride_,
                                                             round_up(dim_, S::kLanes));
                });
            };
            pull(centred_, score_, square);
            finish<Start::kAccumulate>(score_, store);
        } else {
            finish<Start::kZero>(score_, store);
        }
    }

    [[gnu::always_inline]] float* row_of(float* buffer, std::int64_t row) const { return buffer + row * stride_; }

    // out = -precision in, always in float32.
    template <class After>
    [[gnu::always_inline]] void pull(const float* in, float* out, const After& after) {
        gemm<S, FloatOperand<S>, Start::kZero>(rows_, in, dim_stride_, mlp_.pull, out, dim_stride_, nullptr, after);
    }

    // Back through W1, from the operands in h_.
    template <Start start, class After>
    [[gnu::always_inline]] void finish(float* out, const After& after) {
        gemm<S, Op, start>(rows_, h_, h_stride_, mlp_.w1_back, out, dim_stride_, nullptr, after);
    }

    template <bool want_hvp>
    [[gnu::always_inline]] void forward_first(std::int64_t row, const float* modulation) {
        const std::int64_t width = width_;
        const float* a = row_of(a1_, row);
        float* slope = row_of(slope1_, row);
        float* curve = want_hvp ? row_of(curve1_, row) : nullptr;
        Operand* h = h_ + row * h_stride_;
        const Vec rstd = P::set1(scalars_[row].rstd1);
        for (std::int64_t j = 0; j < width; j += P::kLanes) {
            const Point point(P::load(a + j), rstd, modulation + j, modulation + width + j);
            P::store(slope + j, point.slope());
            store_operands<S, Op>(h + j, point.value);
            if constexpr (want_hvp) P::store(curve + j, point.curvature());
        }
    }

    // Forward through the second layer and the head, and back to g2; da2 then replaces h1 as the operand.
    template <bool want_hvp>
    [[gnu::always_inline]] void turn_second(std::int64_t row, const float* modulation, float* grads) {
        const std::int64_t width = width_;
        const float* a = row_of(a2_, row);
        const float* w3_row = mlp_.w3;
        float* curve = want_hvp ? row_of(curve2_, row) : nullptr;
        RowScalars& scalars = scalars_[row];
        const Vec rstd = P::set1(scalars.rstd2);
        Vec value = P::zero(), along = P::zero();
        for (std::int64_t j = 0; j < width; j += P::kLanes) {
            const Vec at = P::load(a + j);
            const Point point(at, rstd, modulation + j, modulation + width + j);
            const Vec w3 = P::load(w3_row + j);
            const Vec grad = w3 * point.slope();
            value = P::fma(w3, point.value, value);
            along = P::fma(grad, at, along);
            P::store(grads + j, grad);
            if constexpr (want_hvp) P::store(curve + j, w3 * point.curvature());
        }
        scalars.along2 = P::sum(along) * inverse_width_ * scalars.rstd2;
        scalars.log_p = P::sum(value) + mlp_.b3[0];
    }

    // da = r (g - n mean(g n)), n = r a, into the operands, and as float32 for the tangents.
    template <bool keep>
    [[gnu::always_inline]] void norm_backward(std::int64_t row, const float* grad, const float* a, float rstd,
                                              float along, float* kept) {
        const std::int64_t width = width_;
        Operand* out = h_ + row * h_stride_;
        const Vec of_grad = P::set1(rstd), of_a = P::set1(rstd * rstd * along);
        for (std::int64_t j = 0; j < width; j += P::kLanes) {
            const Vec da = P::fms(of_grad, P::load(grad + j), of_a * P::load(a + j));
            store_operands<S, Op>(out + j, da);
            if constexpr (keep) P::store(row_of(kept, row) + j, da);
        }
    }

    template <bool want_hvp>
    [[gnu::always_inline]] void backward_first(std::int64_t row) {
        const std::int64_t width = width_;
        const float* a = row_of(a1_, row);
        const float* slope = row_of(slope1_, row);
        float* grad = row_of(work_, row);
        float* curve = want_hvp ? row_of(curve1_, row) : nullptr;
        Vec along = P::zero();
        for (std::int64_t j = 0; j < width; j += P::kLanes) {
            const Vec dh = P::load(grad + j);
            const Vec g = dh * P::load(slope + j);
            along = P::fma(g, P::load(a + j), along);
            P::store(grad + j, g);
            if constexpr (want_hvp) P::store(curve + j, dh * P::load(curve + j));
        }
        scalars_[row].along1 = P::sum(along) * inverse_width_ * scalars_[row].rstd1;
    }

    [[gnu::always_inline]] void hessian_vector(const float* vector, std::int64_t vector_stride, float* hvp,
                                               std::int64_t hvp_stride) {
        const auto first = [&](std::int64_t begin, std::int64_t end) {
            each_row(begin, end, [&](std::int64_t row) {
                scalars_[row].slant1 = scalars_[row].rstd1 * mean_product(row_of(a1_, row), row_of(tangent1_, row));
            });
            each_row(begin, end, [&](std::int64_t row) { tangent_first(row); });
        };
        if (vector == nullptr && mlp_.gram.data) {
            // W1 s = (W1 W1^T) da1, and da1 is still in the operands.
            gemm<S, Op, Start::kZero>(rows_, h_, h_stride_, mlp_.gram, tangent1_, stride_, nullptr, first);
        } else {
            for (std::int64_t i = 0; i < rows_; ++i) {
                const float* v = vector ? vector + i * vector_stride : score_ + i * dim_stride_;
                load_operand_row<S, Op>(v, dim_, x_ + i * x_stride_);
                if (vector && centred_) load_operand_row<S, FloatOperand<S>>(v, dim_, centred_ + i * dim_stride_);
            }
            gemm<S, Op, Start::kZero>(rows_, x_, x_stride_, mlp_.w1, tangent1_, stride_, nullptr, first);
        }
        const auto second = [&](std::int64_t begin, std::int64_t end) {
            each_row(begin, end, [&](std::int64_t row) {
                scalars_[row].slant2 = scalars_[row].rstd2 * mean_product(row_of(a2_, row), row_of(work_, row));
            });
            each_row(begin, end, [&](std::int64_t row) { tangent_second(row, row_of(grad_, row - begin)); });
            each_row(begin, end, [&](std::int64_t row) {
                const RowScalars& scalars = scalars_[row];
                norm_backward_tangent(row, row_of(a2_, row), row_of(work_, row), row_of(grad_, row - begin),
                                      row_of(da2_, row), scalars.rstd2, scalars.along2, scalars.slant2);
            });
        };
        gemm<S, Op, Start::kZero>(rows_, h_, h_stride_, mlp_.w2, work_, stride_, nullptr, second);
        const auto back = [&](std::int64_t begin, std::int64_t end) {
            each_row(begin, end, [&](std::int64_t row) { prefetch_row<S>(hvp + row * hvp_stride, dim_); });
            each_row(begin, end, [&](std::int64_t row) { tangent_backward_first(row); });
            each_row(begin, end, [&](std::int64_t row) {
                const RowScalars& scalars = scalars_[row];
                norm_backward_tangent(row, row_of(a1_, row), row_of(tangent1_, row), row_of(work_, row),
                                      row_of(da1_, row), scalars.rstd1, scalars.along1, scalars.slant1);
            });
        };
        gemm<S, Op, Start::kZero>(rows_, h_, h_stride_, mlp_.w2_back, work_, stride_, nullptr, back);
        const auto store = [&](std::int64_t begin, std::int64_t end) {
            each_row(begin, end,
                     [&](std::int64_t row) { store_row<S>(hvp_ + row * dim_stride_, dim_, hvp + row * hvp_stride); });
        };
        if (mlp_.pull.data) {
            pull(vector ? centred_ : score_, hvp_, kNothing);
            finish<Start::kAccumulate>(hvp_, store);
        } else {
            finish<Start::kZero>(hvp_, store);
        }
    }

    [[gnu::always_inline]] float mean_product(const float* x, const float* y) const {
        return dot_row<P>(x, y, width_) * inverse_width_;
    }

    // tn = r (ta - n mean(n ta)), in place; th = slope tn.
    [[gnu::always_inline]] void tangent_first(std::int64_t row) {
        const std::int64_t width = width_;
        const float* a = row_of(a1_, row);
        const float* slope = row_of(slope1_, row);
        float* tangent = row_of(tangent1_, row);
        Operand* out = h_ + row * h_stride_;
        const float rstd = scalars_[row].rstd1;
        const Vec of_tangent = P::set1(rstd), of_a = P::set1(rstd * rstd * scalars_[row].slant1);
        for (std::int64_t j = 0; j < width; j += P::kLanes) {
            const Vec tn = P::fms(of_tangent, P::load(tangent + j), of_a * P::load(a + j));
            P::store(tangent + j, tn);
            store_operands<S, Op>(out + j, tn * P::load(slope + j));
        }
    }

    // The tangent of da = r (g - n mean(g n)), where tr = -r^2 mean(n ta) and
    // mean(g tn) = mean(da tn) / r + mean(g n) mean(n tn), mean(n tn) = mean(n ta) eps r^3:
    // no other copy of g is needed.
    [[gnu::always_inline]] void norm_backward_tangent(std::int64_t row, const float* a, const float* tn,
                                                      const float* tg, const float* da, float rstd, float along,
                                                      float slant) {
        const std::int64_t width = width_;
        Operand* out = h_ + row * h_stride_;
        const float eps = static_cast<float>(kLayerNormEps);
        const float t_along = scalars_[row].t_along + along * slant * eps * rstd * rstd * rstd;
        const Vec of_tg = P::set1(rstd), of_tn = P::set1(rstd * along), of_a = P::set1(rstd * rstd * t_along);
        const Vec of_da = P::set1(rstd * slant);
        for (std::int64_t j = 0; j < width; j += P::kLanes) {
            const Vec taken = P::fma(of_da, P::load(da + j), of_a * P::load(a + j));
            const Vec tda = P::fnma(of_tn, P::load(tn + j), P::fms(of_tg, P::load(tg + j), taken));
            store_operands<S, Op>(out + j, tda);
        }
    }

    // mean(tg n) + mean(da tn) / r, from the sums of tg a and da tn.
    [[gnu::always_inline]] float along_tangent(Vec tg_a, Vec da_tn, float rstd) const {
        return (P::sum(tg_a) * rstd + P::sum(da_tn) / rstd) * inverse_width_;
    }

    [[gnu::always_inline]] void tangent_second(std::int64_t row, float* grad_tangents) {
        const std::int64_t width = width_;
        const float* a = row_of(a2_, row);
        const float* curve = row_of(curve2_, row);
        const float* da = row_of(da2_, row);
        float* tangent = row_of(work_, row);
        RowScalars& scalars = scalars_[row];
        const float rstd = scalars.rstd2;
        const Vec of_tangent = P::set1(rstd), of_a = P::set1(rstd * rstd * scalars.slant2);
        Vec tg_a = P::zero(), da_tn = P::zero();
        for (std::int64_t j = 0; j < width; j += P::kLanes) {
            const Vec at = P::load(a + j);
            const Vec tn = P::fms(of_tangent, P::load(tangent + j), of_a * at);
            const Vec tg = tn * P::load(curve + j);
            tg_a = P::fma(tg, at, tg_a);
            da_tn = P::fma(P::load(da + j), tn, da_tn);
            P::store(tangent + j, tn);
            P::store(grad_tangents + j, tg);
        }
        scalars.t_along = along_tangent(tg_a, da_tn, rstd);
    }

    [[gnu::always_inline]] void tangent_backward_first(std::int64_t row) {
        const std::int64_t width = width_;
        const float* a = row_of(a1_, row);
        const float* slope = row_of(slope1_, row);
        const float* curve = row_of(curve1_, row);
        const float* tangent = row_of(tangent1_, row);
        const float* da = row_of(da1_, row);
        float* work = row_of(work_, row);
        Vec tg_a = P::zero(), da_tn = P::zero();
        for (std::int64_t j = 0; j < width; j += P::kLanes) {
            const Vec tn = P::load(tangent + j);
            const Vec tg = P::fma(P::load(work + j), P::load(slope + j), P::load(curve + j) * tn);
            tg_a = P::fma(tg, P::load(a + j), tg_a);
            da_tn = P::fma(P::load(da + j), tn, da_tn);
            P::store(work + j, tg);
        }
        scalars_[row].t_along = along_tangent(tg_a, da_tn, scalars_[row].rstd1);
    }

    const PackedMlp& mlp_;
    std::int64_t rows_, width_, dim_;
    float inverse_width_;
    std::int64_t stride_, dim_stride_, x_stride_, h_stride_;
    std::int64_t floats_ = 0;
    Operand* x_;  // x, then the vector
    Operand* h_;  // h1, da2, da1, th1, tda2, tda1 in turn: a tile is read before it is overwritten
    float* a1_;
    float* slope1_;  // dh1 / dn1
    float* a2_;
    float* score_;
    float* grad_;  // g2, then tg2, of one tile
    RowScalars* scalars_;
    float* centred_ = nullptr;  // x - mean, then the vector
    float* work_;               // what a product just left
    float* curve1_ = nullptr;   // dh1 d2h1 / dn1^2
    float* curve2_ = nullptr;   // w3 d2h2 / dn2^2
    float* da1_ = nullptr;
    float* da2_ = nullptr;
    float* tangent1_ = nullptr;  // tn1
    float* hvp_ = nullptr;
};

template <class S, class Op>
[[gnu::always_inline]] inline std::int64_t energy_scratch(const PackedMlp& mlp, std::int64_t rows, bool want_hvp) {
    return EnergyBlock<S, Op>(mlp, rows, want_hvp, nullptr).floats();
}

template <class S, class Op>
[[gnu::always_inline]] inline void energy_block(const PackedMlp& mlp, const EnergyMlpArgs<float>& args,
                                                std::int64_t begin, std::int64_t end, float* scratch) {
    EnergyBlock<S, Op> block(mlp, end - begin, args.want_hvp, scratch);
    if (args.want_hvp) {
        block.template run<true>(args, begin);
    } else {
        block.template run<false>(args, begin);
    }
}

}  // namespace fastimpute
