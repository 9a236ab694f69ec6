// The weight update of one group, once for all instruction sets: included inside the namespace of one of them, with
// kWidth = its floats per vector. Groups are short (they stay in cache), so passes cost little beside memory.

// Sums in float within a block, in double across blocks: exact enough for any group, in a fixed order.
struct BlockSum {
    static constexpr int kFlushEvery = 64;
    V::Float part = {};
    double total = 0;
    int held = 0;

    [[gnu::always_inline]] inline void add(V::Float value) {
        part += value;
        if (++held == kFlushEvery) flush();
    }
    [[gnu::always_inline]] inline void flush() {
        for (int lane = 0; lane < kWidth; ++lane) total += static_cast<double>(part[lane]);
        part = V::Float{};
        held = 0;
    }
};

// Calls body(load, store, lanes) over [0, count) in whole vectors; the tail goes through a padded buffer.
[[gnu::always_inline]] static inline V::Float load_tail(const float* source, std::int64_t left, float padding) {
    float buffer[kWidth];
    for (int lane = 0; lane < kWidth; ++lane) buffer[lane] = lane < left ? source[lane] : padding;
    return V::load(buffer);
}
[[gnu::always_inline]] static inline void store_tail(float* target, V::Float value, std::int64_t left) {
    for (int lane = 0; lane < left; ++lane) target[lane] = value[lane];
}
[[gnu::always_inline]] static inline V::Float load_some(const float* source, std::int64_t left, float padding) {
    return left >= kWidth ? V::load(source) : load_tail(source, left, padding);
}
[[gnu::always_inline]] static inline void store_some(float* target, V::Float value, std::int64_t left) {
    if (left >= kWidth) {
        V::store(target, value);
    } else {
        store_tail(target, value, left);
    }
}

struct Range {
    float lowest;
    float highest;
};

// log_w_new <- the logits; returns their range.
[[gnu::always_inline]] static inline Range update_logits(const SptWeights<float>& params,
                                                         const ValueScale<float>& scaling, std::int64_t begin,
                                                         std::int64_t count) {
    const float kept = 1.0f - params.tau;
    const float step = params.eta_w * scaling.scale;
    const float half_gamma = 0.5f * params.gamma;
    auto lowest = V::splat(__builtin_inff());
    auto highest = V::splat(-__builtin_inff());
    for (std::int64_t i = 0; i < count; i += kWidth) {
        const std::int64_t row = begin + i;
        const std::int64_t left = count - i;
        const auto value =
            load_some(params.log_p + row, left, 0.0f) - half_gamma * load_some(params.score_sq + row, left, 0.0f);
        auto logit = kept * load_some(params.log_w + row, left, 0.0f) + step * (value - scaling.center);
        if (params.log_ref != nullptr) logit += params.tau * load_some(params.log_ref + row, left, 0.0f);
        store_some(params.log_w_new + row, logit, left);
        if (left < kWidth) logit = load_tail(params.log_w_new + row, left, params.log_w_new[row]);
        lowest = V::min(lowest, logit);
        highest = V::max(highest, logit);
    }
    Range range{lowest[0], highest[0]};
    for (int lane = 1; lane < kWidth; ++lane) {
        range.lowest = lowest[lane] < range.lowest ? lowest[lane] : range.lowest;
        range.highest = highest[lane] > range.highest ? highest[lane] : range.highest;
    }
    return range;
}

[[gnu::always_inline]] static inline V::Float clamp_lanes(V::Float value, float bound) {
    return V::max(V::min(value, V::splat(bound)), V::splat(-bound));
}

static inline double bounded_mean(const float* logits, std::int64_t count, float shift, float bound) {
    BlockSum sum;
    const auto padding = exp_lanes(clamp_lanes(V::splat(-__builtin_inff()), bound))[0];
    for (std::int64_t i = 0; i < count; i += kWidth) {
        sum.add(exp_lanes(clamp_lanes(load_some(logits + i, count - i, -__builtin_inff()) - shift, bound)));
    }
    sum.flush();
    const std::int64_t padded = (kWidth - count % kWidth) % kWidth;
    return (sum.total - static_cast<double>(padded) * static_cast<double>(padding)) / static_cast<double>(count);
}

// The shift that makes mean(exp(clamp(logits - shift))) one: the mean falls as the shift grows, so bisect.
static inline float bounded_shift(const float* logits, std::int64_t count, const Range& range, float bound) {
    float low = range.lowest - bound;
    float high = range.highest + bound;
    for (int halving = 0; halving < 40; ++halving) {
        const float middle = 0.5f * (low + high);
        (bounded_mean(logits, count, middle, bound) > 1.0 ? low : high) = middle;
    }
    return 0.5f * (low + high);
}

void spt_weights_group(const SptWeights<float>& params, const ValueScale<float>& scaling, std::int64_t begin,
                       std::int64_t count) {
    const Range range = update_logits(params, scaling, begin, count);
    float* log_w_new = params.log_w_new + begin;
    float* mass = params.mass + begin;
    const float log_count = static_cast<float>(__builtin_log(static_cast<double>(count)));

    BlockSum sum;
    for (std::int64_t i = 0; i < count; i += kWidth) {
        const std::int64_t left = count - i;
        const auto weight = exp_lanes(load_some(log_w_new + i, left, 0.0f) - range.highest);
        store_some(mass + i, weight, left);
        sum.add(left >= kWidth ? weight : load_tail(mass + i, left, 0.0f));
    }
    sum.flush();
    const double mean = sum.total / static_cast<double>(count);
    const float log_mean = static_cast<float>(__builtin_log(mean));
    const float bound = params.bound;
    const bool within = -log_mean <= bound && (range.lowest - range.highest) - log_mean >= -bound;
    if (within) {
        const float scale = static_cast<float>(1.0 / mean);
        for (std::int64_t i = 0; i < count; i += kWidth) {
            const std::int64_t left = count - i;
            const auto log_mass = (load_some(log_w_new + i, left, 0.0f) - range.highest) - log_mean;
            store_some(log_w_new + i, log_mass - log_count, left);
            store_some(mass + i, load_some(mass + i, left, 0.0f) * scale, left);
        }
        return;
    }
    const float shift = bounded_shift(log_w_new, count, range, bound);
    for (std::int64_t i = 0; i < count; i += kWidth) {
        const std::int64_t left = count - i;
        const auto log_mass = clamp_lanes(load_some(log_w_new + i, left, 0.0f) - shift, bound);
        store_some(log_w_new + i, log_mass - log_count, left);
        store_some(mass + i, exp_lanes(log_mass), left);
    }
}
