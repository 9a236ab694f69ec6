// The CUDA kernels' bodies on emulated lanes, for ctypes.

#include <algorithm>
#include <cstring>

#include "emulated_group.h"
#include "energy_mlp/energy_group.cuh"
#include "energy_mlp/energy_mlp.cuh"
#include "particle_step/particle_step.cuh"
#include "score_mlp/score_mlp.cuh"
#include "spt_weights/spt_weights.cuh"

using fastimpute::ParticleStep;
using fastimpute::SptWeights;

namespace {

template <int kLanes, int kHeld>
void teams(const SptWeights<float>& params) {
    constexpr int kThreads = 64;
    const std::int64_t groups = (params.rows + params.group - 1) / params.group;
    constexpr int kPerBlock = kThreads / kLanes;
    emulated::launch((groups + kPerBlock - 1) / kPerBlock, kThreads, [&](const emulated::Lane& lane) {
        fastimpute::cuda::spt_weights_teams<kLanes, kHeld>(lane, params);
    });
}

void blocks(const SptWeights<float>& params, bool shared) {
    constexpr int kThreads = 64;
    std::vector<float> held(params.group);
    std::vector<double> partial(kThreads / 32);
    const std::int64_t groups = (params.rows + params.group - 1) / params.group;
    emulated::launch(groups, kThreads, [&](const emulated::Lane& lane) {
        fastimpute::cuda::spt_weights_block(lane, params, shared ? held.data() : nullptr, partial.data());
    });
}

template <int kWide, bool kAdam, bool kNoise>
void step(const ParticleStep<float>& params) {
    constexpr int kThreads = 32;
    constexpr std::int64_t kPerBlock = kThreads * fastimpute::cuda::kAccesses<kAdam>;
    const std::int64_t accesses = params.rows * (params.dim / kWide);
    emulated::launch((accesses + kPerBlock - 1) / kPerBlock, kThreads, [&](const emulated::Lane& lane) {
        fastimpute::cuda::particle_step_cells<kWide, kAdam, kNoise>(lane, params);
    });
}

template <int kWide>
void step(const ParticleStep<float>& params) {
    const bool adam = params.moments.m != nullptr;
    const bool noise = params.noise.keys != nullptr;
    if (adam && noise) return step<kWide, true, true>(params);
    if (adam) return step<kWide, true, false>(params);
    if (noise) return step<kWide, false, true>(params);
    step<kWide, false, false>(params);
}

std::vector<fastimpute::cuda::FourWords> packed(fastimpute::Head head, std::int64_t dim, const float* const* weights) {
    using namespace fastimpute::cuda;
    std::vector<FourWords> pack(mlp_pack_bytes(head, dim) / sizeof(FourWords));
    pack_mlp(head,
             {kHidden, dim, weights[0], weights[1], weights[2], weights[3], weights[4], weights[5], nullptr, nullptr},
             pack.data());
    return pack;
}

std::vector<fastimpute::cuda::FourWords> shared_memory(int warps, int slab_steps) {
    using namespace fastimpute::cuda;
    return std::vector<FourWords>((kW2Values + warps * kOperandValues + slab_steps * kStepValues) / 8);
}

}  // namespace

