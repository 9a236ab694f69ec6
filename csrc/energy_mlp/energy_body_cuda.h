#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "energy_mlp/energy_mlp_cuda.h"

// Which of two bodies of the kernel serves a call: that of warps (energy_mlp.cuh, mma.sync) serves every call, that of
// groups (energy_group.cuh, wgmma) what fits it on Hopper, once it has proven itself on the device.
namespace fastimpute::cuda {

enum class EnergyBody { kWarps, kGroups };

// What the proof compares: the same numbers wherever it runs, more rows than one turn of two groups takes.
struct EnergyProblem {
    explicit EnergyProblem(std::int64_t dim);
    // The call, once the numbers lie where a kernel reads them.
    EnergyMlpCuda call(const float* x_there, const float* modulation_there, const void* pack_there, float* log_p,
                       float* score, void* scratch) const;

    static constexpr std::int64_t kRows = 130;
    std::int64_t dim;
    std::vector<float> x;           // (kRows, dim)
    std::vector<float> modulation;  // (4, hidden)
    std::vector<std::uint32_t> pack;
};
struct EnergyAnswer {
    explicit EnergyAnswer(std::int64_t dim)
        : log_p(EnergyProblem::kRows), score(static_cast<std::size_t>(EnergyProblem::kRows * dim)) {}

    std::vector<float> log_p;  // (kRows)
    std::vector<float> score;  // (kRows, dim)
};
using SolveEnergy = std::function<EnergyAnswer(EnergyBody, const EnergyProblem&)>;

// Whether the groups' kernel for networks of this size gives what the warps' does, up to bfloat16: `solve` is asked on
// first use of a device and a size, its failure counts as a wrong answer. What does not is said once on stderr.
bool groups_proven(int device, std::int64_t dim, const SolveEnergy& solve);

// Whether the groups' kernel is written for such calls, wherever they run.
bool groups_take(std::int64_t dim, bool gaussian, bool want_hvp);

// The body for such calls on the current device; proves the groups' if need be.
EnergyBody energy_body(std::int64_t dim, bool gaussian, bool want_hvp);

// The bodies themselves, for calls that they take and with rows. The groups share `multiprocessors`.
void energy_by_warps(const EnergyMlpCuda& call, std::uintptr_t stream);
void energy_by_groups(const EnergyMlpCuda& call, int multiprocessors, std::uintptr_t stream);

// For comparisons: without permission the warps' body serves every call of this process.
void permit_groups(bool permitted);
bool groups_permitted();

}  // namespace fastimpute::cuda
