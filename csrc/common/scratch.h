#pragma once

#include <cstdint>

namespace fastimpute {

// At least `floats` floats, 64-byte aligned, of this thread; contents are finite but otherwise left from the last use.
// Kept between calls, so that a call on a few rows does not pay for fresh pages.
float* thread_scratch(std::int64_t floats);

}  // namespace fastimpute
