#include <cstdint>
#include <cstring>

#include "spt_weights/spt_weights.h"

namespace fastimpute::avx512 {
namespace {
constexpr int kWidth = 16;
#include "common/lanes.inl.h"
}  // namespace
#include "spt_weights/spt_weights.inl.h"
}  // namespace fastimpute::avx512
