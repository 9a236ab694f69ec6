// The reverse step on rows, once for all instruction sets: included inside the namespace of one of them, with kWidth =
// its floats per vector.

template <bool kPrevious, bool kNoise>
[[gnu::always_inline]] static inline void diffuse_row(const DiffusionStep<float>& params, std::int64_t row) {
    const std::int64_t window = row % params.windows;
    const float* v_row = params.v + row * params.v_stride;
    const float* denoised_row = params.denoised + row * params.denoised_stride;
    const float* previous_row = kPrevious ? params.previous + row * params.previous_stride : nullptr;
    const std::uint8_t* missing_row = params.missing + window * params.missing_stride;
    float* v_new_row = params.v_new + row * params.v_new_stride;
    NoiseKeys noise = params.noise;
    noise.sample += static_cast<std::uint32_t>(row / params.windows);
    for (std::int64_t column = 0; column < params.dim; column += kWidth) {
        const Cells cells{params.dim - column};
        const auto v = cells.load(v_row + column);
        // Whole frames are missing or not: most vectors need nothing but v.
        if (!cells.any_of(missing_row + column)) {
            cells.store(v_new_row + column, v);
            continue;
        }
        const auto missing = cells.load_mask(missing_row + column);
        auto moved = params.state * v + params.clean * cells.load(denoised_row + column);
        if constexpr (kPrevious) moved += params.earlier * cells.load(previous_row + column);
        if constexpr (kNoise) moved += params.spread * normal_lanes(noise, window, column, cells.left);
        cells.store(v_new_row + column, missing ? moved : v);
    }
}

template <bool kPrevious, bool kNoise>
static void diffuse_rows(const DiffusionStep<float>& params, std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) diffuse_row<kPrevious, kNoise>(params, row);
}

void diffusion_step_rows(const DiffusionStep<float>& params, std::int64_t begin, std::int64_t end) {
    const bool previous = params.previous != nullptr;
    const bool noise = params.spread > 0;
    if (previous && noise) return diffuse_rows<true, true>(params, begin, end);
    if (previous) return diffuse_rows<true, false>(params, begin, end);
    if (noise) return diffuse_rows<false, true>(params, begin, end);
    diffuse_rows<false, false>(params, begin, end);
}
