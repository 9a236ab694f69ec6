#pragma once

#include <cstdint>

#include "unrolled_attention/sequence_tile.inl.h"

namespace fastimpute {

// The solution of one tile of sequences, once for all instruction sets. The head matrix on the frames that occur and
// every iterate stay in L1 and L2 until the last iteration.
template <class S>
class UnrolledTile : SequenceTile<S> {
  public:
    using Tile = SequenceTile<S>;
    using Tile::kColumns;
    using Tile::kLanes;
    using typename Tile::Frames;
    using typename Tile::Vec;

    static std::int64_t scratch(const UnrolledAttention<float>& params) {
        const std::int64_t padded = round_up(params.frames, S::kTileRows);
        const std::int64_t lanes = round_up(params.channels > kColumns ? params.channels : kColumns, kLanes);
        const std::int64_t tables = 4 * padded * params.frames + 4 * params.frames + params.channels;
        return tables + kVectors * padded * lanes + kLaneTables * lanes + kBlocks * Tile::kLine;
    }

    UnrolledTile(const UnrolledAttention<float>& params, const UnrolledPlan<float>& plan, std::int64_t begin,
                 std::int64_t end, float* scratch)
        : Tile(params, plan.order + begin, end - begin, scratch), plan_(plan) {
        heads_seen_ = take_heads(seen_, seen_);
        heads_cor_ = take_heads(seen_, hidden_);
        heads_cor_transposed_ = take_heads(hidden_, seen_);
        heads_hidden_ = take_heads(hidden_, hidden_);
        take_lane_tables();
        take_links();
        inner_ = take_system(seen_);
        outer_ = take_system(hidden_);
        mu_ = take_vector(hidden_);
        from_seen_ = take_vector(hidden_);
    }

    void solve() {
        load(seen_, params_.x, params_.x_stride, 0, inner_.right);
        solve_seen();
        multiply(heads_cor_transposed_, hidden_, seen_, inner_.solution, mu_);
        scale(hidden_, mu_);
        load(hidden_, params_.v, params_.v_stride, 1, outer_.right);
        each(hidden_, [&](std::int64_t at, std::int64_t lane) {
            S::store(outer_.right + at, S::fms(S::load(alpha_ + lane), S::load(mu_ + at), S::load(outer_.right + at)));
        });
        iterate(outer_, params_.outer, [&](const float* s, float* image) { product(s, image); }, false);
        this->write(outer_.solution, mu_);
    }

  private:
    using Tile::at_row;
    using Tile::channels_;
    using Tile::each;
    using Tile::hidden_;
    using Tile::is_missing;
    using Tile::load;
    using Tile::order_;
    using Tile::panels;
    using Tile::params_;
    using Tile::seen_;
    using Tile::sequences_;
    using Tile::take;
    using Tile::take_heads;
    using Tile::take_vector;
    using Tile::vectors_;
    using Tile::vectors_of;

    static constexpr std::int64_t kVectors = 17;     // at most so many vectors of all frames
    static constexpr std::int64_t kLaneTables = 10;  // and so many of one number per column
    static constexpr std::int64_t kBlocks = 40;

    // One system of equations and the vectors of its iteration.
    struct System {
        const Frames* frames = nullptr;
        float *right = nullptr, *solution = nullptr, *residual = nullptr, *direction = nullptr, *image = nullptr;
        float* preconditioned = nullptr;
    };

    System take_system(const Frames& frames) {
        System system{&frames,
                      take_vector(frames),
                      take_vector(frames),
                      take_vector(frames),
                      take_vector(frames),
                      take_vector(frames)};
        const bool separate = &frames == &seen_ && plan_.decay != nullptr;
        system.preconditioned = separate ? take_vector(frames) : system.residual;
        return system;
    }

    void take_lane_tables() {
        float** tables[] = {&alpha_, &alpha_squared_, &sigma_squared_, &variance_, &inverse_variance_,
                            &step_,  &momentum_,      &energy_,        &sums_};
        for (float** table : tables) {
            *table = take(vectors_ * kLanes);
            for (std::int64_t lane = 0; lane < vectors_ * kLanes; ++lane) (*table)[lane] = 0.0f;
        }
        for (std::int64_t i = 0; i < sequences_; ++i) {
            const float alpha = params_.alpha[order_[i]], sigma = params_.sigma[order_[i]];
            for (std::int64_t c = 0; c < channels_; ++c) {
                const std::int64_t lane = i * channels_ + c;
                alpha_[lane] = alpha;
                alpha_squared_[lane] = alpha * alpha;
                sigma_squared_[lane] = sigma * sigma;
                variance_[lane] = params_.variance ? params_.variance[c] : 1.0f;
                inverse_variance_[lane] = 1.0f / variance_[lane];
            }
        }
    }

