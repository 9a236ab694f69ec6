#include <cstdint>
#include <cstring>

#include "gaussian_whitening/gaussian_whitening.h"

namespace fastimpute::avx512 {
namespace {
constexpr int kLanes = 8;
#include "common/factor.inl.h"
}  // namespace
#include "gaussian_whitening/gaussian_whitening.inl.h"
}  // namespace fastimpute::avx512
