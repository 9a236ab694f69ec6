#pragma once

#include <cstdint>

namespace fastimpute {

// Two vectors side by side with the interface of one. A row pass written for it has two chains of operations in turn:
// chains are longer than the processor's scheduler is deep, one alone would leave units idle.
template <class S>
struct Pair {
    struct Vec {
        typename S::Vec a, b;

        [[gnu::always_inline]] friend Vec operator+(Vec x, Vec y) { return {x.a + y.a, x.b + y.b}; }
        [[gnu::always_inline]] friend Vec operator-(Vec x, Vec y) { return {x.a - y.a, x.b - y.b}; }
        [[gnu::always_inline]] friend Vec operator*(Vec x, Vec y) { return {x.a * y.a, x.b * y.b}; }
    };
    static constexpr int kLanes = 2 * S::kLanes;

    [[gnu::always_inline]] static Vec load(const float* p) { return {S::load(p), S::load(p + S::kLanes)}; }
    [[gnu::always_inline]] static void store(float* p, Vec v) {
        S::store(p, v.a);
        S::store(p + S::kLanes, v.b);
    }
    [[gnu::always_inline]] static Vec set1(float value) { return {S::set1(value), S::set1(value)}; }
    [[gnu::always_inline]] static Vec zero() { return {S::zero(), S::zero()}; }
    [[gnu::always_inline]] static Vec fma(Vec x, Vec y, Vec z) {
        return {S::fma(x.a, y.a, z.a), S::fma(x.b, y.b, z.b)};
    }
    [[gnu::always_inline]] static Vec fms(Vec x, Vec y, Vec z) {
        return {S::fms(x.a, y.a, z.a), S::fms(x.b, y.b, z.b)};
    }
    [[gnu::always_inline]] static Vec fnma(Vec x, Vec y, Vec z) {
        return {S::fnma(x.a, y.a, z.a), S::fnma(x.b, y.b, z.b)};
    }
    [[gnu::always_inline]] static Vec bound_exponent(Vec v) { return {S::bound_exponent(v.a), S::bound_exponent(v.b)}; }
    [[gnu::always_inline]] static Vec round(Vec v) { return {S::round(v.a), S::round(v.b)}; }
    [[gnu::always_inline]] static Vec scale(Vec v, Vec n) { return {S::scale(v.a, n.a), S::scale(v.b, n.b)}; }
    [[gnu::always_inline]] static Vec coarse_exp2(Vec v) { return {S::coarse_exp2(v.a), S::coarse_exp2(v.b)}; }
    [[gnu::always_inline]] static Vec reciprocal_estimate(Vec v) {
        return {S::reciprocal_estimate(v.a), S::reciprocal_estimate(v.b)};
    }
    [[gnu::always_inline]] static float sum(Vec v) { return S::sum(v.a + v.b); }
};

// Stores of a pair as operands.
template <class S, class Op>
[[gnu::always_inline]] inline void store_operands(typename Op::Type* p, typename Pair<S>::Vec v) {
    Op::store(p, v.a);
    Op::store(p + S::kLanes, v.b);
}

}  // namespace fastimpute
