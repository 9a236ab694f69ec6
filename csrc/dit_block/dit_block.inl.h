#pragma once

#include "common/mlp_rows.inl.h"
#include "dit_block/packed_dit.h"
#include "dit_block/token_attention.inl.h"
#include "dit_block/token_product.inl.h"

namespace fastimpute {

// The block on one sequence, once for all instruction sets. S: vectors, Op: what the products multiply. The sequence is
// kept transposed, tokens in lanes: no sum runs across lanes, and weights and keys need no rearranging.
template <class S, class Op>
class DitSequence {
  public:
    using Rows = TokenRows<S, Op>;
    using Vec = typename S::Vec;
    using Operand = typename Op::Type;

    [[gnu::always_inline]] DitSequence(const PackedDit& block, const DitBlockArgs<float>& args, float* scratch)
        : block_(block), args_(args), hidden_(block.hidden), panels_(args.tokens), attention_(block, args, panels_) {
        Carver carver{scratch};
        const std::int64_t widest = panels_.widest();
        x_ = carver.template take<float>(panels_.padded() * hidden_);
        normal_ = carver.template take<Operand>(widest * hidden_);
        attended_ = carver.template take<Operand>(widest * hidden_);
        inner_ = carver.template take<Operand>(widest * block.inner);
        attention_.carve(carver);
        floats_ = carver.used;
    }

    std::int64_t floats() const { return floats_; }

    [[gnu::always_inline]] void run(std::int64_t sequence) {
        modulation_ = args_.modulation + sequence % args_.modulation_rows * 6 * hidden_;
        attention_.start(sequence);
        const float* x = args_.x + sequence * args_.tokens * hidden_;
        float* out = args_.out + sequence * args_.tokens * hidden_;
        panels_.for_each([&](std::int64_t token, auto vectors) { read<decltype(vectors)::value>(token, x); });
        panels_.for_each([&](std::int64_t token, auto vectors) { write<decltype(vectors)::value>(token, out); });
    }

  private:
    // From the input to queries, keys and values of one panel.
    template <int V>
    [[gnu::noinline]] void read(std::int64_t token, const float* x) {
        float* panel = x_ + token * hidden_;
        for (int v = 0; v < V; ++v) {
            load_tokens(x, token + v * S::kLanes, panel + v * S::kLanes, V * S::kLanes);
        }
        normalise<V>(panel, modulation_);
        attention_.template project<V>(token, normal_);
    }

    // From the attention of one panel to the output.
    template <int V>
    [[gnu::noinline]] void write(std::int64_t token, float* out) {
        float* panel = x_ + token * hidden_;
        attention_.template attend<V>(token, attended_);
        add_gated<V>(block_.proj, attended_, block_.b_proj, modulation_ + 2 * hidden_, panel);
        normalise<V>(panel, modulation_ + 3 * hidden_);
        activate<V>();
        add_gated<V>(block_.down, inner_, block_.b_down, modulation_ + 5 * hidden_, panel);
        for (int v = 0; v < V; ++v) {
            store_tokens(panel + v * S::kLanes, V * S::kLanes, token + v * S::kLanes, out);
        }
    }

    // Tokens [token, token + kLanes) as columns; zeros behind the last one.
    [[gnu::noinline]] void load_tokens(const float* x, std::int64_t token, float* columns, std::int64_t stride) {
        const std::int64_t count = args_.tokens - token;
        for (std::int64_t j = 0; j < hidden_; j += S::kLanes) {
            Vec square[S::kLanes];
#pragma GCC unroll 16
            for (int i = 0; i < S::kLanes; ++i) {
                square[i] = i < count ? S::load(x + (token + i) * hidden_ + j) : S::zero();
            }
            transpose<S>(square);
#pragma GCC unroll 16
            for (int i = 0; i < S::kLanes; ++i) S::store(columns + (j + i) * stride, square[i]);
        }
    }

    [[gnu::noinline]] void store_tokens(const float* columns, std::int64_t stride, std::int64_t token, float* out) {
        const std::int64_t count = args_.tokens - token;
        for (std::int64_t j = 0; j < hidden_; j += S::kLanes) {
            Vec square[S::kLanes];
#pragma GCC unroll 16
            for (int i = 0; i < S::kLanes; ++i) square[i] = S::load(columns + (j + i) * stride);
            transpose<S>(square);
#pragma GCC unroll 16
            for (int i = 0; i < S::kLanes; ++i) {
                if (i < count) S::store(out + (token + i) * hidden_ + j, square[i]);
            }
        }
    }

