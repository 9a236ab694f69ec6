#include "common/peak.inl.h"
#include "common/simd_avx2.h"

namespace fastimpute::avx2 {

std::int64_t spin_peak(std::int64_t steps) { return spin_peak_of<Simd, FloatOperand<Simd>>(steps); }

}  // namespace fastimpute::avx2
