#include <algorithm>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <vector>

#include "unrolled_attention/unrolled_attention.h"

namespace fastimpute::ref {
namespace {

// One sequence by itself, all its frames in every array, zero where a frame has no part in it.
template <typename Real>
class Sequence {
  public:
    using Values = std::vector<Real>;
    using Map = std::function<Values(const Values&)>;

    Sequence(const UnrolledAttention<Real>& params, const UnrolledPlan<Real>& plan, std::int64_t index)
        : params_(params),
          plan_(plan),
          index_(index),
          frames_(params.frames),
          channels_(params.channels),
          missing_(params.missing + index * params.missing_stride) {}

    void solve() const {
        const Real alpha = params_.alpha[index_];
        const Values mu =
            only(true, attend(solve_seen(only(false, into_basis(params_.x + index_ * params_.x_stride, 1)))));
        Values right = only(true, into_basis(params_.v + index_ * params_.v_stride, alpha));
        for (std::size_t i = 0; i < right.size(); ++i) right[i] = alpha * mu[i] - right[i];
        const Values score = iterate([this](const Values& s) { return product(s); }, right, params_.outer,
                                     [](const Values& residual) { return residual; });
        write(score, mu);
    }

  private:
    // The channels' independent modes of values - scale * mean.
    Values into_basis(const Real* values, Real scale) const {
        Values out(frames_ * channels_, 0);
        for (std::int64_t cell = 0; cell < frames_ * channels_; ++cell) {
            const std::int64_t frame = cell / channels_, channel = cell % channels_;
            const Real centred = values[cell] - (params_.mean ? scale * params_.mean[cell] : Real(0));
            if (params_.basis == nullptr) {
                out[cell] = centred;
                continue;
            }
            for (std::int64_t mode = 0; mode < channels_; ++mode)
                out[frame * channels_ + mode] += centred * params_.basis[channel * channels_ + mode];
        }
        return out;
    }

    Real from_basis(const Values& values, std::int64_t frame, std::int64_t channel) const {
        if (params_.basis == nullptr) return values[frame * channels_ + channel];
        Real sum = 0;
        for (std::int64_t mode = 0; mode < channels_; ++mode)
            sum += values[frame * channels_ + mode] * params_.basis[channel * channels_ + mode];
        return sum;
    }

    Values only(bool missing, Values values) const {
        for (std::int64_t cell = 0; cell < frames_ * channels_; ++cell)
            if ((missing_[cell / channels_] != 0) != missing) values[cell] = 0;
        return values;
    }

    Real variance(std::int64_t channel) const { return params_.variance ? params_.variance[channel] : Real(1); }

    Values attend(const Values& values) const {
        Values out(values.size(), 0);
        for (std::int64_t i = 0; i < frames_; ++i) {
            for (std::int64_t channel = 0; channel < channels_; ++channel) {
                Real sum = 0;
                for (std::int64_t k = 0; k < frames_; ++k)
                    sum += params_.lag_table[std::abs(i - k)] * values[k * channels_ + channel];
                out[i * channels_ + channel] = variance(channel) * sum;
            }
        }
        return out;
    }

    Values solve_seen(const Values& right) const {
        const auto apply = [this](const Values& u) { return only(false, attend(u)); };
        const auto precondition = [this](const Values& residual) { return tridiagonal(residual); };
        return iterate(apply, right, params_.inner, precondition);
    }

    Values product(const Values& s) const {
        const Real alpha = params_.alpha[index_], sigma = params_.sigma[index_];
        const Values from_hidden = attend(s);
        const Values from_seen = attend(solve_seen(only(false, from_hidden)));
        Values out(s.size());
        for (std::size_t i = 0; i < s.size(); ++i)
            out[i] = alpha * alpha * (from_hidden[i] - from_seen[i]) + sigma * sigma * s[i];
        return only(true, out);
    }

