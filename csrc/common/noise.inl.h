// The noise of kWidth cells at a time. Included after common/lanes.inl.h, in the same anonymous namespace; needs
// common/noise.h, common/philox.h and Simd of the instruction set (common/simd_<isa>.h).

[[gnu::always_inline]] static inline V::Float sqrt_lanes(V::Float value) {
    return reinterpret_cast<V::Float>(Simd::sqrt(reinterpret_cast<Simd::Vec>(value)));
}

// Uniform in (0, 1): never 0, so that its logarithm is finite; never 1.
[[gnu::always_inline]] static inline V::Float uniform_lanes(V::Word words) {
    return (__builtin_convertvector(reinterpret_cast<V::Int>(words >> 9), V::Float) + 0.5f) * 0x1p-23f;
}

// Standard normals of columns [column, column + kWidth) by Box-Muller from two words of each cell's own counter.
[[gnu::always_inline]] static inline V::Float normal_lanes(const NoiseKeys& noise, std::int64_t row,
                                                           std::int64_t column, std::int64_t left) {
    const std::int64_t* key = noise.keys + row * noise.keys_stride;
    const NoiseStream stream{noise.seed, key[0], noise.sample, noise.step};
    std::uint32_t offsets[kWidth];
    std::uint32_t sensors[kWidth];
    auto offset = static_cast<std::uint32_t>(column / noise.sensors);
    auto sensor = column % noise.sensors;
    for (int lane = 0; lane < kWidth; ++lane) {
        offsets[lane] = offset;
        sensors[lane] = lane < left ? static_cast<std::uint32_t>(key[1 + sensor]) : 0;
        if (++sensor == noise.sensors) {
            sensor = 0;
            ++offset;
        }
    }
    V::Word offset_words;
    V::Word sensor_words;
    std::memcpy(&offset_words, offsets, sizeof(offsets));
    std::memcpy(&sensor_words, sensors, sizeof(sensors));
    const auto high_word = [](V::Word words, std::uint32_t factor) __attribute__((always_inline)) {
        return reinterpret_cast<V::Word>(Simd::mul_high(reinterpret_cast<Simd::Words>(words), factor));
    };
    const auto words = noise_words(stream, offset_words, sensor_words, high_word);
    return sqrt_lanes(-2.0f * log_lanes(uniform_lanes(words.word[0]))) * cos_turn_lanes(uniform_lanes(words.word[1]));
}
