#pragma once

#include "common/mlp.h"
#include "common/mlp_rows.inl.h"
#include "dit_block_gradient/attention_gradient.inl.h"

namespace fastimpute {

// One sequence through the block and back, once for all instruction sets. Features lie in rows and tokens in lanes, so
// that no sum over features runs across lanes; sums over tokens multiply with tokens turned into rows.
template <class S>
class DitSequenceGradient {
  public:
    using Vec = typename S::Vec;
    using P = Pair<S>;
    using Product = RowProduct<S>;

    [[gnu::always_inline]] DitSequenceGradient(const DitGradientTask& task, float* scratch)
        : task_(task),
          args_(*task.args),
          block_(*task.block),
          hidden_(block_.hidden),
          tokens_(args_.tokens),
          panels_(tokens_),
          features_(hidden_),
          carver_{scratch},
          attention_(task, panels_, token_stride(), carver_) {
        const std::int64_t columns = token_stride(), padded = panels_.padded();
        take(hidden_, columns, x_, normal1_, modulated_, attended_, projected_, normal2_, gradient_, change_);
        take(3 * hidden_, columns, qkv_, qkv_gradient_);
        take(block_.inner, columns, inner_, slope_);
        take(padded, hidden_ + kSpace, modulated1_rows_, modulated2_rows_, attended_rows_, query_rows_, change_rows_);
        take(Product::kRows, hidden_, tile_);
        take(1, padded, rstd1_, rstd2_);
    }

    std::int64_t floats() const { return carver_.used; }

    [[gnu::always_inline]] void run(std::int64_t sequence) {
        modulation_ = args_.modulation + sequence % args_.modulation_rows * 6 * hidden_;
        by_modulation_ = task_.modulation + sequence * 6 * hidden_;
        out_gradient_ = task_.out_gradient + sequence * tokens_ * hidden_;
        attend(sequence);
        activate();
        mlp_back();
        attention_back(sequence);
        turn<S>(gradient_, hidden_, panels_.padded(), {task_.x + sequence * tokens_ * hidden_, hidden_}, tokens_);
    }

  private:
    static constexpr std::int64_t kSpace = 16;

    template <class... Each>
    void take(std::int64_t count, std::int64_t stride, Each&... rows) {
        ((rows = {carver_.template take<float>(count * stride), stride}), ...);
    }

    std::int64_t token_stride() const {
        const std::int64_t padded = panels_.padded();
        return padded % 64 == 0 ? padded + kSpace : padded;  // rows a power of two apart would share a cache set
    }
    Rows weights(const float* data) const { return rows_of(data, block_.hidden_stride); }
    Rows down() const { return rows_of(block_.down, block_.inner_stride); }

    // x, what it is after the attention and all between.
    void attend(std::int64_t sequence) {
        const float* x = args_.x + sequence * tokens_ * hidden_;
        turn<S>(rows_of(x, hidden_), tokens_, hidden_, x_, hidden_);
        normalise(x_, modulation_, normal1_, rstd1_.data);
        turn<S>(modulated_, hidden_, panels_.padded(), modulated1_rows_, panels_.padded());
        Product::template run<Left::kRows, Start::kBias>(3 * hidden_, panels_, hidden_, weights(block_.qkv), modulated_,
                                                         qkv_, block_.b_qkv);
        attention_.run(sequence, qkv_, attended_);
        const float* gates = modulation_ + 2 * hidden_;
        Product::template run<Left::kRows, Start::kBias>(
            hidden_, panels_, hidden_, weights(block_.proj), attended_, projected_, block_.b_proj,
            [&](std::int64_t first) { add_gated(first, gates, projected_, x_); });
    }

    // GELU and its slope at the MLP's inner values.
    void activate() {
        normalise(x_, modulation_ + 3 * hidden_, normal2_, rstd2_.data);
        turn<S>(modulated_, hidden_, panels_.padded(), modulated2_rows_, panels_.padded());
        Product::template run<Left::kRows, Start::kBias>(block_.inner, panels_, hidden_, weights(block_.up), modulated_,
                                                         inner_, block_.b_up, [&](std::int64_t first) { gelu(first); });
    }

