#include <cmath>

#include "common/noise_ref.h"
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
