#pragma once

#include <cstdint>

namespace fastimpute {

// Keys of the noise (common/philox.h). Row i of `keys` holds its window's absolute start, then the `sensors` ids of its
// columns; element d of a patch is offset d / sensors of the window, sensor d % sensors.
struct NoiseKeys {
    std::uint64_t seed = 0;
    const std::int64_t* keys = nullptr;
    std::int64_t keys_stride = 0;
    std::int64_t sensors = 0;
    std::uint32_t sample = 0;
    std::uint32_t step = 0;
};

// Throws std::invalid_argument unless rows of `dim` cells can be keyed by `noise` for `samples` samples from its first.
void check_noise(const char* op, const NoiseKeys& noise, std::int64_t dim, std::int64_t samples);

}  // namespace fastimpute
