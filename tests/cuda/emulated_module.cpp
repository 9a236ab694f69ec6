// The kernels' entry points over emulated lanes: with csrc/bind_cuda.cpp they are the module `_cuda` of a machine
// without a GPU, whose "device" is main memory.

#include <algorithm>

#include "ball_quantile/ball_quantile.cuh"
#include "common/driver.h"
#include "diffusion_step/diffusion_step.cuh"
#include "diffusion_step/diffusion_step_cuda.h"
#include "emulated_group.h"
#include "energy_mlp/energy_body_cuda.h"
#include "energy_mlp/energy_group.cuh"
#include "energy_mlp/energy_mlp.cuh"
#include "particle_step/particle_step.cuh"
#include "particle_step/particle_step_cuda.h"
#include "proximal_recursion/recursion_network.h"
#include "score_mlp/score_mlp.cuh"
#include "spt_weights/spt_weights.cuh"
#include "spt_weights/spt_weights_cuda.h"

namespace {

// Of the device that stands before us.
int shared_bytes = 227 * 1024;
int multiprocessors = 2;
int hopper = -1;  // its number; below 0: no Hopper

}  // namespace

extern "C" void emulate_device(int of_multiprocessors, int of_shared_bytes) {
    multiprocessors = of_multiprocessors;
    shared_bytes = of_shared_bytes;
}

// From now on the device is that Hopper, or none; `broken`: one that fails the groups.
extern "C" void emulate_hopper(int number, bool broken) {
    hopper = number;
    emulated::ignores_transposition = broken;
}

