#pragma once

#include "common/device.cuh"
#include "spt_weights/spt_weights.h"

// The weight update on a GPU. A team of lanes updates one group; what it computes stays in the team (registers, shared
// memory, or in `mass` for groups that fit nowhere). Sums run in one order, whatever the grid: no atomics.
namespace fastimpute::cuda {

// kLanes neighbouring lanes of a warp, each holding up to kHeld particles of a group of up to kLanes * kHeld.
template <class Lane, int kLanes, int kHeld>
struct WarpTeam {
    const Lane& lane;
    std::uint32_t members;
    int rank;
    float held[kHeld];

    __device__ explicit WarpTeam(const Lane& own)
        : lane(own),
          members((0xFFFFFFFFu >> (kWarp - kLanes)) << (own.thread() % kWarp / kLanes * kLanes)),
          rank(own.thread() % kLanes) {}

    template <typename Body>
    __device__ __forceinline__ void each(int count, const Body& body) {
#pragma unroll
        for (int k = 0; k < kHeld; ++k) {
            const int i = rank + k * kLanes;
            if (i < count) body(i, held[k]);
        }
    }
    template <typename T, typename Merge>
    __device__ __forceinline__ T merged(T value, const Merge& merge) const {
#pragma unroll
        for (int distance = kLanes / 2; distance > 0; distance /= 2)
            value = merge(value, lane.shuffle_xor(members, value, distance));
        return value;
    }
    __device__ __forceinline__ std::uint32_t added(std::uint32_t value) const { return lane.add(members, value); }
};

// A whole block; `held` has a place for every particle of the group, `partial` one for every warp.
template <class Lane>
struct BlockTeam {
    const Lane& lane;
    float* held;
    double* partial;

