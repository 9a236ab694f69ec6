#include "common/simd_avx2.h"
#include "energy_mlp/energy_mlp.inl.h"

namespace fastimpute::avx2 {

std::int64_t energy_scratch(const PackedMlp& mlp, std::int64_t rows, bool want_hvp) {
    return fastimpute::energy_scratch<Simd, FloatOperand<Simd>>(mlp, rows, want_hvp);
}

void energy_block(const PackedMlp& mlp, const EnergyMlpArgs<float>& args, std::int64_t begin, std::int64_t end,
                  float* scratch) {
    fastimpute::energy_block<Simd, FloatOperand<Simd>>(mlp, args, begin, end, scratch);
}

}  // namespace fastimpute::avx2
