#include "common/noise.h"

#include "common/errors.h"

namespace fastimpute {

void check_noise(const char* op, const NoiseKeys& noise, std::int64_t dim, std::int64_t samples) {
    if (noise.sensors < 1 || dim % noise.sensors != 0)
        throw_invalid(op, "sensors", "a divisor of dim", static_cast<long long>(noise.sensors));
    if (noise.keys_stride < noise.sensors + 1)
        throw_invalid(op, "keys_stride", "at least the row length", static_cast<long long>(noise.keys_stride));
    if (static_cast<std::int64_t>(noise.sample) + samples > (1 << 12))
        throw_invalid(op, "sample", "below 4096", static_cast<long long>(noise.sample + samples - 1));
    if (dim / noise.sensors >= (1 << 20))
        throw_invalid(op, "window", "shorter than 2^20", static_cast<long long>(dim / noise.sensors));
}

}  // namespace fastimpute
