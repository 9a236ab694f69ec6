// Means and distances of neighbouring windows, once for all instruction sets: included inside the namespace of one of
// them, with kWidth = its floats per vector. The windows' samples are read twice, the second time from the cache:
// sample by sample, so that what is read lies together; vectors without missing cells are read once, of the first
// sample.

// Samples summed together: the sum of a group is a tree, so that long sums round little; each is one stream to
// prefetch.
constexpr std::int64_t kGroup = 8;
// Samples whose distances are taken together, sharing the loads of centre and mask.
constexpr std::int64_t kShared = 4;

// One window: where its first sample, mask and centre lie.
struct BallWindow {
    const float* x;
    const std::uint8_t* missing;
    float* centre;

    [[gnu::always_inline]] static inline BallWindow of(const BallQuantile<float>& params, std::int64_t window) {
        return {params.x + window * params.window_stride, params.missing + window * params.missing_stride,
                params.centre + window * params.centre_stride};
    }
};

[[gnu::always_inline]] static inline V::Float tree_sum(const Cells& cells, const float* x, std::int64_t stride) {
    const auto pair = [&](int first) __attribute__((always_inline)) {
        return cells.load(x + first * stride) + cells.load(x + (first + 1) * stride);
    };
    return (pair(0) + pair(2)) + (pair(4) + pair(6));
}

// centre += the kCount samples from `sample` on, where a vector has missing cells; the first ones start the sum.
template <std::int64_t kCount>
[[gnu::always_inline]] static inline void add_samples(const BallQuantile<float>& params, const BallWindow& window,
                                                      std::int64_t sample) {
    const float* x = window.x + sample * params.sample_stride;
    for (std::int64_t column = 0; column < params.dim; column += kWidth) {
        const Cells cells{params.dim - column};
        if (!cells.any_of(window.missing + column)) continue;
        V::Float sum;
        if constexpr (kCount == kGroup) {
            sum = tree_sum(cells, x + column, params.sample_stride);
        } else {
            sum = cells.load(x + column);
        }
        if (sample > 0) sum += cells.load(window.centre + column);
        cells.store(window.centre + column, sum);
    }
}

// centre <- mean where missing, the first sample's bits elsewhere.
[[gnu::always_inline]] static inline void divide_sums(const BallQuantile<float>& params, const BallWindow& window) {
    const auto samples = static_cast<float>(params.samples);
    for (std::int64_t column = 0; column < params.dim; column += kWidth) {
        const Cells cells{params.dim - column};
        const auto known = cells.load(window.x + column);
        if (cells.any_of(window.missing + column)) {
            const auto mean = cells.load(window.centre + column) / samples;
            cells.store(window.centre + column, cells.load_mask(window.missing + column) ? mean : known);
        } else {
            cells.store(window.centre + column, known);
        }
    }
}

// |x_s - centre|^2 of kCount samples from `sample` on. Meanwhile the same samples of the window `ahead` elements
// further on come into the second-level cache: otherwise memory and arithmetic would take turns.
template <std::int64_t kCount>
[[gnu::always_inline]] static inline void squared_distances(const BallQuantile<float>& params, const BallWindow& window,
                                                            std::int64_t sample, std::int64_t ahead, float* squares) {
    const float* x = window.x + sample * params.sample_stride;
    V::Float parts[kCount] = {};
    for (std::int64_t column = 0; column < params.dim; column += kWidth) {
        const Cells cells{params.dim - column};
        if (!cells.any_of(window.missing + column)) continue;
        const auto mask = cells.load_mask(window.missing + column);
        const auto mean = cells.load(window.centre + column);
#pragma GCC unroll 4
        for (std::int64_t i = 0; i < kCount; ++i) {
            __builtin_prefetch(x + i * params.sample_stride + column + ahead, 0, 2);
            const auto deviation = cells.load(x + i * params.sample_stride + column) - mean;
            parts[i] += mask ? deviation * deviation : V::Float{};
        }
    }
    for (std::int64_t i = 0; i < kCount; ++i) squares[sample + i] = sum_lanes(parts[i]);
}

// body(first sample, whether kCount of them) over all samples, and within over all windows.
template <std::int64_t kCount, typename Body>
[[gnu::always_inline]] static inline void for_samples(const BallQuantile<float>& params, std::int64_t begin,
                                                      std::int64_t end, const Body& body) {
    const std::int64_t grouped = params.samples - params.samples % kCount;
    for (std::int64_t sample = 0; sample < params.samples; sample += sample < grouped ? kCount : 1)
        for (std::int64_t window = begin; window < end; ++window) body(sample, sample < grouped, window);
}

void ball_windows(const BallQuantile<float>& params, std::int64_t begin, std::int64_t end, float* squares) {
    for_samples<kGroup>(params, begin, end,
                        [&](std::int64_t sample, bool group, std::int64_t window) __attribute__((always_inline)) {
                            const auto at = BallWindow::of(params, window);
                            if (group) {
                                add_samples<kGroup>(params, at, sample);
                            } else {
                                add_samples<1>(params, at, sample);
                            }
                        });
    for (std::int64_t window = begin; window < end; ++window) divide_sums(params, BallWindow::of(params, window));
    const std::int64_t ahead = (end - begin) * params.window_stride;
    for_samples<kShared>(params, begin, end,
                         [&](std::int64_t sample, bool group, std::int64_t window) __attribute__((always_inline)) {
                             const auto at = BallWindow::of(params, window);
                             float* own = squares + (window - begin) * params.samples;
                             if (group) {
                                 squared_distances<kShared>(params, at, sample, ahead, own);
                             } else {
                                 squared_distances<1>(params, at, sample, ahead, own);
                             }
                         });
}
