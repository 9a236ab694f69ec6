#pragma once

#include "common/cells.cuh"
#include "common/device.cuh"
#include "common/noise.cuh"
#include "particle_step/particle_step.h"

// The particles' step on a GPU: bound by memory, so kWide = 4 cells to an access where rows allow it, and several
// accesses of a thread on their way before the first is used.
namespace fastimpute::cuda {

// Advances the moments of one cell and returns the direction they give.
__device__ __forceinline__ float adam_direction(const AdamMoments<float>& moments, float gradient, float& m, float& v) {
    const auto beta1 = static_cast<float>(moments.beta1);
    const auto beta2 = static_cast<float>(moments.beta2);
    m = beta1 * m + static_cast<float>(1 - moments.beta1) * gradient;
    v = beta2 * v + static_cast<float>(1 - moments.beta2) * gradient * gradient;
    return (m / moments.correction1) / (sqrtf(v / moments.correction2) + moments.eps);
}

// kWide cells of one row, in registers.
template <int kWide, bool kAdam>
struct StepCells {
    std::int64_t row;
    std::uint32_t column;
    Cells<float, kWide> x, direction, m, v;
    Cells<std::uint8_t, kWide> missing;

    __device__ __forceinline__ void load(const ParticleStep<float>& params) {
        x = load_cells<float, kWide>(params.x + row * params.x_stride + column);
        direction = load_cells<float, kWide>(params.direction + row * params.direction_stride + column);
        missing = load_cells<std::uint8_t, kWide>(params.missing + row * params.missing_stride + column);
        if constexpr (kAdam) {
            m = load_cells<float, kWide>(params.moments.m + row * params.moments.m_stride + column);
            v = load_cells<float, kWide>(params.moments.v + row * params.moments.v_stride + column);
        }
    }
    template <bool kNoise>
    __device__ __forceinline__ void step_and_store(const ParticleStep<float>& params) {
        const float rate = params.eta * (params.mass != nullptr ? params.mass[row] : 1.0f);
        const float pull = params.eta * params.drift;
        const float noise_scale = sqrtf(2.0f * params.eta);
#pragma unroll
        for (int i = 0; i < kWide; ++i) {
            if (missing.cell[i] == 0) continue;
            float along = direction.cell[i];
            if constexpr (kAdam) along = adam_direction(params.moments, along, m.cell[i], v.cell[i]);
            float moved = x.cell[i] + rate * along - pull * x.cell[i];
            if constexpr (kNoise) {
                moved += noise_scale * normal_cell(params.noise, row, column + static_cast<std::uint32_t>(i));
            }
            x.cell[i] = moved;
        }
        store_cells(params.x_new + row * params.x_new_stride + column, x);
        if constexpr (kAdam) {
            store_cells(params.moments.m + row * params.moments.m_stride + column, m);
            store_cells(params.moments.v + row * params.moments.v_stride + column, v);
        }
    }
};

// Accesses of one thread in flight.
template <bool kAdam>
inline constexpr int kAccesses = kAdam ? 2 : 4;

// Accesses are numbered row by row; a block takes kAccesses * threads neighbouring ones.
template <int kWide, bool kAdam, bool kNoise, class Lane>
__device__ void particle_step_cells(const Lane& lane, const ParticleStep<float>& params) {
    constexpr int kCount = kAccesses<kAdam>;
    const auto per_row = static_cast<std::uint32_t>(params.dim / kWide);
    const std::int64_t first = lane.block() * (std::int64_t{kCount} * lane.threads());
    const std::int64_t first_row = first / per_row;
    const auto inside = static_cast<std::uint32_t>(first - first_row * per_row);
    StepCells<kWide, kAdam> cells[kCount];
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
        const std::uint32_t access = inside + static_cast<std::uint32_t>(lane.thread() + k * lane.threads());
        cells[k].row = first_row + access / per_row;
        cells[k].column = access % per_row * kWide;
        if (cells[k].row < params.rows) cells[k].load(params);
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
        if (cells[k].row < params.rows) cells[k].template step_and_store<kNoise>(params);
    }
}

}  // namespace fastimpute::cuda