    // normal = LN(x) (1 + gain) + shift; gains, then shifts.
    template <int V>
    [[gnu::noinline]] void normalise(const float* x, const float* gains) {
        const std::int64_t hidden = hidden_;
        const float* shifts = gains + hidden;
        const Vec share = S::set1(1.0f / static_cast<float>(hidden));
        Vec mean[V], rstd[V];
        sum_rows<V>(x, mean, [](Vec value, int) { return value; });
        for (int v = 0; v < V; ++v) mean[v] = mean[v] * share;
        sum_rows<V>(x, rstd, [&](Vec value, int v) { return (value - mean[v]) * (value - mean[v]); });
        for (int v = 0; v < V; ++v) {
            rstd[v] = S::set1(1.0f) / S::sqrt(S::fma(rstd[v], share, S::set1(static_cast<float>(kLayerNormEps))));
        }
        const auto one = [&](std::int64_t j, int v) {
            const Vec scaled = (S::load(x + j * V * S::kLanes + v * S::kLanes) - mean[v]) * rstd[v];
            return S::fma(scaled, S::set1(1.0f + gains[j]), S::set1(shifts[j]));
        };
        for (std::int64_t j = 0; j < hidden; j += 2) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                Rows::template store_two<V>(normal_ + j * V * S::kLanes, v, one(j, v), one(j + 1, v));
            }
        }
    }

    template <int V, class Term>
    [[gnu::always_inline]] void sum_rows(const float* x, Vec (&total)[V], const Term& term) {
        constexpr int kChains = 4;  // as many rows at a time: an addition takes three to four cycles
        Vec sum[kChains][V];
        for (int c = 0; c < kChains; ++c) {
            for (int v = 0; v < V; ++v) sum[c][v] = S::zero();
        }
        for (std::int64_t j = 0; j < hidden_; j += kChains) {
#pragma GCC unroll 4
            for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 3
                for (int v = 0; v < V; ++v) {
                    sum[c][v] = sum[c][v] + term(S::load(x + ((j + c) * V + v) * S::kLanes), v);
                }
            }
        }
        for (int v = 0; v < V; ++v) total[v] = (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]);
    }

    // x += gate * (W b + bias)
    template <int V>
    [[gnu::noinline]] void add_gated(const RowTiles& w, const Operand* b, const float* bias, const float* gates,
                                     float* x) {
        multiply<S, Op, V>(w, b, bias, [&](std::int64_t row, const Vec(&sum)[Rows::kRows][V]) {
#pragma GCC unroll 8
            for (int r = 0; r < Rows::kRows; ++r) {
                const Vec gate = S::set1(gates[row + r]);
#pragma GCC unroll 3
                for (int v = 0; v < V; ++v) {
                    float* at = x + ((row + r) * V + v) * S::kLanes;
                    S::store(at, S::fma(gate, sum[r][v], S::load(at)));
                }
            }
        });
    }

    // inner = GELU(W_up normal + b_up)
    template <int V>
    [[gnu::noinline]] void activate() {
        using P = Pair<S>;
        multiply<S, Op, V>(block_.up, normal_, block_.b_up, [&](std::int64_t row, const Vec(&sum)[Rows::kRows][V]) {
#pragma GCC unroll 4
            for (int r = 0; r < Rows::kRows; r += 2) {
#pragma GCC unroll 3
                for (int v = 0; v < V; ++v) {
                    const typename P::Vec value = gelu<P>({sum[r][v], sum[r + 1][v]});
                    Rows::template store_two<V>(inner_ + (row + r) * V * S::kLanes, v, value.a, value.b);
                }
            }
        });
    }

    // 0.5 (1 + tanh(z)) = sigmoid(2 z)
    template <class P>
    [[gnu::always_inline]] static typename P::Vec gelu(typename P::Vec u) {
        const auto cubic = P::fma(u * u, P::set1(2 * 0.7978845608f * 0.044715f), P::set1(2 * 0.7978845608f));
        return u * sigmoid<P, Op::kExactSigmoid>(u * cubic);
    }

    const PackedDit& block_;
    const DitBlockArgs<float>& args_;
    std::int64_t hidden_;
    TokenPanels<S> panels_;
    TokenAttention<S, Op> attention_;
    std::int64_t floats_ = 0;
    const float* modulation_ = nullptr;
    float* x_;           // the residual stream, panel after panel
    Operand* normal_;    // of one panel
    Operand* attended_;  // of one panel
    Operand* inner_;     // of one panel
};

template <class S, class Op>
[[gnu::always_inline]] inline std::int64_t dit_scratch(const PackedDit& block, std::int64_t tokens,
                                                       std::int64_t memory_tokens) {
    DitBlockArgs<float> args{};
    args.tokens = tokens;
    args.memory_tokens = memory_tokens;
    return DitSequence<S, Op>(block, args, nullptr).floats();
}

template <class S, class Op>
[[gnu::always_inline]] inline void dit_sequence(const PackedDit& block, const DitBlockArgs<float>& args,
                                                std::int64_t sequence, float* scratch) {
    DitSequence<S, Op>(block, args, scratch).run(sequence);
}

}  // namespace fastimpute
