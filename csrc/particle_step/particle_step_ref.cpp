#include <cmath>
#include <numbers>

#include "common/philox.h"
#include "particle_step/particle_step.h"

namespace fastimpute::ref {
namespace {

template <typename Real>
Real adam_direction(const AdamMoments<Real>& moments, std::int64_t row, std::int64_t column, Real gradient) {
    Real& m = moments.m[row * moments.m_stride + column];
    Real& v = moments.v[row * moments.v_stride + column];
    m = Real(moments.beta1) * m + Real(1 - moments.beta1) * gradient;
    v = Real(moments.beta2) * v + Real(1 - moments.beta2) * gradient * gradient;
    return (m / moments.correction1) / (std::sqrt(v / moments.correction2) + moments.eps);
}

std::uint32_t high_word(std::uint32_t word, std::uint32_t factor) {
    return static_cast<std::uint32_t>((std::uint64_t{word} * factor) >> 32);
}

// Uniform in (0, 1): never 0, so that its logarithm is finite; never 1.
template <typename Real>
Real uniform(std::uint32_t word) {
    return (static_cast<Real>(word >> 9) + Real(0.5)) * Real(0x1p-23);
}

template <typename Real>
Real normal(const NoiseKeys& noise, std::int64_t row, std::int64_t column) {
    const std::int64_t* key = noise.keys + row * noise.keys_stride;
    const NoiseStream stream{noise.seed, key[0], noise.sample, noise.step};
    const auto sensor = static_cast<std::uint32_t>(key[1 + column % noise.sensors]);
    const auto offset = static_cast<std::uint32_t>(column / noise.sensors);
    const PhiloxWords<std::uint32_t> words = noise_words(stream, offset, sensor, high_word);
    const Real radius = std::sqrt(-2 * std::log(uniform<Real>(words.word[0])));
    return radius * std::cos(2 * std::numbers::pi_v<Real> * uniform<Real>(words.word[1]));
}

}  // namespace

template <typename Real>
void particle_step_rows(const ParticleStep<Real>& params, std::int64_t begin, std::int64_t end) {
    const Real noise_scale = std::sqrt(2 * params.eta);
    for (std::int64_t row = begin; row < end; ++row) {
        const Real rate = params.eta * (params.mass != nullptr ? params.mass[row] : Real(1));
        for (std::int64_t column = 0; column < params.dim; ++column) {
            const Real x = params.x[row * params.x_stride + column];
            Real& x_new = params.x_new[row * params.x_new_stride + column];
            if (params.missing[row * params.missing_stride + column] == 0) {
                x_new = x;
                continue;
            }
            Real direction = params.direction[row * params.direction_stride + column];
            if (params.moments.m != nullptr) direction = adam_direction(params.moments, row, column, direction);
            Real moved = x + rate * direction - params.eta * params.drift * x;
            if (params.noise.keys != nullptr) moved += noise_scale * normal<Real>(params.noise, row, column);
            x_new = moved;
        }
    }
}

template void particle_step_rows(const ParticleStep<float>&, std::int64_t, std::int64_t);
template void particle_step_rows(const ParticleStep<double>&, std::int64_t, std::int64_t);

}  // namespace fastimpute::ref
