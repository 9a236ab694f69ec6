#include <cstdint>
#include <cstring>

#include "gaussian_conditional/gaussian_conditional.h"

namespace fastimpute::avx512 {
namespace {
constexpr int kLanes = 8;
#include "common/factor.inl.h"
}  // namespace
#include "gaussian_conditional/gaussian_conditional.inl.h"
}  // namespace fastimpute::avx512
