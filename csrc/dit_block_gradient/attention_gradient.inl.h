#pragma once

#include "common/carver.h"
#include "dit_block_gradient/gradient_kernels.h"
#include "dit_block_gradient/row_product.inl.h"

namespace fastimpute {

// The attention of one sequence and its gradient. Queries, keys and values lie with their features in rows and tokens
// in lanes; weights have a row per key: the sequence's own, up to whole tiles, then the memory's.
template <class S>
class AttentionGradient {
  public:
    using Vec = typename S::Vec;
    using Product = RowProduct<S>;

    [[gnu::always_inline]] AttentionGradient(const DitGradientTask& task, const TokenPanels<S>& panels,
                                             std::int64_t token_stride, Carver& carver)
        : args_(*task.args),
          sums_(task.sums),
          panels_(panels),
          hidden_(task.block->hidden),
          heads_(task.block->heads),
          size_(hidden_ / heads_),
          head_columns_(size_),
          base_(round_up(args_.tokens, Product::kRows)),
          rows_(base_ + round_up(args_.memory_tokens, Product::kRows)) {
        memory_ = {carver.take<float>((rows_ - base_) * (2 * hidden_ + kSpace)), 2 * hidden_ + kSpace};
        weights_ = {carver.take<float>(heads_ * rows_ * token_stride), token_stride};
        change_ = {carver.take<float>(rows_ * token_stride), token_stride};
        by_key_ = {carver.take<float>(rows_ * 2 * (hidden_ + kSpace)), 2 * (hidden_ + kSpace)};
        by_value_ = by_key_.right(hidden_ + kSpace);
    }

    // attended (hidden, tokens) of qkv (3 hidden, tokens).
    [[gnu::always_inline]] void run(std::int64_t sequence, Rows qkv, Rows attended) {
        start(sequence);
        for (std::int64_t head = 0; head < heads_; ++head) {
            const std::int64_t first = head * size_;
            const Rows query = qkv.from(first), key = qkv.from(hidden_ + first), value = qkv.from(2 * hidden_ + first);
            const Rows weights = weights_.from(head * rows_), out = attended.from(first);
            Product::template run<Left::kColumns, Start::kZero>(base_, panels_, size_, key, query, weights);
            Product::template run<Left::kRows, Start::kZero>(rows_ - base_, panels_, size_, memory_.right(first), query,
                                                             weights.from(base_));
            panels_.for_each(
                [&](std::int64_t token, auto vectors) { weigh<decltype(vectors)::value>(head, token, weights); });
            Product::template run<Left::kRows, Start::kZero>(size_, panels_, args_.tokens, value, weights, out);
            if (args_.memory_tokens == 0) continue;
            Product::template run<Left::kColumns, Start::kAccumulate>(
                size_, panels_, args_.memory_tokens, memory_.right(hidden_ + first), weights.from(base_), out);
        }
    }

    // The gradient by qkv (3 hidden, tokens) from the one by `attended`; `query_rows` and `gradient_rows`: queries and
    // gradient with tokens in rows. Adds to the sums of bias and memory.
    [[gnu::always_inline]] void back(std::int64_t sequence, Rows qkv, Rows attended, Rows gradient, Rows query_rows,
                                     Rows gradient_rows, Rows qkv_gradient) {
        const std::int64_t tokens = args_.tokens, further = args_.memory_tokens;
        for (std::int64_t head = 0; head < heads_; ++head) {
            const std::int64_t first = head * size_;
            const Rows key = qkv.from(hidden_ + first), value = qkv.from(2 * hidden_ + first);
            const Rows weights = weights_.from(head * rows_), by_out = gradient.from(first);
            Product::template run<Left::kColumns, Start::kZero>(base_, panels_, size_, value, by_out, change_);
            Product::template run<Left::kRows, Start::kZero>(
                rows_ - base_, panels_, size_, memory_.right(hidden_ + first), by_out, change_.from(base_));
            panels_.for_each([&](std::int64_t token, auto vectors) {
                back_through_softmax<decltype(vectors)::value>(token, weights, attended.from(first), by_out);
            });
            if (sums_.bias) add_bias(sequence, head);
            const Rows by_query = qkv_gradient.from(first);
            Product::template run<Left::kRows, Start::kZero>(size_, panels_, tokens, key, change_, by_query);
            if (further > 0) {
                Product::template run<Left::kColumns, Start::kAccumulate>(size_, panels_, further, memory_.right(first),
                                                                          change_.from(base_), by_query);
            }
            // A head narrower than the vectors spills over into the next one's columns, which are written after it.
            Product::template run<Left::kRows, Start::kZero>(rows_, head_columns_, tokens, weights,
                                                             gradient_rows.right(first), by_value_.right(first));
            Product::template run<Left::kRows, Start::kZero>(rows_, head_columns_, tokens, change_,
                                                             query_rows.right(first), by_key_.right(first));
        }
        turn<S>(by_key_, tokens, hidden_, qkv_gradient.from(hidden_), hidden_);
        turn<S>(by_value_, tokens, hidden_, qkv_gradient.from(2 * hidden_), hidden_);
        if (sums_.memory) add_memory(sequence);
    }

  private:
    static constexpr std::int64_t kSpace = 16;
    static constexpr float kLowest = -1e30f, kLog2E = 1.44269504f;

    void start(std::int64_t sequence) {
        absent_ = args_.absent ? args_.absent + sequence * args_.tokens : nullptr;
        bias_ = args_.bias ? args_.bias + sequence % args_.bias_rows * args_.bias_stride : nullptr;
        const std::int64_t width = 2 * hidden_;
        for (std::int64_t m = 0; m < rows_ - base_; ++m) {
            const bool real = m < args_.memory_tokens;
            const float* row =
                real ? args_.memory + (sequence % args_.memory_rows * args_.memory_tokens + m) * width : nullptr;
            for (std::int64_t j = 0; j < width; j += S::kLanes) {
                S::store(memory_.row(m) + j, real ? S::load(row + j) : S::zero());
            }
        }
    }

