#pragma once

#include <cstdint>

namespace fastimpute {

// Philox4x32-10 (Salmon et al., SC 2011): four random words that depend on nothing but counter and key, so noise is the
// same for every batch split and thread count. Functions have internal linkage: every instruction set gets its own
// copy.
struct PhiloxWords {
    std::uint32_t word[4];
};

static inline PhiloxWords philox4x32(PhiloxWords counter, std::uint32_t key0, std::uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter.word[0];
        const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter.word[2];
        counter = {{static_cast<std::uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0,
                    static_cast<std::uint32_t>(product1),
                    static_cast<std::uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1,
                    static_cast<std::uint32_t>(product0)}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// The noise of one patch: `start` is the absolute time step of its window, `sample` tells imputations apart, `step` is
// the iteration. Element (offset in the window, sensor) has its own counter
//     (low word of start, sensor, step, sample * 2^20 + offset),  key = (low word of seed, high word of seed ^ high
//     word of start).
// Windows have fewer than 2^20 steps and at most 2^12 samples are drawn.
struct NoiseStream {
    std::uint64_t seed;
    std::int64_t start;
    std::uint32_t sample;
    std::uint32_t step;
};

static inline PhiloxWords noise_words(const NoiseStream& stream, std::uint32_t offset, std::uint32_t sensor) {
    const std::uint64_t start = static_cast<std::uint64_t>(stream.start);
    const PhiloxWords counter = {
        {static_cast<std::uint32_t>(start), sensor, stream.step, (stream.sample << 20) | offset}};
    return philox4x32(counter, static_cast<std::uint32_t>(stream.seed),
                      static_cast<std::uint32_t>(stream.seed >> 32) ^ static_cast<std::uint32_t>(start >> 32));
}

// Uniform in (0, 1): never 0, so that its logarithm is finite; never 1.
static inline float uniform_open(std::uint32_t word) {
    return (static_cast<float>(static_cast<std::int32_t>(word >> 9)) + 0.5f) * 0x1p-23f;
}

}  // namespace fastimpute
