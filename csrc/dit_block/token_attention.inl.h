#pragma once

#include "common/mlp_rows.inl.h"
#include "dit_block/packed_dit.h"
#include "dit_block/token_product.inl.h"

namespace fastimpute {

// Cuts a sequence into panels of up to three vectors of tokens; a single vector is left over only where there is one in
// all, as its products keep fewer sums in flight.
template <class S>
class TokenPanels {
  public:
    template <int V>
    struct Vectors {
        static constexpr int value = V;
    };

    explicit TokenPanels(std::int64_t tokens) : vectors_((tokens + S::kLanes - 1) / S::kLanes) {}

    std::int64_t padded() const { return vectors_ * S::kLanes; }
    std::int64_t widest() const { return (vectors_ < 3 ? vectors_ : 3) * S::kLanes; }

    // body(first token, Vectors<V>) for each panel
    template <class Body>
    [[gnu::always_inline]] void for_each(const Body& body) const {
        std::int64_t vector = 0;
        while (vector < vectors_) {
            const std::int64_t left = vectors_ - vector, token = vector * S::kLanes;
            if (left == 1) {
                body(token, Vectors<1>());
                vector += 1;
            } else if (left == 2 || left == 4) {
                body(token, Vectors<2>());
                vector += 2;
            } else {
                body(token, Vectors<3>());
                vector += 3;
            }
        }
    }

  private:
    std::int64_t vectors_;
};

// after(row, sums) for each tile of rows of W b + bias.
template <class S, class Op, int V, class After>
[[gnu::always_inline]] inline void multiply(const RowTiles& w, const typename Op::Type* b, const float* bias,
                                            const After& after) {
    using Rows = TokenRows<S, Op>;
    const auto* tile = static_cast<const typename Op::Type*>(w.data);
    for (std::int64_t row = 0; row < w.outputs; row += Rows::kRows) {
        typename S::Vec sum[Rows::kRows][V];
        Rows::tile(sum, bias + row, w.inputs / Op::kStep, tile, b);
        after(row, sum);
        tile += Rows::kRows * w.inputs;
    }
}

// Queries, keys and values of one sequence, and its attention, softmax in float32. Scores are exponents of two.
template <class S, class Op>
class TokenAttention {
  public:
    using Rows = TokenRows<S, Op>;
    using Vec = typename S::Vec;
    using Operand = typename Op::Type;
    static constexpr int kRows = Rows::kRows;

    [[gnu::always_inline]] TokenAttention(const PackedDit& block, const DitBlockArgs<float>& args,
                                          const TokenPanels<S>& panels)
        : block_(block),
          args_(args),
          panels_(panels),
          hidden_(block.hidden),
          head_size_(block.hidden / block.heads),
          value_stride_(panels.padded() + 64 / static_cast<std::int64_t>(sizeof(Operand))),
          memory_stride_(operand_stride<Op>(block.hidden)) {}

    template <class Carver>
    [[gnu::always_inline]] void carve(Carver& carver) {
        const std::int64_t padded = panels_.padded(), widest = panels_.widest();
        memory_rows_ = round_up(args_.memory_tokens, kRows);
        queries_ = carver.template take<Operand>(padded * hidden_);
        keys_ = carver.template take<Operand>(padded * hidden_);
        values_ = carver.template take<Operand>(hidden_ * value_stride_);
        memory_keys_ = carver.template take<Operand>(memory_rows_ * memory_stride_);
        memory_values_ = carver.template take<Operand>(memory_rows_ * memory_stride_);
        scores_ = carver.template take<float>((padded + memory_rows_) * widest);
        weights_ = Op::kStep == 1 ? reinterpret_cast<Operand*>(scores_)
                                  : carver.template take<Operand>((padded + memory_rows_) * widest);
    }

    // Turns to a sequence; its memory becomes operands.
    [[gnu::always_inline]] void start(std::int64_t sequence) {
        absent_ = args_.absent ? args_.absent + sequence * args_.tokens : nullptr;
        bias_ = args_.bias ? args_.bias + sequence % args_.bias_rows * args_.bias_stride : nullptr;
        if (args_.memory_tokens == 0) return;
        const std::int64_t row = 2 * hidden_;
        const float* memory = args_.memory + sequence % args_.memory_rows * args_.memory_tokens * row;
        for (std::int64_t m = 0; m < memory_rows_; m += 2) {
            load_memory(m, m < args_.memory_tokens ? memory + m * row : nullptr,
                        m + 1 < args_.memory_tokens ? memory + (m + 1) * row : nullptr);
        }
    }