extern "C" {

// `lanes`: of a team; 0: a block with shared memory, -1: a block without.
void emulate_spt_weights(int lanes, std::int64_t rows, std::int64_t group, const float* log_w, const float* log_p,
                         const float* score_sq, const float* log_ref, float* log_w_new, float* mass, float gamma,
                         float eta_w, float tau, float bound, bool robust) {
    const SptWeights<float> params = {rows, group, log_w, log_p, score_sq, log_ref, log_w_new,
                                      mass, gamma, eta_w, tau,   bound,    robust};
    if (lanes == 8) return teams<8, 1>(params);
    if (lanes == 32) return group <= 32 ? teams<32, 1>(params) : teams<32, 4>(params);
    blocks(params, lanes == 0);
}

void emulate_particle_step(int wide, std::int64_t rows, std::int64_t dim, std::int64_t stride, const float* x,
                           const float* direction, const float* mass, const std::uint8_t* missing, float* x_new,
                           float eta, float drift, float* m, float* v, float correction1, float correction2,
                           std::uint64_t seed, const std::int64_t* keys, std::int64_t sensors, std::uint32_t sample,
                           std::uint32_t iteration) {
    const ParticleStep<float> params = {rows,
                                        dim,
                                        x,
                                        stride,
                                        direction,
                                        stride,
                                        mass,
                                        missing,
                                        stride,
                                        x_new,
                                        stride,
                                        eta,
                                        drift,
                                        {m, stride, v, stride, 0.9, 0.999, 1e-8f, correction1, correction2},
                                        {seed, keys, sensors + 1, sensors, sample, iteration}};
    wide == 4 ? step<4>(params) : step<1>(params);
}

// `weights`: of w1, b1, w2, b2, w3, b3. Index and vector may be null, without hvp no H v is computed.
void emulate_energy_mlp(int warps, std::int64_t blocks, int slab_steps, std::int64_t rows, std::int64_t dim,
                        const float* const* weights, const float* modulation, std::int64_t modulation_rows,
                        const std::int64_t* index, const float* x, const float* vector, float* log_p, float* score,
                        float* hvp, std::int64_t stride) {
    using namespace fastimpute::cuda;
    const std::vector<FourWords> pack = packed(fastimpute::Head::kEnergy, dim, weights);
    std::vector<FourWords> shared = shared_memory(warps, slab_steps);
    const bool want_hvp = hvp != nullptr;
    std::vector<std::uint32_t> kept(blocks * warps * kept_slots(want_hvp) * kKeptWords, 0xFFFFFFFFu);
    const EnergyJob job = {{rows,
                            x,
                            stride,
                            {modulation, modulation_rows, index},
                            vector,
                            stride,
                            want_hvp,
                            log_p,
                            score,
                            stride,
                            hvp,
                            stride},
                           unpack_mlp(fastimpute::Head::kEnergy, dim, pack.data()),
                           kept.data(),
                           slab_steps};
    emulated::launch(blocks, warps * 32, [&](const emulated::Lane& lane) {
        auto* memory = reinterpret_cast<std::uint16_t*>(shared.data());
        want_hvp ? energy_mlp_block<true>(lane, job, memory) : energy_mlp_block<false>(lane, job, memory);
    });
}

// The same by warpgroups on Hopper; `x` and `score` with `stride`.
void emulate_energy_group(int groups, std::int64_t blocks, std::int64_t rows, std::int64_t dim,
                          const float* const* weights, const float* modulation, std::int64_t modulation_rows,
                          const std::int64_t* index, const float* x, float* log_p, float* score, std::int64_t stride) {
    using namespace fastimpute::cuda;
    const std::vector<FourWords> pack = packed(fastimpute::Head::kEnergy, dim, weights);
    const Layout layout = group_layout(dim, 1, 1, 227 * 1024);
    const FourWords untouched = {{~0u, ~0u, ~0u, ~0u}};
    std::vector<FourWords> shared(layout.shared_bytes / sizeof(FourWords), untouched);
    std::vector<std::uint32_t> kept(blocks * groups * kGroupWarps * kKeptWords, 0xFFFFFFFFu);
    const EnergyMlpCuda call = {
        {rows, x, stride, {modulation, modulation_rows, index}, nullptr, 0, false, log_p, score, stride, nullptr, 0},
        dim,
        pack.data(),
        nullptr,
        nullptr,
        kept.data(),
        0};
    const EnergyJob job = energy_job(call, layout);
    with_group_steps(layout.slab_steps, [&]<int kInputSteps>() {
        emulated::launch_groups(blocks, groups * kGroup, shared, [&](const emulated::GroupLane& lane) {
            energy_group_block<kInputSteps>(lane, job, reinterpret_cast<std::uint16_t*>(shared.data()));
        });
    });
}

// `weights`: of w1, b1, w2, b2, w3, b3. Index may be null.
void emulate_score_mlp(int warps, std::int64_t blocks, int slab_steps, std::int64_t rows, std::int64_t dim,
                       const float* const* weights, const float* modulation, std::int64_t modulation_rows,
                       const std::int64_t* index, const float* x, const float* sigma, float* score,
                       std::int64_t stride) {
    using namespace fastimpute::cuda;
    const std::vector<FourWords> pack = packed(fastimpute::Head::kDirect, dim, weights);
    std::vector<FourWords> shared = shared_memory(warps, slab_steps);
    const ScoreJob job = {{rows, x, stride, sigma, {modulation, modulation_rows, index}, score, stride},
                          unpack_mlp(fastimpute::Head::kDirect, dim, pack.data()),
                          slab_steps};
    emulated::launch(blocks, warps * 32, [&](const emulated::Lane& lane) {
        score_mlp_block(lane, job, reinterpret_cast<std::uint16_t*>(shared.data()));
    });
}

// (warps, steps of W1, bytes) of a block of warpgroups.
void group_layout(std::int64_t dim, std::int64_t rows, int multiprocessors, int shared_limit, int* out) {
    const fastimpute::cuda::Layout layout = fastimpute::cuda::group_layout(dim, rows, multiprocessors, shared_limit);
    out[0] = layout.warps;
    out[1] = layout.slab_steps;
    out[2] = layout.shared_bytes;
}

// (warps, steps of a slab, bytes) of a block.
void mlp_layout(int direct, std::int64_t dim, int shared_limit, int* out) {
    const auto head = direct ? fastimpute::Head::kDirect : fastimpute::Head::kEnergy;
    const fastimpute::cuda::Layout layout = fastimpute::cuda::mlp_layout(head, dim, shared_limit);
    out[0] = layout.warps;
    out[1] = layout.slab_steps;
    out[2] = layout.shared_bytes;
}
}
