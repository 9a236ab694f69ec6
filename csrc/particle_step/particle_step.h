#pragma once

#include <cstdint>

#include "common/cpu_features.h"
#include "common/noise.h"

namespace fastimpute {

// Adam's running moments, updated in place where a cell is missing. correction = 1 - beta^step of the step being taken.
template <typename Real>
struct AdamMoments {
    Real* m = nullptr;
    std::int64_t m_stride = 0;
    Real* v = nullptr;
    std::int64_t v_stride = 0;
    double beta1 = 0;  // double: 1 - 0.999 in float is off by 5e-5
    double beta2 = 0;
    Real eps = 0;
    Real correction1 = 1;
    Real correction2 = 1;
};

// One step of the particles (arXiv 2602.01182), rows x dim, strides in elements:
//     x_new = x + eta * mass * direction          where missing; observed cells keep their bits
//     Adam (moments.m set): the direction is replaced by m_hat / (sqrt(v_hat) + eps)
//     drift, noise (noise.keys set): - eta * drift * x, + sqrt(2 eta) * N(0, 1)
// x_new may be x itself.
template <typename Real>
struct ParticleStep {
    std::int64_t rows = 0;
    std::int64_t dim = 0;
    const Real* x = nullptr;
    std::int64_t x_stride = 0;
    const Real* direction = nullptr;
    std::int64_t direction_stride = 0;
    const Real* mass = nullptr;  // one per row; null: all one
    const std::uint8_t* missing = nullptr;
    std::int64_t missing_stride = 0;
    Real* x_new = nullptr;
    std::int64_t x_new_stride = 0;
    Real eta = 0;
    Real drift = 0;
    AdamMoments<Real> moments;
    NoiseKeys noise;
};

// Throws std::invalid_argument naming op and argument.
template <typename Real>
void check_particle_step(const ParticleStep<Real>& params);

// Checks the arguments, then steps all rows, spread over `threads`; the bits do not depend on `threads`.
void particle_step(Isa isa, const ParticleStep<float>& params, int threads);
void particle_step_ref_f64(const ParticleStep<double>& params);

// Steps rows [begin, end) without checks: for callers that fuse the step.
void particle_step_rows(Isa isa, const ParticleStep<float>& params, std::int64_t begin, std::int64_t end);

namespace ref {
template <typename Real>
void particle_step_rows(const ParticleStep<Real>& params, std::int64_t begin, std::int64_t end);
}
namespace avx2 {
void particle_step_rows(const ParticleStep<float>& params, std::int64_t begin, std::int64_t end);
}
namespace avx512 {
void particle_step_rows(const ParticleStep<float>& params, std::int64_t begin, std::int64_t end);
}

}  // namespace fastimpute
