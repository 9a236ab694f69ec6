#include <algorithm>
#include <cmath>
#include <limits>

#include "spt_weights/spt_weights.h"

namespace fastimpute::ref {
namespace {

template <typename Real>
double bounded_mean(const Real* log_weight, std::int64_t count, double shift, double bound) {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += std::exp(std::clamp(log_weight[i] - shift, -bound, bound));
    return sum / static_cast<double>(count);
}

// The shift that makes mean(exp(clamp(log_weight - shift))) one: it decreases in the shift, so bisect.
template <typename Real>
double bounded_shift(const Real* log_weight, std::int64_t count, double lowest, double highest, double bound) {
    double low = lowest - bound;
    double high = highest + bound;
    for (int halving = 0; halving < 100; ++halving) {
        const double middle = 0.5 * (low + high);
        (bounded_mean(log_weight, count, middle, bound) > 1 ? low : high) = middle;
    }
    return 0.5 * (low + high);
}

}  // namespace

template <typename Real>
void spt_weights_group(const SptWeights<Real>& params, const ValueScale<Real>& scaling, std::int64_t begin,
                       std::int64_t count) {
    const Real log_count = std::log(static_cast<Real>(count));
    Real* log_w_new = params.log_w_new + begin;
    Real highest = -std::numeric_limits<Real>::infinity();
    Real lowest = std::numeric_limits<Real>::infinity();
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t row = begin + i;
        const Real value = params.log_p[row] - params.gamma / 2 * params.score_sq[row];
        const Real log_ref = params.log_ref != nullptr ? params.log_ref[row] : -log_count;
        log_w_new[i] = log_ref + (1 - params.tau) * (params.log_w[row] - log_ref) +
                       params.eta_w * ((value - scaling.center) * scaling.scale);
        highest = std::max(highest, log_w_new[i]);
        lowest = std::min(lowest, log_w_new[i]);
    }
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += std::exp(static_cast<double>(log_w_new[i] - highest));
    double shift = highest + std::log(sum / static_cast<double>(count));
    const double bound = params.bound;
    if (highest - shift > bound || lowest - shift < -bound)
        shift = bounded_shift<Real>(log_w_new, count, lowest, highest, bound);
    for (std::int64_t i = 0; i < count; ++i) {
        const Real log_mass = static_cast<Real>(std::clamp(log_w_new[i] - shift, -bound, bound));
        log_w_new[i] = log_mass - log_count;
        params.mass[begin + i] = std::exp(log_mass);
    }
}

template void spt_weights_group(const SptWeights<float>&, const ValueScale<float>&, std::int64_t, std::int64_t);
template void spt_weights_group(const SptWeights<double>&, const ValueScale<double>&, std::int64_t, std::int64_t);

}  // namespace fastimpute::ref