    // B^T W B / variance, B y = y_i - decay y_previous over the frames seen.
    Values tridiagonal(const Values& residual) const {
        if (plan_.decay == nullptr) return residual;
        Values out(residual.size(), 0);
        for (std::int64_t channel = 0; channel < channels_; ++channel) {
            std::int64_t previous = -1;
            for (std::int64_t frame = 0; frame < frames_; ++frame) {
                if (missing_[frame] != 0) continue;
                const std::int64_t gap = previous < 0 ? 0 : frame - previous;
                const Real before = previous < 0 ? Real(0) : residual[previous * channels_ + channel];
                const Real increment =
                    plan_.weight[gap] * (residual[frame * channels_ + channel] - plan_.decay[gap] * before);
                out[frame * channels_ + channel] += increment / variance(channel);
                if (previous >= 0)
                    out[previous * channels_ + channel] -= plan_.decay[gap] * increment / variance(channel);
                previous = frame;
            }
        }
        return out;
    }

    static Real dot(const Values& a, const Values& b) {
        return std::inner_product(a.begin(), a.end(), b.begin(), Real(0));
    }

    Values iterate(const Map& apply, const Values& right, const IterationRates<Real>& rates,
                   const Map& precondition) const {
        if (rates.rates == nullptr) return conjugate_gradients(apply, right, rates.count, precondition);
        const Real* rate = rates.rates + (rates.rows == 1 ? 0 : index_ * rates.count * 2);
        Values solution(right.size(), 0), direction(right.size(), 0);
        for (std::int64_t k = 0; k < rates.count; ++k) {
            Values residual = right;
            if (k > 0) {
                const Values image = apply(solution);
                for (std::size_t i = 0; i < residual.size(); ++i) residual[i] -= image[i];
            }
            residual = precondition(residual);
            for (std::size_t i = 0; i < residual.size(); ++i) {
                direction[i] = residual[i] + rate[2 * k + 1] * direction[i];
                solution[i] += rate[2 * k] * direction[i];
            }
        }
        return solution;
    }

    static Values conjugate_gradients(const Map& apply, const Values& right, std::int64_t count,
                                      const Map& precondition) {
        Values solution(right.size(), 0), residual = right, preconditioned = precondition(residual);
        Values direction = preconditioned;
        Real energy = dot(residual, preconditioned);
        for (std::int64_t k = 0; k < count; ++k) {
            const Values image = apply(direction);
            const Real curvature = dot(direction, image);
            const Real step = curvature > 0 ? energy / curvature : Real(0);
            for (std::size_t i = 0; i < solution.size(); ++i) {
                solution[i] += step * direction[i];
                residual[i] -= step * image[i];
            }
            preconditioned = precondition(residual);
            const Real next = dot(residual, preconditioned);
            const Real momentum = energy > 0 ? next / energy : Real(0);
            energy = next;
            for (std::size_t i = 0; i < solution.size(); ++i)
                direction[i] = preconditioned[i] + momentum * direction[i];
        }
        return solution;
    }

    void write(const Values& score, const Values& mu) const {
        const std::int64_t cells = frames_ * channels_;
        for (std::int64_t cell = 0; cell < cells; ++cell) {
            const std::int64_t frame = cell / channels_, channel = cell % channels_;
            const bool hidden = missing_[frame] != 0;
            const Real base = params_.mean ? params_.mean[cell] : Real(0);
            params_.score[index_ * cells + cell] = hidden ? from_basis(score, frame, channel) : Real(0);
            params_.conditional_mean[index_ * cells + cell] =
                hidden ? base + from_basis(mu, frame, channel) : params_.x[index_ * params_.x_stride + cell];
        }
    }

    const UnrolledAttention<Real>& params_;
    const UnrolledPlan<Real>& plan_;
    std::int64_t index_, frames_, channels_;
    const std::uint8_t* missing_;
};

}  // namespace

std::int64_t unrolled_scratch(const UnrolledAttention<float>&) { return 0; }

template <typename Real>
void unrolled_solve(const UnrolledAttention<Real>& params, const UnrolledPlan<Real>& plan, std::int64_t begin,
                    std::int64_t end, Real*) {
    for (std::int64_t i = begin; i < end; ++i) Sequence<Real>(params, plan, plan.order[i]).solve();
}

template void unrolled_solve(const UnrolledAttention<float>&, const UnrolledPlan<float>&, std::int64_t, std::int64_t,
                             float*);
template void unrolled_solve(const UnrolledAttention<double>&, const UnrolledPlan<double>&, std::int64_t, std::int64_t,
                             double*);

}  // namespace fastimpute::ref