    // Each frame seen knows its correlation with the one seen before it in the same sequence.
    void take_links() {
        if (plan_.decay == nullptr) return;
        decay_ = take_vector(seen_);
        weight_ = take_vector(seen_);
        each(seen_, [&](std::int64_t at, std::int64_t) {
            S::store(decay_ + at, S::zero());
            S::store(weight_ + at, S::zero());
        });
        for (std::int64_t i = 0; i < sequences_; ++i) {
            std::int64_t previous = -1;
            for (std::int64_t row = 0; row < seen_.count; ++row) {
                const std::int64_t frame = seen_.frame[row];
                if (is_missing(i, frame)) continue;
                const std::int64_t gap = previous < 0 ? 0 : frame - previous;
                at_row(seen_, decay_, row, i, [&](std::int64_t, float& cell) { cell = plan_.decay[gap]; });
                at_row(seen_, weight_, row, i, [&](std::int64_t, float& cell) { cell = plan_.weight[gap]; });
                previous = frame;
            }
        }
    }

    // ---- products --------------------------------------------------------------------------------------------------

    template <int V>
    [[gnu::noinline]] static void multiply_panel(const float* heads, std::int64_t rows, std::int64_t inputs,
                                                 const float* in, float* out) {
        constexpr std::int64_t kWidth = V * kLanes;
        for (std::int64_t row = 0; row < rows; row += S::kTileRows) {
            panel_tile<S, FloatOperand<S>, S::kTileRows, V, Start::kZero>(inputs, heads + row * inputs, inputs, in,
                                                                          out + row * kWidth, kWidth, nullptr);
        }
    }

    void multiply(const float* heads, const Frames& to, const Frames& from, const float* in, float* out) const {
        for (std::int64_t panel = 0; panel < panels(); ++panel) {
            const float* source = in + panel * kColumns * from.padded;
            float* target = out + panel * kColumns * to.padded;
            if (vectors_of(panel) == 2) {
                multiply_panel<2>(heads, to.padded, from.count, source, target);
            } else {
                multiply_panel<1>(heads, to.padded, from.count, source, target);
            }
        }
    }

    // The channels' variances, and zero where the sequence lacks the frame.
    void scale(const Frames& frames, float* values) const {
        each(frames, [&](std::int64_t at, std::int64_t lane) {
            S::store(values + at, S::load(values + at) * (S::load(frames.keep + at) * S::load(variance_ + lane)));
        });
    }

    // image = (alpha^2 (S_mm - S_mo S_oo^-1 S_om) + sigma^2) s
    void product(const float* s, float* image) {
        multiply(heads_cor_, seen_, hidden_, s, inner_.right);
        scale(seen_, inner_.right);
        solve_seen();
        multiply(heads_cor_transposed_, hidden_, seen_, inner_.solution, from_seen_);
        multiply(heads_hidden_, hidden_, hidden_, s, image);
        each(hidden_, [&](std::int64_t at, std::int64_t lane) {
            const Vec covariance = S::load(hidden_.keep + at) * S::load(variance_ + lane);
            const Vec schur = (S::load(image + at) - S::load(from_seen_ + at)) * covariance;
            S::store(image + at,
                     S::fma(S::load(alpha_squared_ + lane), schur, S::load(sigma_squared_ + lane) * S::load(s + at)));
        });
    }

    // ---- iterations ------------------------------------------------------------------------------------------------

    void solve_seen() {
        const auto apply = [&](const float* u, float* image) {
            multiply(heads_seen_, seen_, seen_, u, image);
            scale(seen_, image);
        };
        iterate(inner_, params_.inner, apply, plan_.decay != nullptr);
    }

    // residual -> preconditioned: B^T W B / variance, B y = y - decay y_previous over the frames of each sequence.
    void tridiagonal(const System& system) const {
        for (std::int64_t panel = 0; panel < panels(); ++panel) {
            const std::int64_t width = vectors_of(panel) * kLanes;
            const std::int64_t begin = panel * kColumns * seen_.padded;
            for (std::int64_t column = 0; column < width; column += kLanes)
                tridiagonal_column(system, begin + column, width, panel * kColumns + column);
        }
    }
    void tridiagonal_column(const System& system, std::int64_t begin, std::int64_t width, std::int64_t lane) const {
        const Vec one = S::set1(1.0f), inverse = S::load(inverse_variance_ + lane);
        Vec previous = S::zero(), carried = S::zero();
        for (std::int64_t row = 0; row < seen_.count; ++row) {
            const std::int64_t at = begin + row * width;
            const Vec value = S::load(system.residual + at), keep = S::load(seen_.keep + at);
            const Vec increment = S::fnma(S::load(decay_ + at), previous, value);
            S::store(system.preconditioned + at, S::load(weight_ + at) * increment);
            previous = S::fma(keep, value, (one - keep) * previous);
        }
        for (std::int64_t row = seen_.count - 1; row >= 0; --row) {
            const std::int64_t at = begin + row * width;
            const Vec value = S::load(system.preconditioned + at), keep = S::load(seen_.keep + at);
            S::store(system.preconditioned + at, (value - carried) * (keep * inverse));
            carried = S::fma(keep, S::load(decay_ + at) * value, (one - keep) * carried);
        }
    }

