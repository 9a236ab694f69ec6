// The particle step on rows, once for all instruction sets: included inside the namespace of one of them, with kWidth =
// its floats per vector.

[[gnu::always_inline]] static inline V::Float sqrt_lanes(V::Float value) {
    V::Float root;
    for (int lane = 0; lane < kWidth; ++lane) root[lane] = __builtin_sqrtf(value[lane]);
    return root;
}

// kWidth cells of one row, `left` of them real. The tail reads and writes through padded buffers.
struct Cells {
    std::int64_t left;

    [[gnu::always_inline]] inline V::Float load(const float* source) const {
        if (left >= kWidth) return V::load(source);
        float buffer[kWidth] = {};
        for (int lane = 0; lane < left; ++lane) buffer[lane] = source[lane];
        return V::load(buffer);
    }
    [[gnu::always_inline]] inline V::Int load_mask(const std::uint8_t* source) const {
        if (left >= kWidth) return V::load_mask(source);
        std::uint8_t buffer[kWidth] = {};
        for (int lane = 0; lane < left; ++lane) buffer[lane] = source[lane];
        return V::load_mask(buffer);
    }
    [[gnu::always_inline]] inline void store(float* target, V::Float value) const {
        if (left >= kWidth) {
            V::store(target, value);
        } else {
            for (int lane = 0; lane < left; ++lane) target[lane] = value[lane];
        }
    }
};

[[gnu::always_inline]] static inline V::Float adam_direction(const AdamMoments<float>& moments, const Cells& cells,
                                                             float* m_cells, float* v_cells, V::Float gradient,
                                                             V::Int missing) {
    const auto m_old = cells.load(m_cells);
    const auto v_old = cells.load(v_cells);
    const auto m = float(moments.beta1) * m_old + float(1 - moments.beta1) * gradient;
    const auto v = float(moments.beta2) * v_old + float(1 - moments.beta2) * gradient * gradient;
    cells.store(m_cells, missing ? m : m_old);
    cells.store(v_cells, missing ? v : v_old);
    return (m / moments.correction1) / (sqrt_lanes(v / moments.correction2) + moments.eps);
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

template <bool kAdam, bool kNoise>
[[gnu::always_inline]] static inline void step_row(const ParticleStep<float>& params, std::int64_t row,
                                                   float noise_scale) {
    const float* x_row = params.x + row * params.x_stride;
    const float* direction_row = params.direction + row * params.direction_stride;
    const std::uint8_t* missing_row = params.missing + row * params.missing_stride;
    float* x_new_row = params.x_new + row * params.x_new_stride;
    const float rate = params.eta * (params.mass != nullptr ? params.mass[row] : 1.0f);
    const float pull = params.eta * params.drift;
    for (std::int64_t column = 0; column < params.dim; column += kWidth) {
        const Cells cells{params.dim - column};
        const auto x = cells.load(x_row + column);
        const auto missing = cells.load_mask(missing_row + column);
        auto direction = cells.load(direction_row + column);
        if constexpr (kAdam) {
            const AdamMoments<float>& moments = params.moments;
            direction = adam_direction(moments, cells, moments.m + row * moments.m_stride + column,
                                       moments.v + row * moments.v_stride + column, direction, missing);
        }
        auto moved = x + rate * direction - pull * x;
        if constexpr (kNoise) moved += noise_scale * normal_lanes(params.noise, row, column, cells.left);
        cells.store(x_new_row + column, missing ? moved : x);
    }
}

template <bool kAdam, bool kNoise>
static void step_rows(const ParticleStep<float>& params, std::int64_t begin, std::int64_t end) {
    const float noise_scale = __builtin_sqrtf(2.0f * params.eta);
    for (std::int64_t row = begin; row < end; ++row) step_row<kAdam, kNoise>(params, row, noise_scale);
}

void particle_step_rows(const ParticleStep<float>& params, std::int64_t begin, std::int64_t end) {
    const bool adam = params.moments.m != nullptr;
    const bool noise = params.noise.keys != nullptr;
    if (adam && noise) return step_rows<true, true>(params, begin, end);
    if (adam) return step_rows<true, false>(params, begin, end);
    if (noise) return step_rows<false, true>(params, begin, end);
    step_rows<false, false>(params, begin, end);
}
