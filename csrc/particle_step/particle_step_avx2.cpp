#include <cstdint>
#include <cstring>

#include "common/philox.h"
#include "common/simd_avx2.h"
#include "particle_step/particle_step.h"

namespace fastimpute::avx2 {
namespace {
constexpr int kWidth = 8;
#include "common/lanes.inl.h"
#include "common/noise.inl.h"
#include "common/row_cells.inl.h"
}  // namespace
#include "particle_step/particle_step.inl.h"
}  // namespace fastimpute::avx2
