#include "common/scratch.h"

#include "common/aligned_buffer.h"

namespace fastimpute {

float* thread_scratch(std::int64_t floats) {
    thread_local AlignedBuffer<float> buffer;
    if (buffer.size() < static_cast<std::size_t>(floats)) {
        buffer = AlignedBuffer<float>();
        buffer = AlignedBuffer<float>(static_cast<std::size_t>(floats));
    }
    return buffer.data();
}

}  // namespace fastimpute
