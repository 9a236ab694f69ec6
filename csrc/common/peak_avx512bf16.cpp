#include "common/peak.inl.h"
#include "common/simd_avx512bf16.h"

namespace fastimpute::avx512bf16 {

std::int64_t spin_peak(std::int64_t steps) { return spin_peak_of<Simd, Bf16Operand>(steps); }

}  // namespace fastimpute::avx512bf16
