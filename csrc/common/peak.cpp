#include "common/peak.h"

#include "common/errors.h"

namespace fastimpute {

std::int64_t spin_peak(Isa isa, Precision precision, std::int64_t steps) {
    if (!isa_usable(isa)) throw_invalid("spin_peak", "isa", "usable on this machine", isa_name(isa));
#if defined(__x86_64__)
    if (precision == Precision::kBf16 && isa == Isa::kAvx512Bf16) return avx512bf16::spin_peak(steps);
    if (precision == Precision::kFp32 && isa >= Isa::kAvx512) return avx512::spin_peak(steps);
    if (precision == Precision::kFp32 && isa == Isa::kAvx2) return avx2::spin_peak(steps);
#endif
    throw_invalid("spin_peak", "isa", "one with vector kernels for this precision", isa_name(isa));
}

}  // namespace fastimpute
