#pragma once

#include <cstdint>

namespace fastimpute {

// Philox4x32-10 (Salmon et al., SC 2011): random words that depend on nothing but counter and key, so noise is the same
// for every batch split and thread count. Word is one uint32 or a vector of them; high_word(words, factor) gives the
// upper halves of their 64-bit products. Functions have internal linkage: every instruction set gets its own copy;
// constexpr: CUDA kernels call the same text.
template <typename Word>
struct PhiloxWords {
    Word word[4];
};

template <typename Word, typename HighWord>
[[gnu::always_inline]] static constexpr inline PhiloxWords<Word> philox4x32(PhiloxWords<Word> counter,
                                                                            std::uint32_t key0, std::uint32_t key1,
                                                                            const HighWord& high_word) {
    constexpr std::uint32_t kFactor0 = 0xD2511F53u;
    constexpr std::uint32_t kFactor1 = 0xCD9E8D57u;
    for (int round = 0; round < 10; ++round) {
        counter = {{high_word(counter.word[2], kFactor1) ^ counter.word[1] ^ key0, counter.word[2] * kFactor1,
                    high_word(counter.word[0], kFactor0) ^ counter.word[3] ^ key1, counter.word[0] * kFactor0}};
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

template <typename Word, typename HighWord>
[[gnu::always_inline]] static constexpr inline PhiloxWords<Word> noise_words(const NoiseStream& stream, Word offset,
                                                                             Word sensor, const HighWord& high_word) {
    const auto start = static_cast<std::uint64_t>(stream.start);
    const PhiloxWords<Word> counter = {
        {Word{} + static_cast<std::uint32_t>(start), sensor, Word{} + stream.step, offset | (stream.sample << 20)}};
    return philox4x32(counter, static_cast<std::uint32_t>(stream.seed),
                      static_cast<std::uint32_t>(stream.seed >> 32) ^ static_cast<std::uint32_t>(start >> 32),
                      high_word);
}

}  // namespace fastimpute
