#pragma once

#include <cstdint>

#include "common/cpu_features.h"
#include "common/noise.h"

namespace fastimpute {

// One step of a reverse diffusion (arXiv 2510.02216), samples x windows x dim; row s * windows + w holds sample s of
// window w, strides in elements:
//     v_new = state * v + clean * denoised + earlier * previous + spread * N(0, 1)    where missing
// Observed cells keep the bits of v; nothing else is read there. previous may be null when earlier is zero, noise.keys
// (one row per window, noise.sample belongs to the first sample) when spread is. v_new may be v itself.
template <typename Real>
struct DiffusionStep {
    std::int64_t samples = 0;
    std::int64_t windows = 0;
    std::int64_t dim = 0;
    const Real* v = nullptr;
    std::int64_t v_stride = 0;
    const Real* denoised = nullptr;
    std::int64_t denoised_stride = 0;
    const Real* previous = nullptr;
    std::int64_t previous_stride = 0;
    const std::uint8_t* missing = nullptr;  // windows x dim
    std::int64_t missing_stride = 0;
    Real* v_new = nullptr;
    std::int64_t v_new_stride = 0;
    Real state = 0;
    Real clean = 0;
    Real earlier = 0;
    Real spread = 0;
    NoiseKeys noise;
};

// Throws std::invalid_argument naming op and argument.
template <typename Real>
void check_diffusion_step(const DiffusionStep<Real>& params);

// Checks the arguments, then steps all rows, spread over `threads`; the bits do not depend on `threads`.
void diffusion_step(Isa isa, const DiffusionStep<float>& params, int threads);
void diffusion_step_ref_f64(const DiffusionStep<double>& params);

namespace ref {
template <typename Real>
void diffusion_step_rows(const DiffusionStep<Real>& params, std::int64_t begin, std::int64_t end);
}
namespace avx2 {
void diffusion_step_rows(const DiffusionStep<float>& params, std::int64_t begin, std::int64_t end);
}
namespace avx512 {
void diffusion_step_rows(const DiffusionStep<float>& params, std::int64_t begin, std::int64_t end);
}

}  // namespace fastimpute