    void mlp_back() {
        const DitSums& sums = task_.sums;
        const float* gates = modulation_ + 5 * hidden_;
        turn<S>(rows_of(out_gradient_, hidden_), tokens_, hidden_, gradient_, hidden_);
        for (std::int64_t j = 0; j < hidden_; ++j) {
            sums.b_down[j] += scaled_row(gradient_.row(j), gates[j], change_.row(j));
        }
        down_back(gates);
        Product::template run<Left::kColumns, Start::kZero>(
            block_.inner, panels_, hidden_, down(), change_, inner_, nullptr, [&](std::int64_t first) {
                for (std::int64_t i = first; i < first + Product::kRows; ++i) sums.b_up[i] += times_slope(i);
            });
        Product::template run<Left::kRows, Start::kAccumulate>(block_.inner, features_, tokens_, inner_,
                                                               modulated2_rows_, {sums.up, hidden_});
        Product::template run<Left::kColumns, Start::kZero>(hidden_, panels_, block_.inner, weights(block_.up), inner_,
                                                            change_);
        layer_norm_back(3, normal2_, rstd2_.data);
    }

    // Gradients by W_down and the gate behind it. With M = inner out_gradient, not gated yet, they are M gate and
    // sum(M W_down): the product with W_down need not be done again.
    void down_back(const float* gates) {
        float* by_gate = by_modulation_ + 5 * hidden_;
        for (std::int64_t j = 0; j < hidden_; ++j) by_gate[j] = block_.b_down[j] * row_sum(gradient_.row(j));
        const Rows sums = {task_.sums.down_turned, hidden_}, turned = rows_of(block_.down_turned, hidden_);
        for (std::int64_t row = 0; row < block_.inner; row += Product::kRows) {
            Product::template run<Left::kRows, Start::kZero>(Product::kRows, features_, tokens_, inner_.from(row),
                                                             rows_of(out_gradient_, hidden_), tile_);
            for (std::int64_t r = 0; r < Product::kRows; ++r) {
                for (std::int64_t j = 0; j < hidden_; j += S::kLanes) {
                    const Vec value = S::load(tile_.row(r) + j);
                    float* sum = sums.row(row + r) + j;
                    S::store(sum, S::fma(value, S::load(gates + j), S::load(sum)));
                    const Vec weight = S::load(turned.row(row + r) + j);
                    S::store(by_gate + j, S::fma(value, weight, S::load(by_gate + j)));
                }
            }
        }
    }

    void attention_back(std::int64_t sequence) {
        const DitSums& sums = task_.sums;
        const float* gates = modulation_ + 2 * hidden_;
        for (std::int64_t j = 0; j < hidden_; ++j) {
            by_modulation_[2 * hidden_ + j] = row_dot(gradient_.row(j), projected_.row(j));
            sums.b_proj[j] += scaled_row(gradient_.row(j), gates[j], change_.row(j));
        }
        turn<S>(attended_, hidden_, panels_.padded(), attended_rows_, panels_.padded());
        Product::template run<Left::kRows, Start::kAccumulate>(hidden_, features_, tokens_, change_, attended_rows_,
                                                               {sums.proj, hidden_});
        const Rows by_attended = projected_;  // whose values are done with
        Product::template run<Left::kColumns, Start::kZero>(hidden_, panels_, hidden_, weights(block_.proj), change_,
                                                            by_attended);
        turn<S>(by_attended, hidden_, panels_.padded(), change_rows_, panels_.padded());
        turn<S>(qkv_, hidden_, panels_.padded(), query_rows_, panels_.padded());
        attention_.back(sequence, qkv_, attended_, by_attended, query_rows_, change_rows_, qkv_gradient_);
        for (std::int64_t j = 0; j < 3 * hidden_; ++j) sums.b_qkv[j] += row_sum(qkv_gradient_.row(j));
        Product::template run<Left::kRows, Start::kAccumulate>(3 * hidden_, features_, tokens_, qkv_gradient_,
                                                               modulated1_rows_, {sums.qkv, hidden_});
        Product::template run<Left::kColumns, Start::kZero>(hidden_, panels_, 3 * hidden_, weights(block_.qkv),
                                                            qkv_gradient_, change_);
        layer_norm_back(0, normal1_, rstd1_.data);
    }

