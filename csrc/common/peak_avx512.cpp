#include "common/peak.inl.h"
#include "common/simd_avx512.h"

namespace fastimpute::avx512 {

std::int64_t spin_peak(std::int64_t steps) { return spin_peak_of<Simd, FloatOperand<Simd>>(steps); }

}  // namespace fastimpute::avx512