namespace fastimpute::cuda {
namespace {

constexpr int kBlocks = 2;
constexpr int kSlabSteps = 1;

template <bool kAdam, bool kNoise>
void step(const ParticleStep<float>& params) {
    constexpr int kThreads = 32;
    constexpr std::int64_t kPerBlock = kThreads * kAccesses<kAdam>;
    const std::int64_t blocks = (params.rows * params.dim + kPerBlock - 1) / kPerBlock;
    emulated::launch(blocks, kThreads,
                     [&](const emulated::Lane& lane) { particle_step_cells<1, kAdam, kNoise>(lane, params); });
}

}  // namespace

std::optional<std::string> why_unusable() { return std::nullopt; }
int shared_limit() { return shared_bytes; }

void spt_weights(const SptWeights<float>& params, std::uintptr_t) {
    check_spt_weights(params);
    constexpr int kThreads = 64;
    std::vector<float> held(static_cast<std::size_t>(std::min(params.group, params.rows)));
    std::vector<double> partial(kThreads / kWarp);
    const std::int64_t groups = (params.rows + params.group - 1) / params.group;
    emulated::launch(groups, kThreads,
                     [&](const emulated::Lane& lane) { spt_weights_block(lane, params, held.data(), partial.data()); });
}

void particle_step(const ParticleStep<float>& params, std::uintptr_t) {
    check_particle_step(params);
    const bool adam = params.moments.m != nullptr;
    const bool noise = params.noise.keys != nullptr;
    if (adam) return noise ? step<true, true>(params) : step<true, false>(params);
    noise ? step<false, true>(params) : step<false, false>(params);
}

void diffusion_step(const DiffusionStep<float>& params, std::uintptr_t) {
    constexpr int kThreads = 32;
    with_diffusion_kernel(params, [&]<int kWide, bool kPrevious, bool kNoise>(const DiffusionStep<float>& chosen) {
        emulated::launch(diffusion_blocks<kWide, kNoise>(chosen, kThreads), kThreads, [&](const emulated::Lane& lane) {
            diffusion_step_cells<kWide, kPrevious, kNoise>(lane, chosen);
        });
    });
}

void ball_quantile(const BallQuantile<float>& params, std::uintptr_t) {
    with_ball_kernel(params, [&]<BallForm kForm, bool kWide>(int warps) {
        std::vector<TileCells> partial(2 * warps * kTileLanes);
        std::vector<float> squares(ball_samples(kForm), NAN);
        emulated::launch(params.windows, warps * kWarp, [&](const emulated::Lane& lane) {
            const auto work = [&](auto team) {
                ball_window<kForm, kWide>(team, lane, params, lane.block(), squares.data());
            };
            if constexpr (kForm == BallForm::kOfWarp) {
                work(BallWarp<emulated::Lane>{lane});
            } else {
                work(BallBlock<emulated::Lane>{lane, partial.data()});
            }
        });
    });
}

std::int64_t energy_scratch_bytes(bool want_hvp) {
    return std::int64_t{kBlocks} * kMostWarps * kept_slots(want_hvp) * kKeptWords * 4;
}

void energy_by_warps(const EnergyMlpCuda& call, std::uintptr_t) {
    std::vector<FourWords> shared((kW2Values + kOperandValues + kSlabSteps * kStepValues) / 8);
    const EnergyJob job = energy_job(call, {1, kSlabSteps, 0});
    emulated::launch(kBlocks, kWarp, [&](const emulated::Lane& lane) {
        auto* memory = reinterpret_cast<std::uint16_t*>(shared.data());
        call.args.want_hvp ? energy_mlp_block<true>(lane, job, memory) : energy_mlp_block<false>(lane, job, memory);
    });
}

void energy_by_groups(const EnergyMlpCuda& call, int of_multiprocessors, std::uintptr_t) {
    const Layout layout = group_layout(call.dim, call.args.rows, of_multiprocessors, shared_bytes);
    std::vector<FourWords> shared(layout.shared_bytes / sizeof(FourWords));
    const EnergyJob job = energy_job(call, layout);
    with_group_steps(layout.slab_steps, [&]<int kInputSteps>() {
        emulated::launch_groups(of_multiprocessors, layout.warps * kWarp, shared, [&](const emulated::GroupLane& lane) {
            energy_group_block<kInputSteps>(lane, job, reinterpret_cast<std::uint16_t*>(shared.data()));
        });
    });
}

namespace {

EnergyAnswer solve_here(EnergyBody body, const EnergyProblem& problem) {
    EnergyAnswer answer(problem.dim);
    std::vector<std::uint32_t> scratch(energy_scratch_bytes(false) / sizeof(std::uint32_t));
    const EnergyMlpCuda call = problem.call(problem.x.data(), problem.modulation.data(), problem.pack.data(),
                                            answer.log_p.data(), answer.score.data(), scratch.data());
    body == EnergyBody::kWarps ? energy_by_warps(call, 0) : energy_by_groups(call, 1, 0);
    return answer;
}

}  // namespace

EnergyBody energy_body(std::int64_t dim, bool gaussian, bool want_hvp) {
    if (!groups_take(dim, gaussian, want_hvp) || hopper < 0) return EnergyBody::kWarps;
    return groups_proven(hopper, dim, solve_here) ? EnergyBody::kGroups : EnergyBody::kWarps;
}

void energy_mlp(const EnergyMlpCuda& call, std::uintptr_t) {
    if (call.args.rows == 0) return;
    if (energy_body(call.dim, call.precision != nullptr, call.args.want_hvp) == EnergyBody::kWarps)
        return energy_by_warps(call, 0);
    energy_by_groups(call, kBlocks, 0);
}

void score_mlp(const ScoreMlpCuda& call, std::uintptr_t) {
    std::vector<FourWords> shared((kW2Values + kOperandValues + kSlabSteps * kStepValues) / 8);
    const ScoreJob job = {
        call.args, unpack_mlp(Head::kDirect, call.dim, call.pack).with_gaussian(call.precision, call.mean), kSlabSteps};
    emulated::launch(kBlocks, kWarp, [&](const emulated::Lane& lane) {
        score_mlp_block(lane, job, reinterpret_cast<std::uint16_t*>(shared.data()));
    });
}

namespace {

RecursionPlan plan_of(const RecursionCuda& call) { return plan_recursion(call, shared_bytes, multiprocessors); }

}  // namespace

std::int64_t recursion_scratch_bytes(const RecursionCuda& call) {
    std::int64_t bytes = 0;
    carve_recursion(call, plan_of(call), nullptr, bytes);
    return bytes;
}

void proximal_recursion(const RecursionCuda& call, std::uintptr_t) {
    check_recursion_call(call);
    const ProximalRecursionArgs<float>& args = call.args;
    const RecursionPlan plan = plan_of(call);
    std::int64_t bytes = 0;
    const RecursionRows rows = carve_recursion(call, plan, call.scratch, bytes);
    const std::int64_t cells = args.steps * args.sensors;
    std::fill_n(rows.overlap, 2 * cells, 0);
    std::vector<FourWords> shared((plan.layout.shared_bytes + kBlockBytes) / sizeof(FourWords));
    with_recursion_job<emulated::Lane>(call, plan, rows, [&]<class Network>(const auto& job) {
        emulated::launch(plan.blocks, plan.layout.warps * kWarp, [&](const emulated::Lane& lane) {
            recursion_block<Network>(lane, job, reinterpret_cast<std::uint16_t*>(shared.data()));
        });
    });
    constexpr int kThreads = 32;
    emulated::launch((cells + kThreads - 1) / kThreads, kThreads,
                     [&](const emulated::Lane& lane) { average_overlaps(lane, args, rows.overlap); });
}

}  // namespace fastimpute::cuda