    // normal = LN(x), modulated = normal (1 + gain) + shift; gains, then shifts.
    void normalise(Rows x, const float* gains, Rows normal, float* rstds) {
        panels_.for_each([&](std::int64_t token, auto vectors) {
            normalise_panel<decltype(vectors)::value>(token, x, gains, normal, rstds);
        });
    }

    template <int V>
    [[gnu::noinline]] void normalise_panel(std::int64_t token, Rows x, const float* gains, Rows normal, float* rstds) {
        const Vec share = S::set1(1.0f / static_cast<float>(hidden_));
        Vec mean[V], rstd[V];
        for (int v = 0; v < V; ++v) mean[v] = rstd[v] = S::zero();
        for (std::int64_t j = 0; j < hidden_; ++j) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) mean[v] = mean[v] + S::load(x.row(j) + token + v * S::kLanes);
        }
        for (int v = 0; v < V; ++v) mean[v] = mean[v] * share;
        for (std::int64_t j = 0; j < hidden_; ++j) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                const Vec centred = S::load(x.row(j) + token + v * S::kLanes) - mean[v];
                rstd[v] = S::fma(centred, centred, rstd[v]);
            }
        }
        for (int v = 0; v < V; ++v) {
            rstd[v] = S::set1(1.0f) / S::sqrt(S::fma(rstd[v], share, S::set1(static_cast<float>(kLayerNormEps))));
            S::store(rstds + token + v * S::kLanes, rstd[v]);
        }
        for (std::int64_t j = 0; j < hidden_; ++j) {
            const Vec gain = S::set1(1.0f + gains[j]), shift = S::set1(gains[hidden_ + j]);
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                const std::int64_t at = token + v * S::kLanes;
                const Vec value = (S::load(x.row(j) + at) - mean[v]) * rstd[v];
                S::store(normal.row(j) + at, value);
                S::store(modulated_.row(j) + at, S::fma(value, gain, shift));
            }
        }
    }

    // x += gate change for a tile of rows.
    [[gnu::always_inline]] void add_gated(std::int64_t first, const float* gates, Rows change, Rows x) const {
        for (std::int64_t j = first; j < first + Product::kRows; ++j) {
            const Vec gate = S::set1(gates[j]);
            for (std::int64_t i = 0; i < panels_.padded(); i += S::kLanes) {
                S::store(x.row(j) + i, S::fma(gate, S::load(change.row(j) + i), S::load(x.row(j) + i)));
            }
        }
    }

    // u -> GELU(u) = u sigmoid(2 z) for a tile of rows, its slope beside it.
    [[gnu::always_inline]] void gelu(std::int64_t first) {
        const Vec linear = S::set1(2 * 0.7978845608f), cubic = S::set1(2 * 0.7978845608f * 0.044715f);
        const Vec one = S::set1(1.0f), thrice = cubic * S::set1(3.0f);
        for (std::int64_t i = first; i < first + Product::kRows; ++i) {
            float* inner = inner_.row(i);
            float* slope = slope_.row(i);
            for (std::int64_t token = 0; token < panels_.padded(); token += S::kLanes) {
                const Vec u = S::load(inner + token), square = u * u;
                const Vec share = sigmoid<S, true>(u * S::fma(square, cubic, linear));
                const Vec value = u * share;
                S::store(inner + token, value);
                S::store(slope + token, S::fma(value * (one - share), S::fma(square, thrice, linear), share));
            }
        }
    }

    // inner, so far the gradient by GELU's value, becomes the one by its argument; returns its sum over tokens.
    [[gnu::always_inline]] float times_slope(std::int64_t row) {
        Vec sum = S::zero();
        float* inner = inner_.row(row);
        const float* slope = slope_.row(row);
        for (std::int64_t i = 0; i < panels_.padded(); i += S::kLanes) {
            const Vec value = S::load(inner + i) * S::load(slope + i);
            S::store(inner + i, value);
            sum = sum + value;
        }
        return S::sum(sum);
    }

    // out = factor row; returns its sum.
    [[gnu::always_inline]] float scaled_row(const float* row, float factor, float* out) const {
        Vec sum = S::zero();
        for (std::int64_t i = 0; i < panels_.padded(); i += S::kLanes) {
            const Vec value = S::set1(factor) * S::load(row + i);
            S::store(out + i, value);
            sum = sum + value;
        }
        return S::sum(sum);
    }

    [[gnu::always_inline]] float row_sum(const float* row) const {
        Vec sum = S::zero();
        for (std::int64_t i = 0; i < panels_.padded(); i += S::kLanes) sum = sum + S::load(row + i);
        return S::sum(sum);
    }

    [[gnu::always_inline]] float row_dot(const float* a, const float* b) const {
        return dot_row<S>(a, b, panels_.padded());
    }

    // change, the gradient by LN(x) (1 + gain) + shift, is taken through it and added to the gradient by x; `part`: of
    // the modulation.
    void layer_norm_back(int part, Rows normal, const float* rstds) {
        const float* gains = modulation_ + part * hidden_;
        float* by_gain = by_modulation_ + part * hidden_;
        for (std::int64_t j = 0; j < hidden_; ++j) {
            by_gain[j] = row_dot(change_.row(j), normal.row(j));
            by_gain[hidden_ + j] = row_sum(change_.row(j));
        }
        panels_.for_each([&](std::int64_t token, auto vectors) {
            layer_norm_back_panel<decltype(vectors)::value>(token, gains, normal, rstds);
        });
    }

    template <int V>
    [[gnu::noinline]] void layer_norm_back_panel(std::int64_t token, const float* gains, Rows normal,
                                                 const float* rstds) {
        const Vec share = S::set1(1.0f / static_cast<float>(hidden_));
        Vec mean[V], along[V];
        for (int v = 0; v < V; ++v) mean[v] = along[v] = S::zero();
        const auto change = [&](std::int64_t j, std::int64_t at) {
            return S::load(change_.row(j) + at) * S::set1(1.0f + gains[j]);
        };
        for (std::int64_t j = 0; j < hidden_; ++j) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                const std::int64_t at = token + v * S::kLanes;
                const Vec value = change(j, at);
                mean[v] = mean[v] + value;
                along[v] = S::fma(value, S::load(normal.row(j) + at), along[v]);
            }
        }
        for (int v = 0; v < V; ++v) {
            const Vec rstd = S::load(rstds + token + v * S::kLanes);
            mean[v] = mean[v] * share * rstd;
            along[v] = along[v] * share * rstd;
        }
        for (std::int64_t j = 0; j < hidden_; ++j) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                const std::int64_t at = token + v * S::kLanes;
                const Vec kept = S::fms(change(j, at), S::load(rstds + at), mean[v]);
                const Vec through = S::fnma(S::load(normal.row(j) + at), along[v], kept);
                S::store(gradient_.row(j) + at, S::load(gradient_.row(j) + at) + through);
            }
        }
    }

    const DitGradientTask& task_;
    const DitBlockArgs<float>& args_;
    const SpacedDit& block_;
    std::int64_t hidden_, tokens_;
    TokenPanels<S> panels_;    // of tokens
    TokenPanels<S> features_;  // of columns of weights
    Carver carver_;
    AttentionGradient<S> attention_;
    const float* modulation_ = nullptr;
    float* by_modulation_ = nullptr;
    const float* out_gradient_ = nullptr;
    Rows x_, normal1_, modulated_, attended_, projected_, normal2_;
    Rows gradient_;  // by the residual stream
    Rows change_;    // gradients on their way through a product
    Rows qkv_, qkv_gradient_;
    Rows inner_, slope_;
    Rows modulated1_rows_, modulated2_rows_, attended_rows_, query_rows_, change_rows_;  // tokens in rows
    Rows tile_, rstd1_, rstd2_;
};

template <class S>
[[gnu::always_inline]] inline std::int64_t dit_gradient_scratch(const DitGradientTask& task) {
    return DitSequenceGradient<S>(task, nullptr).floats();
}

template <class S>
[[gnu::always_inline]] inline void dit_gradient_sequence(const DitGradientTask& task, std::int64_t sequence,
                                                         float* scratch) {
    DitSequenceGradient<S>(task, scratch).run(sequence);
}

}  // namespace fastimpute
