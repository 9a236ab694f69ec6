// The weight update of one group, once for all instruction sets: included inside the namespace of one of them, with
// kWidth = its floats per vector. Groups are short (they stay in cache), so passes over one cost little beside memory.

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
        total += static_cast<double>(V::reduce(part, [](V::Float a, V::Float b) { return a + b; }));
        part = V::Float{};
        held = 0;
    }
};

// Access to a whole vector of particles, and to the last few of a group; `select` puts `otherwise` into lanes beyond
// them.
struct Whole {
    static constexpr bool kWhole = true;

    [[gnu::always_inline]] inline V::Float load(const float* source) const { return V::load(source); }
    [[gnu::always_inline]] inline void store(float* target, V::Float value) const { V::store(target, value); }
    [[gnu::always_inline]] inline V::Float select(V::Float value, float) const { return value; }
};
struct Tail {
    static constexpr bool kWhole = false;
    std::int64_t left;

    [[gnu::always_inline]] inline V::Float load(const float* source) const {
        V::Float value = {};
        for (int lane = 0; lane < left; ++lane) value[lane] = source[lane];
        return value;
    }
    [[gnu::always_inline]] inline void store(float* target, V::Float value) const {
        for (int lane = 0; lane < left; ++lane) target[lane] = value[lane];
    }
    [[gnu::always_inline]] inline V::Float select(V::Float value, float otherwise) const {
        for (int lane = static_cast<int>(left); lane < kWidth; ++lane) value[lane] = otherwise;
        return value;
    }
};

// body(first particle, Whole or Tail) over a group.
template <typename Body>
[[gnu::always_inline]] static inline void for_vectors(std::int64_t count, const Body& body) {
    std::int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) body(i, Whole{});
    if (i < count) body(i, Tail{count - i});
}

struct Range {
    float lowest;
    float highest;
};

[[gnu::always_inline]] static inline Range range_of(V::Float lowest, V::Float highest) {
    return {V::reduce(lowest, [](V::Float a, V::Float b) { return V::min(a, b); }),
            V::reduce(highest, [](V::Float a, V::Float b) { return V::max(a, b); })};
}

// Computes the logits and returns their range.
template <bool kReference>
[[gnu::always_inline]] static inline Range update_logits(const SptWeights<float>& params,
                                                         const ValueScale<float>& scaling, std::int64_t begin,
                                                         std::int64_t count, float* logits) {
    const float kept = 1.0f - params.tau;
    const float step = params.eta_w * scaling.scale;
    const float half_gamma = 0.5f * params.gamma;
    const float infinity = __builtin_inff();
    auto lowest = V::splat(infinity);
    auto highest = V::splat(-infinity);
    for_vectors(count, [&](std::int64_t i, auto part) __attribute__((always_inline)) {
        const std::int64_t row = begin + i;
        const auto value = part.load(params.log_p + row) - half_gamma * part.load(params.score_sq + row);
        auto logit = kept * part.load(params.log_w + row) + step * (value - scaling.center);
        if constexpr (kReference) logit += params.tau * part.load(params.log_ref + row);
        part.store(logits + i, logit);
        lowest = V::min(lowest, part.select(logit, infinity));
        highest = V::max(highest, part.select(logit, -infinity));
    });
    return range_of(lowest, highest);
}

// The next group's inputs, fetched while this group computes: otherwise memory and arithmetic would take turns.
[[gnu::always_inline]] static inline void prefetch_next(const SptWeights<float>& params, std::int64_t row) {
    __builtin_prefetch(params.log_w + row);
    __builtin_prefetch(params.log_p + row);
    __builtin_prefetch(params.score_sq + row);
}

[[gnu::always_inline]] static inline V::Float clamp_lanes(V::Float value, float bound) {
    return V::max(V::min(value, V::splat(bound)), V::splat(-bound));
}

static inline double bounded_mean(const float* logits, std::int64_t count, float shift, float bound) {
    BlockSum sum;
    for_vectors(count, [&](std::int64_t i, auto part) __attribute__((always_inline)) {
        sum.add(part.select(exp_lanes(clamp_lanes(part.load(logits + i) - shift, bound)), 0.0f));
    });
    sum.flush();
    return sum.total / static_cast<double>(count);
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

// Results into place: past the caches, or as usual.
struct Streamed {
    template <typename Part>
    [[gnu::always_inline]] void operator()(const Part& part, float* target, V::Float value) const {
        if constexpr (Part::kWhole) {
            V::stream(target, value);
        } else {
            part.store(target, value);
        }
    }
};
struct Stored {
    template <typename Part>
    [[gnu::always_inline]] void operator()(const Part& part, float* target, V::Float value) const {
        part.store(target, value);
    }
};

// `logits` and `weights` hold what lies between the passes: the results' own places unless these are streamed.
template <typename Put>
[[gnu::always_inline]] static inline void update_group(const SptWeights<float>& params,
                                                       const ValueScale<float>& scaling, std::int64_t begin,
                                                       std::int64_t count, float* logits, float* weights,
                                                       const Put& put) {
    const Range range = params.log_ref != nullptr ? update_logits<true>(params, scaling, begin, count, logits)
                                                  : update_logits<false>(params, scaling, begin, count, logits);
    float* log_w_new = params.log_w_new + begin;
    float* mass = params.mass + begin;
    const float log_count = static_cast<float>(__builtin_log(static_cast<double>(count)));

    BlockSum sum;
    for_vectors(count, [&](std::int64_t i, auto part) __attribute__((always_inline)) {
        prefetch_next(params, begin + count + i);
        const auto weight = exp_lanes(part.load(logits + i) - range.highest);
        part.store(weights + i, weight);
        sum.add(part.select(weight, 0.0f));
    });
    sum.flush();
    const double mean = sum.total / static_cast<double>(count);
    const float log_mean = static_cast<float>(__builtin_log(mean));
    const float bound = params.bound;
    if (-log_mean <= bound && (range.lowest - range.highest) - log_mean >= -bound) {
        const float scale = static_cast<float>(1.0 / mean);
        const float shift = log_mean + log_count;
        for_vectors(count, [&](std::int64_t i, auto part) __attribute__((always_inline)) {
            put(part, log_w_new + i, (part.load(logits + i) - range.highest) - shift);
            put(part, mass + i, part.load(weights + i) * scale);
        });
        return;
    }
    const float shift = bounded_shift(logits, count, range, bound);
    for_vectors(count, [&](std::int64_t i, auto part) __attribute__((always_inline)) {
        const auto log_mass = clamp_lanes(part.load(logits + i) - shift, bound);
        put(part, log_w_new + i, log_mass - log_count);
        put(part, mass + i, exp_lanes(log_mass));
    });
}

void spt_weights_group(const SptWeights<float>& params, const ValueScale<float>& scaling, std::int64_t begin,
                       std::int64_t count) {
    if (params.scratch != nullptr) {
        update_group(params, scaling, begin, count, params.scratch, params.scratch + kStreamedGroup, Streamed{});
    } else {
        update_group(params, scaling, begin, count, params.log_w_new + begin, params.mass + begin, Stored{});
    }
}
