#include <cstdint>
#include <cstring>

#include "gaussian_conditional/gaussian_conditional.h"

namespace fastimpute::avx2 {
namespace {
constexpr int kLanes = 4;
#include "common/factor.inl.h"
}  // namespace
#include "gaussian_conditional/gaussian_conditional.inl.h"
}  // namespace fastimpute::avx2