    // From zero: system.solution of "apply = system.right".
    template <class Apply>
    void iterate(const System& system, const IterationRates<float>& rates, const Apply& apply, bool precondition) {
        each(*system.frames, [&](std::int64_t at, std::int64_t) {
            S::store(system.solution + at, S::zero());
            S::store(system.direction + at, S::zero());
            S::store(system.residual + at, S::load(system.right + at));
        });
        if (rates.rates == nullptr) return conjugate_gradients(system, rates.count, apply, precondition);
        for (std::int64_t index = 0; index < rates.count; ++index) {
            if (index > 0) {
                apply(system.solution, system.image);
                each(*system.frames, [&](std::int64_t at, std::int64_t) {
                    S::store(system.residual + at, S::load(system.right + at) - S::load(system.image + at));
                });
            }
            if (precondition) tridiagonal(system);
            fill_rates(rates, index);
            each(*system.frames, [&](std::int64_t at, std::int64_t lane) {
                const Vec direction = S::fma(S::load(momentum_ + lane), S::load(system.direction + at),
                                             S::load(system.preconditioned + at));
                S::store(system.direction + at, direction);
                S::store(system.solution + at, S::fma(S::load(step_ + lane), direction, S::load(system.solution + at)));
            });
        }
    }

    void fill_rates(const IterationRates<float>& rates, std::int64_t index) {
        for (std::int64_t i = 0; i < sequences_; ++i) {
            const float* rate = rates.rates + ((rates.rows == 1 ? 0 : order_[i] * rates.count) + index) * 2;
            for (std::int64_t c = 0; c < channels_; ++c) {
                step_[i * channels_ + c] = rate[0];
                momentum_[i * channels_ + c] = rate[1];
            }
        }
    }

    template <class Apply>
    void conjugate_gradients(const System& system, std::int64_t count, const Apply& apply, bool precondition) {
        // The outer system's energy must survive the inner iterations, which write the other three tables.
        float* energy = &system == &outer_ ? energy_ : momentum_;
        if (precondition) tridiagonal(system);
        each(*system.frames, [&](std::int64_t at, std::int64_t) {
            S::store(system.direction + at, S::load(system.preconditioned + at));
        });
        dot(*system.frames, system.residual, system.preconditioned, energy);
        for (std::int64_t index = 0; index < count; ++index) {
            apply(system.direction, system.image);
            dot(*system.frames, system.direction, system.image, step_);
            divide(energy, step_, step_);
            each(*system.frames, [&](std::int64_t at, std::int64_t lane) {
                const Vec step = S::load(step_ + lane);
                S::store(system.solution + at,
                         S::fma(step, S::load(system.direction + at), S::load(system.solution + at)));
                S::store(system.residual + at,
                         S::fnma(step, S::load(system.image + at), S::load(system.residual + at)));
            });
            if (index + 1 == count) break;
            if (precondition) tridiagonal(system);
            dot(*system.frames, system.residual, system.preconditioned, step_);
            divide(step_, energy, sums_);
            for (std::int64_t lane = 0; lane < vectors_ * kLanes; ++lane) energy[lane] = step_[lane];
            each(*system.frames, [&](std::int64_t at, std::int64_t lane) {
                S::store(system.direction + at, S::fma(S::load(sums_ + lane), S::load(system.direction + at),
                                                       S::load(system.preconditioned + at)));
            });
        }
    }

    // The product of two vectors summed over frames and channels of each sequence, in all its columns.
    void dot(const Frames& frames, const float* left, const float* right, float* out) {
        for (std::int64_t lane = 0; lane < vectors_ * kLanes; lane += kLanes) S::store(sums_ + lane, S::zero());
        for (std::int64_t panel = 0; panel < panels(); ++panel) {
            const std::int64_t width = vectors_of(panel) * kLanes;
            const std::int64_t begin = panel * kColumns * frames.padded;
            for (std::int64_t column = 0; column < width; column += kLanes) {
                Vec sum = S::zero();
                for (std::int64_t row = 0; row < frames.count; ++row) {
                    const std::int64_t at = begin + row * width + column;
                    sum = S::fma(S::load(left + at), S::load(right + at), sum);
                }
                S::store(sums_ + panel * kColumns + column, sum);
            }
        }
        for (std::int64_t i = 0; i < sequences_; ++i) {
            float sum = 0.0f;
            for (std::int64_t c = 0; c < channels_; ++c) sum += sums_[i * channels_ + c];
            for (std::int64_t c = 0; c < channels_; ++c) out[i * channels_ + c] = sum;
        }
    }

    // Zero where the denominator is not positive: a solved sequence stays where it is.
    void divide(const float* value, const float* by, float* out) const {
        for (std::int64_t lane = 0; lane < vectors_ * kLanes; ++lane)
            out[lane] = by[lane] > 0.0f ? value[lane] / by[lane] : 0.0f;
    }

    const UnrolledPlan<float>& plan_;
    float *heads_seen_, *heads_cor_, *heads_cor_transposed_, *heads_hidden_;
    float *alpha_, *alpha_squared_, *sigma_squared_, *variance_, *inverse_variance_;
    float *step_, *momentum_, *energy_, *sums_;
    float *decay_ = nullptr, *weight_ = nullptr;
    System inner_, outer_;
    float *mu_, *from_seen_;
};

}  // namespace fastimpute
