#pragma once

#include <cstdint>

#include "common/gemm.inl.h"
#include "common/pair.inl.h"

namespace fastimpute {

// Products of matrices whose columns are tokens: C (rows, tokens) = A (rows, inputs) B (inputs, tokens). Tokens lie in
// the lanes of a panel of up to three vectors, a row of the panel is one feature of all its tokens. A is read value by
// value (bfloat16: word by word), whatever its layout. A word is what one multiply-add takes: Op::kStep inputs.

// Where A's rows and words lie; `stride` in words.
enum class Left {
    kTiles,    // a row's neighbour is the next word, the next input follows the whole tile
    kColumns,  // a row's neighbour is the next word, the next input is `stride` away
    kRows,     // the next input is the next word, a row's neighbour is `stride` away
};

template <class S, class Op>
struct TokenRows {
    using Vec = typename S::Vec;
    using Operand = typename Op::Type;
    static constexpr int kRows = S::kLanes == 16 ? 8 : 4;  // kRows x 3 accumulators, a row of B and one value of A
    static constexpr int kAhead = 2048 / static_cast<int>(sizeof(Operand));

    // sum[r][v] += A[r] B for `words` words. Indices of `sum` are constants once unrolled, else gcc keeps it in memory.
    template <Left left, int V>
    [[gnu::always_inline]] static void accumulate(Vec (&sum)[kRows][V], std::int64_t words, const Operand* a,
                                                  std::int64_t stride, const Operand* b) {
        const std::int64_t row = (left == Left::kRows ? stride : 1) * Op::kStep;
        const std::int64_t next = (left == Left::kTiles ? kRows : left == Left::kColumns ? stride : 1) * Op::kStep;
#pragma GCC unroll 2
        for (std::int64_t k = 0; k < words; ++k) {
            typename Op::Vec right[V];
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) right[v] = Op::load_panel(b + v * S::kLanes * Op::kStep);
            b += V * S::kLanes * Op::kStep;
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
                const typename Op::Vec value = Op::broadcast(a + r * row);
#pragma GCC unroll 3
                for (int v = 0; v < V; ++v) sum[r][v] = Op::multiply_add(value, right[v], sum[r][v]);
            }
            // Packed rows come from beyond L2 where a block is wide; the processor's own prefetcher stops at each page.
            if constexpr (left == Left::kTiles) __builtin_prefetch(a + kAhead, 0, 3);
            a += next;
        }
    }

    // sum[r][v] = start[r], or zero without one.
    template <int V>
    [[gnu::always_inline]] static void begin(Vec (&sum)[kRows][V], const float* start) {
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) sum[r][v] = start ? S::set1(start[r]) : S::zero();
        }
    }

    // A whole tile of packed rows, from `start` to `sums` in memory.
    template <int V>
    [[gnu::noinline]] static void tile_apart(float* sums, const float* start, std::int64_t words, const Operand* a,
                                             const Operand* b) {
        Vec sum[kRows][V];
        begin(sum, start);
        accumulate<Left::kTiles>(sum, words, a, 0, b);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) S::store(sums + (r * V + v) * S::kLanes, sum[r][v]);
        }
    }

    // sum = start + A B for a tile of packed rows. With 16 registers the sums stay in them only in a function of its
    // own, where nothing else asks for one: a single sum in memory halves the speed.
    template <int V>
    [[gnu::always_inline]] static void tile(Vec (&sum)[kRows][V], const float* start, std::int64_t words,
                                            const Operand* a, const Operand* b) {
        if constexpr (S::kLanes == 16) {
            begin(sum, start);
            accumulate<Left::kTiles>(sum, words, a, 0, b);
        } else {
            float sums[kRows * V * S::kLanes];
            tile_apart<V>(sums, start, words, a, b);
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
                for (int v = 0; v < V; ++v) sum[r][v] = S::load(sums + (r * V + v) * S::kLanes);
            }
        }
    }

    // Two rows of a panel as operands. `p`: row `even` of the panel, whose rows are V vectors wide.
    template <int V>
    [[gnu::always_inline]] static void store_two(Operand* p, int v, Vec even, Vec odd) {
        if constexpr (Op::kStep == 2) {
            Op::store_pair(p + v * S::kLanes * 2, even, odd);
        } else {
            Op::store(p + v * S::kLanes, even);
            Op::store(p + (V + v) * S::kLanes, odd);
        }
    }
    template <int V>
    [[gnu::always_inline]] static void store_rows(Operand* p, const Vec (&sum)[kRows][V]) {
#pragma GCC unroll 4
        for (int r = 0; r < kRows; r += 2) {
#pragma GCC unroll 3
            for (int v = 0; v < V; ++v) store_two<V>(p + r * V * S::kLanes, v, sum[r][v], sum[r + 1][v]);
        }
    }
};

// kLanes vectors: element j of vector i becomes element i of vector j.
template <class S>
[[gnu::always_inline]] inline void transpose(typename S::Vec (&v)[S::kLanes]) {
    constexpr int kHalf = S::kLanes / 2;
#pragma GCC unroll 4
    for (int round = 1; round < S::kLanes; round *= 2) {
        typename S::Vec next[S::kLanes];
#pragma GCC unroll 8
        for (int i = 0; i < kHalf; ++i) {
            next[2 * i] = v[i];
            next[2 * i + 1] = v[i + kHalf];
            S::interleave(next[2 * i], next[2 * i + 1]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < S::kLanes; ++i) v[i] = next[i];
    }
}

// 2^v for v <= 0, down to 2^-87. Exact: relative error 2e-7; otherwise 7.5e-5.
template <class S, bool exact>
[[gnu::always_inline]] inline typename S::Vec exp2(typename S::Vec v) {
    if constexpr (!exact) {
        return S::coarse_exp2(v);
    } else {
        using Vec = typename S::Vec;
        const Vec bounded = S::bound_exponent(v);
        const Vec whole = S::round(bounded);
        const Vec part = bounded - whole;
        // Minimax in relative error on [-1/2, 1/2].
        Vec power = S::fma(S::set1(0x1.5c08e6p-10f), part, S::set1(0x1.3d0c52p-7f));
        power = S::fma(power, part, S::set1(0x1.c6b6e4p-5f));
        power = S::fma(power, part, S::set1(0x1.ebf918p-3f));
        power = S::fma(power, part, S::set1(0x1.62e428p-1f));
        power = S::fma(power, part, S::set1(0x1.000002p+0f));
        return S::scale(power, whole);
    }
}

}  // namespace fastimpute
