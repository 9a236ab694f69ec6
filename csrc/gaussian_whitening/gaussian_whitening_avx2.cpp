#include <cstdint>
#include <cstring>

#include "gaussian_whitening/gaussian_whitening.h"

namespace fastimpute::avx2 {
namespace {
constexpr int kLanes = 4;
#include "common/factor.inl.h"
}  // namespace
#include "gaussian_whitening/gaussian_whitening.inl.h"
}  // namespace fastimpute::avx2
