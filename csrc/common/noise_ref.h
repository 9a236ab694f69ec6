#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "common/noise.h"
#include "common/philox.h"

// The scalar noise of the reference kernels.
namespace fastimpute::ref {

// Uniform in (0, 1): never 0, so that its logarithm is finite; never 1.
template <typename Real>
inline Real uniform(std::uint32_t word) {
    return (static_cast<Real>(word >> 9) + Real(0.5)) * Real(0x1p-23);
}

template <typename Real>
inline Real normal(const NoiseKeys& noise, std::int64_t row, std::int64_t column) {
    const auto high_word = [](std::uint32_t word, std::uint32_t factor) {
        return static_cast<std::uint32_t>((std::uint64_t{word} * factor) >> 32);
    };
    const std::int64_t* key = noise.keys + row * noise.keys_stride;
    const NoiseStream stream{noise.seed, key[0], noise.sample, noise.step};
    const auto sensor = static_cast<std::uint32_t>(key[1 + column % noise.sensors]);
    const auto offset = static_cast<std::uint32_t>(column / noise.sensors);
    const PhiloxWords<std::uint32_t> words = noise_words(stream, offset, sensor, high_word);
    const Real radius = std::sqrt(-2 * std::log(uniform<Real>(words.word[0])));
    return radius * std::cos(2 * std::numbers::pi_v<Real> * uniform<Real>(words.word[1]));
}

}  // namespace fastimpute::ref
