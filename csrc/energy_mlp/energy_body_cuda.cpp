#include "energy_mlp/energy_body_cuda.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "common/mlp_pack_cuda.h"
#include "common/mlp_tile.cuh"

namespace fastimpute::cuda {
namespace {

constexpr float kTolerance = 1.0f / 32;  // of the largest value; the bodies differ by some roundings of 2^-9

std::atomic<bool> permitted_groups{true};

// Numbers in [-size, size) that look random.
class Numbers {
  public:
    std::vector<float> take(std::int64_t count, float size) {
        std::vector<float> values(static_cast<std::size_t>(count));
        for (float& value : values) {
            state_ = state_ * 6364136223846793005u + 1442695040888963407u;
            value = size * (static_cast<float>(state_ >> 40) / 8388608.0f - 1.0f);
        }
        return values;
    }

  private:
    std::uint64_t state_ = 1;
};

bool close(const std::vector<float>& found, const std::vector<float>& right) {
    float largest = 0;
    for (const float value : right) largest = std::max(largest, std::fabs(value));
    for (std::size_t i = 0; i < right.size(); ++i) {
        if (!(std::fabs(found[i] - right[i]) <= kTolerance * largest)) return false;
    }
    return true;
}

// Why the groups' body cannot be trusted; empty when it can.
std::string complaint(std::int64_t dim, const SolveEnergy& solve) {
    try {
        const EnergyProblem problem(dim);
        const EnergyAnswer right = solve(EnergyBody::kWarps, problem);
        const EnergyAnswer found = solve(EnergyBody::kGroups, problem);
        if (!close(found.log_p, right.log_p)) return "its log p is wrong";
        if (!close(found.score, right.score)) return "its score is wrong";
    } catch (const std::exception& error) {
        return error.what();
    }
    return "";
}

}  // namespace

EnergyProblem::EnergyProblem(std::int64_t cells)
    : dim(cells), pack(static_cast<std::size_t>(mlp_pack_bytes(Head::kEnergy, cells)) / sizeof(std::uint32_t)) {
    Numbers numbers;
    const float root = std::sqrt(3.0f / static_cast<float>(dim));
    const std::vector<float> w1 = numbers.take(kHidden * dim, root);
    const std::vector<float> b1 = numbers.take(kHidden, 0.2f);
    const std::vector<float> w2 = numbers.take(kW2Values, 0.1f);
    const std::vector<float> b2 = numbers.take(kHidden, 0.2f);
    const std::vector<float> w3 = numbers.take(kHidden, 0.1f);
    const std::vector<float> b3 = numbers.take(1, 0.2f);
    pack_mlp(Head::kEnergy,
             {kHidden, dim, w1.data(), b1.data(), w2.data(), b2.data(), w3.data(), b3.data(), nullptr, nullptr},
             pack.data());
    modulation = numbers.take(4 * kHidden, 0.5f);
    x = numbers.take(kRows * dim, 1.7f);
}

EnergyMlpCuda EnergyProblem::call(const float* x_there, const float* modulation_there, const void* pack_there,
                                  float* log_p, float* score, void* scratch) const {
    const EnergyMlpArgs<float> args = {
        kRows, x_there, dim, {modulation_there, 1, nullptr}, nullptr, 0, false, log_p, score, dim, nullptr, 0};
    return {args, dim, pack_there, nullptr, nullptr, scratch, energy_scratch_bytes(false)};
}

bool groups_proven(int device, std::int64_t dim, const SolveEnergy& solve) {
    static std::mutex mutex;
    static std::map<std::pair<int, int>, bool> proven;
    const std::lock_guard<std::mutex> lock(mutex);
    const int steps = group_steps(dim);
    const auto [known, first] = proven.try_emplace({device, steps}, false);
    if (!first) return known->second;
    const std::string why = complaint(16 * steps - 8, solve);
    known->second = why.empty();
    if (!why.empty())
        std::fprintf(stderr, "fastimpute: energy_mlp: wgmma is left out on CUDA device %d, mma.sync serves: %s\n",
                     device, why.c_str());
    return known->second;
}

bool groups_take(std::int64_t dim, bool gaussian, bool want_hvp) {
    return groups_permitted() && group_steps(dim) > 0 && !gaussian && !want_hvp;
}

void permit_groups(bool permitted) { permitted_groups = permitted; }
bool groups_permitted() { return permitted_groups; }

}  // namespace fastimpute::cuda
