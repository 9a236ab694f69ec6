// The particle step on rows, once for all instruction sets: included inside the namespace of one of them, with kWidth =
// its floats per vector.

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
