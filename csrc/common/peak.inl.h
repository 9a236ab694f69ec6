#pragma once

#include "common/gemm.inl.h"
#include "common/peak.h"

namespace fastimpute {

// Twelve chains: enough to hide the latency of four cycles on two units.
template <class S, class Op>
[[gnu::always_inline]] inline std::int64_t spin_peak_of(std::int64_t steps) {
    constexpr int kChains = 12;
    const typename Op::Type ones[2 * S::kLanes * Op::kStep] = {};
    const typename Op::Vec factor = Op::load_panel(ones);
    typename S::Vec acc[kChains];
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = S::set1(static_cast<float>(i));
    for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) {
            acc[i] = Op::multiply_add(factor, factor, acc[i]);
            asm volatile("" : "+v"(acc[i]));
        }
    }
    return steps * kChains * S::kLanes * Op::kStep * 2;
}

}  // namespace fastimpute
