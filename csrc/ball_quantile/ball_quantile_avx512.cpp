#include <cstdint>
#include <cstring>

#include "ball_quantile/ball_quantile.h"
#include "common/simd_avx512.h"

namespace fastimpute::avx512 {
namespace {
constexpr int kWidth = 16;
#include "common/lanes.inl.h"
#include "common/row_cells.inl.h"
}  // namespace
#include "ball_quantile/ball_quantile.inl.h"
}  // namespace fastimpute::avx512
