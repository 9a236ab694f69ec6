// The noise of kWidth cells at a time. Included after common/lanes.inl.h, in the same anonymous namespace; needs
// common/noise.h and common/philox.h.

[[gnu::always_inline]] static inline V::Float sqrt_lanes(V::Float value) {
    V::Float root;
    for (int lane = 0; lane < kWidth; ++lane) root[lane] = __builtin_sqrtf(value[lane]);
    return root;
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
    V::Word offset = {};
    V::Word sensor = {};
    auto at_offset = static_cast<std::uint32_t>(column / noise.sensors);
    auto at_sensor = column % noise.sensors;
    for (int lane = 0; lane < kWidth; ++lane) {
        offset[lane] = at_offset;
        sensor[lane] = lane < left ? static_cast<std::uint32_t>(key[1 + at_sensor]) : 0;
        if (++at_sensor == noise.sensors) {
            at_sensor = 0;
            ++at_offset;
        }
    }
    const auto high_word = [](V::Word words, std::uint32_t factor) {
        return __builtin_convertvector((__builtin_convertvector(words, V::Wide) * factor) >> 32, V::Word);
    };
    const auto words = noise_words(stream, offset, sensor, high_word);
    return sqrt_lanes(-2.0f * log_lanes(uniform_lanes(words.word[0]))) * cos_turn_lanes(uniform_lanes(words.word[1]));
}