    // body(row of the weights, number of the key) for the keys that there are.
    template <class Body>
    [[gnu::always_inline]] void for_each_key(const Body& body) const {
        for (std::int64_t key = 0; key < args_.tokens; ++key) {
            if (!(absent_ && absent_[key])) body(key, key);
        }
        for (std::int64_t m = 0; m < args_.memory_tokens; ++m) body(base_ + m, args_.tokens + m);
    }

    // Scores become weights.
    template <int V>
    [[gnu::noinline]] void weigh(std::int64_t head, std::int64_t token, Rows weights) {
        Vec most[V], sum[V];
        for (int v = 0; v < V; ++v) most[v] = S::set1(kLowest), sum[v] = S::zero();
        for_each_key([&](std::int64_t row, std::int64_t key) {
            float* at = weights.row(row) + token;
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                Vec score = S::load(at + v * S::kLanes);
                if (bias_) {
                    score = score + bias_of(head, key, token + v * S::kLanes);
                    S::store(at + v * S::kLanes, score);
                }
                most[v] = S::max(most[v], score);
            }
        });
        for (int v = 0; v < V; ++v) most[v] = most[v] * S::set1(kLog2E);
        for_each_key([&](std::int64_t row, std::int64_t) {
            float* at = weights.row(row) + token;
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                const Vec weight = exp2<S, true>(S::fms(S::load(at + v * S::kLanes), S::set1(kLog2E), most[v]));
                sum[v] = sum[v] + weight;
                S::store(at + v * S::kLanes, weight);
            }
        });
        for (int v = 0; v < V; ++v) sum[v] = S::set1(1.0f) / S::max(sum[v], S::set1(1e-30f));
        for_each_key([&](std::int64_t row, std::int64_t) {
            float* at = weights.row(row) + token;
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) S::store(at + v * S::kLanes, S::load(at + v * S::kLanes) * sum[v]);
        });
        if (!absent_) return;
        for (std::int64_t key = 0; key < args_.tokens; ++key) {
            if (!absent_[key]) continue;
            for (int v = 0; v < V; ++v) S::store(weights.row(key) + token + v * S::kLanes, S::zero());
        }
    }

    // Zeros beyond the last token.
    [[gnu::always_inline]] Vec bias_of(std::int64_t head, std::int64_t key, std::int64_t token) const {
        const float* at = bias_ + head * args_.bias_head_stride + key * args_.bias_key_stride + token;
        const std::int64_t left = args_.tokens - token;
        return left >= S::kLanes ? S::load(at) : S::load_first(at, left > 0 ? left : 0);
    }

    // change, so far by the weights, becomes the gradient by the scores: weight (change - sum of weight change).
    template <int V>
    [[gnu::noinline]] void back_through_softmax(std::int64_t token, Rows weights, Rows attended, Rows by_out) {
        Vec sum[V];
        for (int v = 0; v < V; ++v) sum[v] = S::zero();
        for (std::int64_t j = 0; j < size_; ++j) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                const std::int64_t at = token + v * S::kLanes;
                sum[v] = S::fma(S::load(attended.row(j) + at), S::load(by_out.row(j) + at), sum[v]);
            }
        }
        for (std::int64_t row = 0; row < rows_; ++row) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) {
                const std::int64_t at = token + v * S::kLanes;
                const Vec change = S::load(change_.row(row) + at) - sum[v];
                S::store(change_.row(row) + at, S::load(weights.row(row) + at) * change);
            }
        }
    }

    void add_bias(std::int64_t sequence, std::int64_t head) {
        const std::int64_t tokens = args_.tokens, keys = tokens + args_.memory_tokens;
        float* out = sums_.bias + (sequence % args_.bias_rows * heads_ + head) * keys * tokens;
        for (std::int64_t key = 0; key < keys; ++key, out += tokens) {
            add_row(change_.row(key < tokens ? key : base_ + key - tokens), tokens, out);
        }
    }

    void add_memory(std::int64_t sequence) {
        float* out = sums_.memory + sequence % args_.memory_rows * args_.memory_tokens * 2 * hidden_;
        for (std::int64_t m = 0; m < args_.memory_tokens; ++m, out += 2 * hidden_) {
            add_row(by_key_.row(base_ + m), hidden_, out);
            add_row(by_value_.row(base_ + m), hidden_, out + hidden_);
        }
    }

    [[gnu::always_inline]] static void add_row(const float* row, std::int64_t width, float* out) {
        std::int64_t j = 0;
        for (; j + S::kLanes <= width; j += S::kLanes) S::store(out + j, S::load(out + j) + S::load(row + j));
        if (j < width) S::store_first(out + j, width - j, S::load_first(out + j, width - j) + S::load(row + j));
    }

    const DitBlockArgs<float>& args_;
    const DitSums& sums_;
    const TokenPanels<S>& panels_;
    std::int64_t hidden_, heads_, size_;
    TokenPanels<S> head_columns_;
    std::int64_t base_, rows_;  // rows of a head's weights: where the memory's begin, and how many in all
    const std::uint8_t* absent_ = nullptr;
    const float* bias_ = nullptr;
    Rows memory_;             // keys, then values of a row
    Rows weights_;            // head after head
    Rows change_;             // of one head
    Rows by_key_, by_value_;  // gradients with keys in rows
};

}  // namespace fastimpute
