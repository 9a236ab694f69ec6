#include "common/noise_ref.h"
#include "diffusion_step/diffusion_step.h"

namespace fastimpute::ref {

template <typename Real>
void diffusion_step_rows(const DiffusionStep<Real>& params, std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t window = row % params.windows;
        NoiseKeys noise = params.noise;
        noise.sample += static_cast<std::uint32_t>(row / params.windows);
        for (std::int64_t column = 0; column < params.dim; ++column) {
            const Real v = params.v[row * params.v_stride + column];
            Real& v_new = params.v_new[row * params.v_new_stride + column];
            if (params.missing[window * params.missing_stride + column] == 0) {
                v_new = v;
                continue;
            }
            Real moved = params.state * v + params.clean * params.denoised[row * params.denoised_stride + column];
            if (params.previous != nullptr)
                moved += params.earlier * params.previous[row * params.previous_stride + column];
            if (params.spread > 0) moved += params.spread * normal<Real>(noise, window, column);
            v_new = moved;
        }
    }
}

template void diffusion_step_rows(const DiffusionStep<float>&, std::int64_t, std::int64_t);
template void diffusion_step_rows(const DiffusionStep<double>&, std::int64_t, std::int64_t);

}  // namespace fastimpute::ref
