// exp, log and cos(2 pi u) on Lanes: included inside the namespace of one instruction set.

// Relative error below 2e-7; below -87 it returns exp(-87), about 1.6e-38.
template <int kWidth>
[[gnu::always_inline]] static inline typename Lanes<kWidth>::Float exp_lanes(typename Lanes<kWidth>::Float value) {
    using V = Lanes<kWidth>;
    value = V::max(V::min(value, V::splat(88.0f)), V::splat(-87.0f));
    const auto power = V::round(value * 1.44269504f);
    const auto rest = (value - power * 0.693359375f) + power * 2.12194440e-4f;
    auto series = V::splat(1.9875691500e-4f);
    series = series * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    series = series * rest * rest + rest + 1.0f;
    const auto exponent = (__builtin_convertvector(power, typename V::Int) + 127) << 23;
    return series * V::as_float(exponent);
}

// Natural logarithm of normal positive numbers.
template <int kWidth>
[[gnu::always_inline]] static inline typename Lanes<kWidth>::Float log_lanes(typename Lanes<kWidth>::Float value) {
    using V = Lanes<kWidth>;
    // Split so that the mantissa lies in [sqrt(1/2), sqrt(2)).
    const auto bits = V::as_int(value);
    const auto exponent = (bits - 0x3f3504f3) >> 23;
    const auto mantissa = V::as_float(bits - (exponent << 23)) - 1.0f;
    auto series = V::splat(7.0376836292e-2f);
    series = series * mantissa - 1.1514610310e-1f;
    series = series * mantissa + 1.1676998740e-1f;
    series = series * mantissa - 1.2420140846e-1f;
    series = series * mantissa + 1.4249322787e-1f;
    series = series * mantissa - 1.6668057665e-1f;
    series = series * mantissa + 2.0000714765e-1f;
    series = series * mantissa - 2.4999993993e-1f;
    series = series * mantissa + 3.3333331174e-1f;
    const auto square = mantissa * mantissa;
    const auto power = __builtin_convertvector(exponent, typename V::Float);
    const auto low = series * square * mantissa - 2.12194440e-4f * power - 0.5f * square;
    return (mantissa + low) + 0.693359375f * power;
}

// cos(2 pi turn) for turn in [0, 1].
template <int kWidth>
[[gnu::always_inline]] static inline typename Lanes<kWidth>::Float cos_turn_lanes(typename Lanes<kWidth>::Float turn) {
    using V = Lanes<kWidth>;
    // cos(2 pi u) = sin(2 pi (1/4 - |u|)) with u in [-1/2, 1/2], so the sine's argument lies in [-1/4, 1/4] turns.
    const auto centred = turn - V::round(turn);
    const auto folded = 0.25f - (centred < 0.0f ? -centred : centred);
    const auto angle = folded * 6.28318531f;
    const auto square = angle * angle;
    auto series = V::splat(-2.50507478e-8f);
    series = series * square + 2.75573137e-6f;
    series = series * square - 1.98412698e-4f;
    series = series * square + 8.33333333e-3f;
    series = series * square - 1.66666667e-1f;
    return angle + angle * square * series;
}
