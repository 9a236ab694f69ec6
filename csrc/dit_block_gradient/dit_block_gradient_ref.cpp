#include <algorithm>
#include <cmath>

#include "dit_block_gradient/dit_block_gradient.inl.h"

namespace fastimpute::ref {
namespace {

// Vectors of one value.
struct Lane {
    using Vec = float;
    static constexpr int kLanes = 1;

    static Vec load(const float* p) { return *p; }
    static void store(float* p, Vec v) { *p = v; }
    static Vec load_first(const float* p, std::int64_t count) { return count > 0 ? *p : 0.0f; }
    static void store_first(float* p, std::int64_t count, Vec v) {
        if (count > 0) *p = v;
    }
    static Vec set1(float value) { return value; }
    static Vec zero() { return 0.0f; }
    static Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
    static Vec fms(Vec a, Vec b, Vec c) { return a * b - c; }
    static Vec fnma(Vec a, Vec b, Vec c) { return c - a * b; }
    static Vec max(Vec a, Vec b) { return std::max(a, b); }
    static Vec sqrt(Vec v) { return std::sqrt(v); }
    static Vec bound_exponent(Vec u) { return std::clamp(u, -87.0f, 87.0f); }
    static Vec round(Vec v) { return std::nearbyint(v); }
    static Vec scale(Vec v, Vec n) { return std::ldexp(v, static_cast<int>(n)); }
    static Vec reciprocal_estimate(Vec v) { return 1.0f / v; }
    static float sum(Vec v) { return v; }
    static void interleave(Vec&, Vec&) {}
};

}  // namespace

std::int64_t dit_gradient_scratch(const DitGradientTask& task) { return fastimpute::dit_gradient_scratch<Lane>(task); }

void dit_gradient_sequence(const DitGradientTask& task, std::int64_t sequence, float* scratch) {
    fastimpute::dit_gradient_sequence<Lane>(task, sequence, scratch);
}

}  // namespace fastimpute::ref
