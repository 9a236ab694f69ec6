#pragma once

#include "common/device.cuh"
#include "common/noise.h"
#include "common/philox.h"

namespace fastimpute::cuda {

// Standard normal of one cell, by Box-Muller from two words of its own counter (common/philox.h).
__device__ __forceinline__ float normal_cell(const NoiseStream& stream, std::uint32_t offset, std::uint32_t sensor) {
    const auto high_word = [](std::uint32_t word, std::uint32_t factor) constexpr {
        return static_cast<std::uint32_t>((std::uint64_t{word} * factor) >> 32);
    };
    const PhiloxWords<std::uint32_t> words = noise_words(stream, offset, sensor, high_word);
    const auto uniform = [](std::uint32_t word) { return (static_cast<float>(word >> 9) + 0.5f) * 0x1p-23f; };
    return sqrtf(-2.0f * logf(uniform(words.word[0]))) * cos_turn(uniform(words.word[1]));
}

__device__ __forceinline__ float normal_cell(const NoiseKeys& noise, std::int64_t row, std::uint32_t column) {
    const auto sensors = static_cast<std::uint32_t>(noise.sensors);
    const std::int64_t* key = noise.keys + row * noise.keys_stride;
    const NoiseStream stream{noise.seed, key[0], noise.sample, noise.step};
    return normal_cell(stream, column / sensors, static_cast<std::uint32_t>(key[1 + column % sensors]));
}

}  // namespace fastimpute::cuda
