#pragma once

#include <cstdint>

#include "common/packed_mlp.h"

namespace fastimpute {

// Hands out pieces of scratch memory; without memory it only counts.
struct Carver {
    float* base;
    std::int64_t used = 0;

    template <class T>
    [[gnu::always_inline]] T* take(std::int64_t count) {
        float* piece = base ? base + used : nullptr;
        used += round_up(count * static_cast<std::int64_t>(sizeof(T)), 64) / static_cast<std::int64_t>(sizeof(float));
        return reinterpret_cast<T*>(piece);
    }
};

}  // namespace fastimpute
