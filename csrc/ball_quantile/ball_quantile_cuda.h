#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ball_quantile/ball_quantile.h"

namespace fastimpute::cuda {

// `ball_quantile` on the current device: addresses are the device's, `stream` is a cudaStream_t. Up to 1024 samples are
// read once, more of them (up to 8192) twice. Accesses are 16 bytes wide where every array begins on 16 bytes (the
// mask: 4) and every stride is a multiple of 4; the bits do not depend on it, nor on the other windows.
void ball_quantile(const BallQuantile<float>& params, std::uintptr_t stream);

inline constexpr std::int64_t kBallSamplesMost = 8192;  // whose squared distances fit into shared memory

// Why windows cannot have so many samples; none when they can.
inline std::optional<std::string> samples_refusal(std::int64_t samples) {
    if (samples <= kBallSamplesMost) return std::nullopt;
    return "samples are " + std::to_string(samples) + " to a window, the kernel takes up to " +
           std::to_string(kBallSamplesMost);
}

}  // namespace fastimpute::cuda