    template <typename Body>
    __device__ __forceinline__ void each(int count, const Body& body) {
        for (int i = lane.thread(); i < count; i += lane.threads()) body(i, held[i]);
    }
    template <typename T, typename Merge>
    __device__ __forceinline__ T merged(T value, const Merge& merge) const {
        for (int distance = kWarp / 2; distance > 0; distance /= 2)
            value = merge(value, lane.shuffle_xor(0xFFFFFFFFu, value, distance));
        lane.sync_block();  // the last result has been read
        if (lane.thread() % kWarp == 0) partial[lane.thread() / kWarp] = static_cast<double>(value);
        lane.sync_block();
        T total = static_cast<T>(partial[0]);
        for (int warp = 1; warp < lane.threads() / kWarp; ++warp) total = merge(total, static_cast<T>(partial[warp]));
        return total;
    }
    __device__ __forceinline__ std::uint32_t added(std::uint32_t value) const {
        return merged(value, [](std::uint32_t a, std::uint32_t b) { return a + b; });
    }
};

// Unsigned integers in the order of the floats.
__device__ __forceinline__ std::uint32_t ordered(float value) {
    const std::uint32_t bits = bits_of(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float from_ordered(std::uint32_t key) {
    return float_of(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

// The quartiles of the held values, exactly: their bits found from the highest, by counting smaller values; linear
// between order statistics, as torch.quantile.
template <class Team>
__device__ void quartiles(Team& team, int count, float (&out)[3]) {
    std::uint32_t rank[3];
    float fraction[3];
    std::uint32_t key[3] = {0, 0, 0};
    for (int q = 0; q < 3; ++q) {
        const double position = 0.25 * (q + 1) * static_cast<double>(count - 1);
        rank[q] = static_cast<std::uint32_t>(position);
        fraction[q] = static_cast<float>(position - static_cast<double>(rank[q]));
    }
    for (int bit = 31; bit >= 0; --bit) {
        std::uint32_t below[3] = {0, 0, 0};
        team.each(count, [&](int, float& held) {
            const std::uint32_t own = ordered(held);
            for (int q = 0; q < 3; ++q) below[q] += own < (key[q] | 1u << bit);
        });
        for (int q = 0; q < 3; ++q) {
            if (team.added(below[q]) <= rank[q]) key[q] |= 1u << bit;
        }
    }
    for (int q = 0; q < 3; ++q) {
        std::uint32_t at_most = 0;
        std::uint32_t next = 0xFFFFFFFFu;
        team.each(count, [&](int, float& held) {
            const std::uint32_t own = ordered(held);
            at_most += own <= key[q];
            if (own > key[q] && own < next) next = own;
        });
        at_most = team.added(at_most);
        next = team.merged(next, [](std::uint32_t a, std::uint32_t b) { return a < b ? a : b; });
        const float low = from_ordered(key[q]);
        const float high = at_most > rank[q] + 1 || fraction[q] == 0 ? low : from_ordered(next);
        out[q] = low + fraction[q] * (high - low);
    }
}

__device__ __forceinline__ float clamped(float value, float bound) { return fminf(fmaxf(value, -bound), bound); }

// The shift that makes mean(exp(clamp(logit - shift))) one: the mean falls as the shift grows, so bisect.
template <class Team>
__device__ float bounded_shift(Team& team, int count, float low, float high, float bound) {
    for (int halving = 0; halving < 40; ++halving) {
        const float middle = 0.5f * (low + high);
        double sum = 0;
        team.each(count, [&](int, float& logit) { sum += static_cast<double>(expf(clamped(logit - middle, bound))); });
        sum = team.merged(sum, [](double a, double b) { return a + b; });
        (sum > static_cast<double>(count) ? low : high) = middle;
    }
    return 0.5f * (low + high);
}

// Particles [begin, begin + count) as one group.
template <class Team>
__device__ void update_group(Team& team, const SptWeights<float>& params, std::int64_t begin, int count) {
    team.each(count, [&](int i, float& held) {
        held = params.log_p[begin + i] - 0.5f * params.gamma * params.score_sq[begin + i];
    });
    float center = 0;
    float step = params.eta_w;
    if (params.robust) {
        float quartile[3];
        quartiles(team, count, quartile);
        center = quartile[1];
        step /= fmaxf(quartile[2] - quartile[0], 1e-6f);
    }
    const float kept = 1.0f - params.tau;
    float lowest = INFINITY;
    float highest = -INFINITY;
    team.each(count, [&](int i, float& held) {
        float logit = kept * params.log_w[begin + i] + step * (held - center);
        if (params.log_ref != nullptr) logit += params.tau * params.log_ref[begin + i];
        held = logit;
        lowest = fminf(lowest, logit);
        highest = fmaxf(highest, logit);
    });
    lowest = team.merged(lowest, [](float a, float b) { return fminf(a, b); });
    highest = team.merged(highest, [](float a, float b) { return fmaxf(a, b); });
    double sum = 0;
    team.each(count, [&](int, float& logit) { sum += static_cast<double>(expf(logit - highest)); });
    sum = team.merged(sum, [](double a, double b) { return a + b; });
    const float log_mean = logf(static_cast<float>(sum / static_cast<double>(count)));
    const bool within = -log_mean <= params.bound && (lowest - highest) - log_mean >= -params.bound;
    const float shift =
        within ? log_mean
               : bounded_shift(team, count, lowest - params.bound, highest + params.bound, params.bound) - highest;
    const float log_count = logf(static_cast<float>(count));
    team.each(count, [&](int i, float& logit) {
        const float log_mass = clamped((logit - highest) - shift, params.bound);
        params.log_w_new[begin + i] = log_mass - log_count;
        params.mass[begin + i] = expf(log_mass);
    });
}

__device__ __forceinline__ int particles_of(const SptWeights<float>& params, std::int64_t begin) {
    const std::int64_t left = params.rows - begin;
    return static_cast<int>(left < params.group ? left : params.group);
}

// Groups of up to kLanes * kHeld particles: one to a team, threads / kLanes to a block.
template <int kLanes, int kHeld, class Lane>
__device__ void spt_weights_teams(const Lane& lane, const SptWeights<float>& params) {
    const std::int64_t index = lane.block() * (lane.threads() / kLanes) + lane.thread() / kLanes;
    const std::int64_t begin = index * params.group;
    if (begin >= params.rows) return;
    WarpTeam<Lane, kLanes, kHeld> team(lane);
    update_group(team, params, begin, particles_of(params, begin));
}

// One group to a block; `held`: shared memory for a group, or null: its logits wait in `mass`.
template <class Lane>
__device__ void spt_weights_block(const Lane& lane, const SptWeights<float>& params, float* held, double* partial) {
    const std::int64_t begin = lane.block() * params.group;
    BlockTeam<Lane> team{lane, held != nullptr ? held : params.mass + begin, partial};
    update_group(team, params, begin, particles_of(params, begin));
}

}  // namespace fastimpute::cuda
