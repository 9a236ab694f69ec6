#pragma once

#include <cstdint>

#include "common/cpu_features.h"
#include "common/mlp.h"

namespace fastimpute {

// Multiply-adds on registers only, `steps` on each of the accumulators: what one core can do at best, the yardstick of
// the benchmarks. Returns the floating-point operations done. Throws std::invalid_argument as MlpPack does.
std::int64_t spin_peak(Isa isa, Precision precision, std::int64_t steps);

namespace avx2 {
std::int64_t spin_peak(std::int64_t steps);
}
namespace avx512 {
std::int64_t spin_peak(std::int64_t steps);
}
namespace avx512bf16 {
std::int64_t spin_peak(std::int64_t steps);
}

}  // namespace fastimpute
