#pragma once

#include "ball_quantile/ball_quantile.h"
#include "common/cpu_features.h"
#include "diffusion_step/diffusion_step.h"
#include "gaussian_conditional/gaussian_conditional.h"
#include "gaussian_whitening/gaussian_whitening.h"
#include "particle_step/particle_step.h"
#include "spt_weights/spt_weights.h"

namespace fastimpute {

// One row of the table op x instruction set: the entry points of every op for one instruction set.
struct Kernels {
    void (*spt_weights_group)(const SptWeights<float>&, const ValueScale<float>&, std::int64_t, std::int64_t);
    void (*particle_step_rows)(const ParticleStep<float>&, std::int64_t, std::int64_t);
    void (*diffusion_step_rows)(const DiffusionStep<float>&, std::int64_t, std::int64_t);
    void (*ball_windows)(const BallQuantile<float>&, std::int64_t, std::int64_t, float*);
    std::int64_t (*gaussian_conditional_group)(const GaussianConditional<float>&, const WindowGroup&, const GroupPlan&,
                                               double*);
    std::int64_t (*gaussian_whitening_window)(const GaussianWhitening<float>&, const GapWindow&, double*);
};

// Ops without use for an instruction set's additions point at the level below (spt_weights on avx512bf16 runs avx512).
const Kernels& kernels(Isa isa);

}  // namespace fastimpute
