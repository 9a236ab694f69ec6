#include <cstdint>
#include <cstring>

#include "spt_weights/spt_weights.h"

namespace fastimpute::avx2 {
namespace {
constexpr int kWidth = 8;
#include "common/lanes.inl.h"
}  // namespace
#include "spt_weights/spt_weights.inl.h"
}  // namespace fastimpute::avx2
