#include "diffusion_step/diffusion_step.h"

#include "common/parallel_for.h"
#include "dispatch.h"

namespace fastimpute {

void diffusion_step(Isa isa, const DiffusionStep<float>& params, int threads) {
    check_diffusion_step(params);
    if (params.dim == 0) return;
    constexpr std::int64_t kCellsPerTask = 1 << 16;
    parallel_for(
        0, params.samples * params.windows, kCellsPerTask / params.dim, threads,
        [&](std::int64_t begin, std::int64_t end, int) { kernels(isa).diffusion_step_rows(params, begin, end); });
}

void diffusion_step_ref_f64(const DiffusionStep<double>& params) {
    check_diffusion_step(params);
    ref::diffusion_step_rows(params, 0, params.samples * params.windows);
}

}  // namespace fastimpute