    // Queries, keys and values of a panel.
    template <int V>
    [[gnu::always_inline]] void project(std::int64_t token, const Operand* normal) {
        const auto keep = [&](Operand* panel) {
            return [panel](std::int64_t row, const Vec(&sum)[kRows][V]) {
                Rows::store_rows(panel + row * V * S::kLanes, sum);
            };
        };
        multiply<S, Op, V>(block_.query, normal, block_.b_query, keep(queries_ + token * hidden_));
        multiply<S, Op, V>(block_.key, normal, block_.b_key, keep(keys_ + token * hidden_));
        multiply<S, Op, V>(block_.value, normal, block_.b_value, [&](std::int64_t row, const Vec(&sum)[kRows][V]) {
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
                for (int v = 0; v < V; ++v) {
                    Op::store(values_ + (row + r) * value_stride_ + token + v * S::kLanes, sum[r][v]);
                }
            }
        });
    }

    // The attention of a panel's queries.
    template <int V>
    [[gnu::always_inline]] void attend(std::int64_t token, Operand* attended) {
        for (std::int64_t head = 0; head < block_.heads; ++head) {
            Vec most[V], sum[V];
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                most[v] = S::set1(kLowest);
                sum[v] = S::zero();
            }
            score_tokens<V>(head, token, most);
            score_memory<V>(head, token, most);
            weigh<V>(0, args_.tokens, absent_, most, sum);
            weigh<V>(memory_base(), args_.memory_tokens, nullptr, most, sum);
            blend<V>(head, sum, attended);
        }
    }

  private:
    static constexpr float kLowest = -1e30f;

    // Rows of scores: one per token, then, after whole tiles, one per memory key.
    std::int64_t memory_base() const { return round_up(args_.tokens, kRows); }

    // Two rows of the memory (null: zeros) as operands: keys row by row, values as columns of words.
    void load_memory(std::int64_t m, const float* even, const float* odd) {
        for (std::int64_t j = 0; j < hidden_; j += S::kLanes) {
            const auto part = [j](const float* row) { return row ? S::load(row + j) : S::zero(); };
            Op::store(memory_keys_ + m * memory_stride_ + j, part(even));
            Op::store(memory_keys_ + (m + 1) * memory_stride_ + j, part(odd));
            const Vec low = part(even ? even + hidden_ : nullptr), high = part(odd ? odd + hidden_ : nullptr);
            Operand* values = memory_values_ + m * memory_stride_;
            if constexpr (Op::kStep == 2) {
                Op::store_pair(values + 2 * j, low, high);
            } else {
                Op::store(values + j, low);
                Op::store(values + memory_stride_ + j, high);
            }
        }
    }

    template <int V>
    [[gnu::noinline]] void score_tokens(std::int64_t head, std::int64_t token, Vec (&most)[V]) {
        const Operand* queries = queries_ + token * hidden_ + head * head_size_ * V * S::kLanes;
        panels_.for_each([&](std::int64_t first, auto vectors) {
            const std::int64_t width = decltype(vectors)::value * S::kLanes;
            const Operand* keys = keys_ + first * hidden_ + head * head_size_ * width;
            for (std::int64_t key = first; key < first + width && key < args_.tokens; key += kRows) {
                Vec sum[kRows][V];
                Rows::begin(sum, nullptr);
                Rows::template accumulate<Left::kColumns>(sum, head_size_ / Op::kStep, keys + (key - first) * Op::kStep,
                                                          width, queries);
                keep_scores<V>(head, token, sum, key, args_.tokens - key, key, absent_, most);
            }
        });
    }

    template <int V>
    [[gnu::noinline]] void score_memory(std::int64_t head, std::int64_t token, Vec (&most)[V]) {
        const Operand* queries = queries_ + token * hidden_ + head * head_size_ * V * S::kLanes;
        for (std::int64_t m = 0; m < args_.memory_tokens; m += kRows) {
            Vec sum[kRows][V];
            Rows::begin(sum, nullptr);
            Rows::template accumulate<Left::kRows>(sum, head_size_ / Op::kStep,
                                                   memory_keys_ + m * memory_stride_ + head * head_size_,
                                                   memory_stride_ / Op::kStep, queries);
            keep_scores<V>(head, token, sum, memory_base() + m, args_.memory_tokens - m, args_.tokens + m, nullptr,
                           most);
        }
    }

    // Scores of keys [key, key + kRows), `count` of which exist, with their bias; `row`: where they are kept.
    template <int V>
    [[gnu::always_inline]] void keep_scores(std::int64_t head, std::int64_t token, const Vec (&sum)[kRows][V],
                                            std::int64_t row, std::int64_t count, std::int64_t key,
                                            const std::uint8_t* absent, Vec (&most)[V]) {
        const float* bias =
            bias_ ? bias_ + head * args_.bias_head_stride + key * args_.bias_key_stride + token : nullptr;
        const std::int64_t queries = args_.tokens - token;
        float* scores = scores_ + row * V * S::kLanes;
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
            if (r >= count || (absent && absent[key + r])) continue;
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                Vec score = sum[r][v];
                if (bias) {
                    const float* at = bias + r * args_.bias_key_stride + v * S::kLanes;
                    const std::int64_t left = queries - v * S::kLanes;
                    const Vec value = left >= S::kLanes ? S::load(at) : S::load_first(at, left > 0 ? left : 0);
                    score = S::fma(value, S::set1(1.44269504f), score);
                }
                S::store(scores + (r * V + v) * S::kLanes, score);
                most[v] = S::max(most[v], score);
            }
        }
    }

    // Scores of `count` rows from `row` on become weights; `sum` grows by them.
    template <int V>
    [[gnu::noinline]] void weigh(std::int64_t row, std::int64_t count, const std::uint8_t* absent, const Vec (&most)[V],
                                 Vec (&sum)[V]) {
        using P = Pair<S>;
        const float* scores = scores_ + row * V * S::kLanes;
        Operand* weights = weights_ + row * V * S::kLanes;
        for (std::int64_t k = 0; k < count; k += 2) {
            const bool even = !(absent && absent[k]), odd = k + 1 < count && !(absent && absent[k + 1]);
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                const float* at = scores + (k * V + v) * S::kLanes;
                const typename P::Vec score = {S::load(at) - most[v], S::load(at + V * S::kLanes) - most[v]};
                typename P::Vec weight = exp2<P, Op::kExactSigmoid>(score);
                if (!even) weight.a = S::zero();
                if (!odd) weight.b = S::zero();
                sum[v] = sum[v] + (weight.a + weight.b);
                Rows::template store_two<V>(weights + k * V * S::kLanes, v, weight.a, weight.b);
            }
        }
    }

    // attended = values * weights / sum
    template <int V>
    [[gnu::noinline]] void blend(std::int64_t head, const Vec (&sum)[V], Operand* attended) {
        Vec share[V];
        for (int v = 0; v < V; ++v) share[v] = S::set1(1.0f) / S::max(sum[v], S::set1(1e-30f));
        const std::int64_t words = round_up(args_.tokens, Op::kStep) / Op::kStep;
        const std::int64_t memory_words = round_up(args_.memory_tokens, Op::kStep) / Op::kStep;
        const Operand* memory_weights = weights_ + memory_base() * V * S::kLanes;
        for (std::int64_t j = head * head_size_; j < (head + 1) * head_size_; j += kRows) {
            Vec out[kRows][V];
            Rows::begin(out, nullptr);
            Rows::template accumulate<Left::kRows>(out, words, values_ + j * value_stride_, value_stride_ / Op::kStep,
                                                   weights_);
            Rows::template accumulate<Left::kColumns>(out, memory_words, memory_values_ + j * Op::kStep, memory_stride_,
                                                      memory_weights);
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
                for (int v = 0; v < V; ++v) out[r][v] = out[r][v] * share[v];
            }
            Rows::store_rows(attended + j * V * S::kLanes, out);
        }
    }

    const PackedDit& block_;
    const DitBlockArgs<float>& args_;
    const TokenPanels<S>& panels_;
    std::int64_t hidden_, head_size_, value_stride_, memory_stride_;
    std::int64_t memory_rows_ = 0;
    const std::uint8_t* absent_ = nullptr;
    const float* bias_ = nullptr;
    Operand* queries_;        // panel after panel, features in rows
    Operand* keys_;           // the same
    Operand* values_;         // features in rows, tokens side by side
    Operand* memory_keys_;    // one row per key
    Operand* memory_values_;  // one row per word of keys
    float* scores_;           // of one head and panel: one row per key
    Operand* weights_;        // the same as operands; float32: in place
};

}  // namespace fastimpute
