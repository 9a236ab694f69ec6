#include "particle_step/particle_step.h"

#include "common/parallel_for.h"
#include "dispatch.h"

namespace fastimpute {

void particle_step_rows(Isa isa, const ParticleStep<float>& params, std::int64_t begin, std::int64_t end) {
    kernels(isa).particle_step_rows(params, begin, end);
}

void particle_step(Isa isa, const ParticleStep<float>& params, int threads) {
    check_particle_step(params);
    if (params.dim == 0) return;
    constexpr std::int64_t kCellsPerTask = 1 << 16;
    parallel_for(0, params.rows, kCellsPerTask / params.dim, threads,
                 [&](std::int64_t begin, std::int64_t end, int) { particle_step_rows(isa, params, begin, end); });
}

void particle_step_ref_f64(const ParticleStep<double>& params) {
    check_particle_step(params);
    ref::particle_step_rows(params, 0, params.rows);
}

}  // namespace fastimpute
