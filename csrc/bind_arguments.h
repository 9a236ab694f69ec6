#pragma once

#include <cstdint>
#include <string_view>
#include <tuple>

#include "common/errors.h"
#include "common/mlp.h"
#include "common/noise.h"

// What arguments of several ops come in as.

// Tensors come in as addresses; zero stands for an absent one.
template <typename T>
T* at(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// (seed, keys, keys_stride, sensors, sample, step); keys = 0: no noise.
using NoiseTuple = std::tuple<std::uint64_t, std::uintptr_t, std::int64_t, std::int64_t, std::uint32_t, std::uint32_t>;

inline fastimpute::NoiseKeys noise_of(const NoiseTuple& noise) {
    const auto& [seed, keys, keys_stride, sensors, sample, step] = noise;
    return {seed, at<const std::int64_t>(keys), keys_stride, sensors, sample, step};
}

// `owner` is what an error says the name was given to.
inline fastimpute::Precision precision_from_name(std::string_view owner, std::string_view name) {
    if (name == "fp32") return fastimpute::Precision::kFp32;
    if (name == "bf16") return fastimpute::Precision::kBf16;
    fastimpute::throw_invalid(owner, "precision", "\"fp32\" or \"bf16\"", name);
}
