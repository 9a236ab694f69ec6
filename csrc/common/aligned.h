#pragma once

#include <cstdint>

namespace fastimpute {

inline bool aligned(const void* address, std::uintptr_t bytes) {
    return reinterpret_cast<std::uintptr_t>(address) % bytes == 0;
}

}  // namespace fastimpute
