#pragma once

#include "common/cells.cuh"
#include "common/device.cuh"
#include "common/errors.h"
#include "common/noise.cuh"
#include "diffusion_step/diffusion_step.h"

// The reverse step on a GPU. Without noise it is bound by memory: kWide = 4 cells to an access where rows allow it,
// several accesses of a thread on their way, and what only missing cells need is read where an access has one.
namespace fastimpute::cuda {

// Accesses of one thread in flight. Noise is bound by instructions: more would only lengthen the code.
template <bool kNoise>
inline constexpr int kDiffusionAccesses = kNoise ? 1 : 4;

// kWide cells of one window, in registers.
template <int kWide, bool kPrevious, bool kNoise>
struct DiffusionCells {
    std::int64_t window;
    std::uint32_t column;
    Cells<float, kWide> v, denoised, previous;
    Cells<std::uint8_t, kWide> missing;

    __device__ __forceinline__ std::int64_t left(const DiffusionStep<float>& params) const {
        return params.dim - column;
    }
    __device__ __forceinline__ void load(const DiffusionStep<float>& params, std::int64_t row) {
        missing =
            load_cells<std::uint8_t, kWide>(params.missing + window * params.missing_stride + column, left(params));
        v = load_cells<float, kWide>(params.v + row * params.v_stride + column, left(params));
    }
    __device__ __forceinline__ void load_denoised(const DiffusionStep<float>& params, std::int64_t row) {
        if (!any_of(missing)) return;
        denoised = load_cells<float, kWide>(params.denoised + row * params.denoised_stride + column, left(params));
        if constexpr (kPrevious)
            previous = load_cells<float, kWide>(params.previous + row * params.previous_stride + column, left(params));
    }
    __device__ __forceinline__ void step_and_store(const DiffusionStep<float>& params, std::int64_t row,
                                                   const NoiseKeys& noise) {
#pragma unroll
        for (int i = 0; i < kWide; ++i) {
            if (missing.cell[i] == 0) continue;
            float moved = params.state * v.cell[i] + params.clean * denoised.cell[i];
            if constexpr (kPrevious) moved += params.earlier * previous.cell[i];
            if constexpr (kNoise)
                moved += params.spread * normal_cell(noise, window, column + static_cast<std::uint32_t>(i));
            v.cell[i] = moved;
        }
        store_cells(params.v_new + row * params.v_new_stride + column, v, left(params));
    }
};

// Accesses to a row; the last may have fewer than kWide cells.
template <int kWide>
constexpr std::int64_t accesses_of(const DiffusionStep<float>& params) {
    return (params.dim + kWide - 1) / kWide;
}

// Blocks of `threads` threads for all samples.
template <int kWide, bool kNoise>
std::int64_t diffusion_blocks(const DiffusionStep<float>& params, int threads) {
    const std::int64_t per_block = std::int64_t{kDiffusionAccesses<kNoise>} * threads;
    return params.samples * ((params.windows * accesses_of<kWide>(params) + per_block - 1) / per_block);
}

// Accesses of a sample are numbered window by window; a block takes kDiffusionAccesses * threads neighbouring ones. The
// blocks of the same cells of all samples follow on one another, so that they find mask and keys in the cache.
template <int kWide, bool kPrevious, bool kNoise, class Lane>
__device__ void diffusion_step_cells(const Lane& lane, const DiffusionStep<float>& params) {
    constexpr int kCount = kDiffusionAccesses<kNoise>;
    const auto block = static_cast<std::uint32_t>(lane.block());
    const auto samples = static_cast<std::uint32_t>(params.samples);  // no more than blocks
    const std::uint32_t sample = block % samples;
    const auto per_row = static_cast<std::uint32_t>(accesses_of<kWide>(params));
    const std::int64_t first = block / samples * (std::int64_t{kCount} * lane.threads());
    const std::int64_t first_window = first / per_row;
    const auto inside = static_cast<std::uint32_t>(first - first_window * per_row);
    const std::int64_t first_row = sample * params.windows;
    NoiseKeys noise = params.noise;
    noise.sample += sample;
    DiffusionCells<kWide, kPrevious, kNoise> cells[kCount];
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
        const std::uint32_t access = inside + static_cast<std::uint32_t>(lane.thread() + k * lane.threads());
        cells[k].window = first_window + access / per_row;
        cells[k].column = access % per_row * kWide;
        if (cells[k].window < params.windows) cells[k].load(params, first_row + cells[k].window);
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
        if (cells[k].window < params.windows) cells[k].load_denoised(params, first_row + cells[k].window);
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
        if (cells[k].window < params.windows) cells[k].step_and_store(params, first_row + cells[k].window, noise);
    }
}

// Longest row whose columns a thread can count.
inline constexpr std::int64_t kRowMost = 0x7FFFFFF0;

// The windows of a sample as one row where they follow on one another without gaps: whatever dim is, that moves in wide
// accesses. Noise is keyed by dim.
inline DiffusionStep<float> with_merged_windows(DiffusionStep<float> params) {
    const bool gaps = params.v_stride != params.dim || params.denoised_stride != params.dim ||
                      params.missing_stride != params.dim || params.v_new_stride != params.dim ||
                      (params.previous != nullptr && params.previous_stride != params.dim);
    if (gaps || params.spread > 0 || params.windows > kRowMost / params.dim) return params;
    params.dim *= params.windows;
    params.windows = 1;
    for (std::int64_t* stride : {&params.v_stride, &params.denoised_stride, &params.previous_stride,
                                 &params.missing_stride, &params.v_new_stride})
        *stride = params.dim;
    return params;
}

inline bool moves_wide(const DiffusionStep<float>& params) {
    const bool several = params.samples * params.windows > 1;
    const auto wide = [&](const auto* first, std::int64_t stride) { return wide_rows<4>(first, several ? stride : 0); };
    return wide(params.v, params.v_stride) && wide(params.denoised, params.denoised_stride) &&
           wide(params.previous, params.previous == nullptr ? 0 : params.previous_stride) &&
           wide_rows<4>(params.missing, params.windows > 1 ? params.missing_stride : 0) &&
           wide(params.v_new, params.v_new_stride);
}

// Checks the arguments, then calls launch.operator()<kWide, kPrevious, kNoise>(params) of the kernel that takes them;
// nothing where there are no cells.
template <class Launch>
void with_diffusion_kernel(const DiffusionStep<float>& given, const Launch& launch) {
    check_diffusion_step(given);
    if (given.samples == 0 || given.windows == 0 || given.dim == 0) return;
    if (given.dim > kRowMost)
        throw_invalid("diffusion_step", "dim", "below 2^31 - 15", static_cast<long long>(given.dim));
    const DiffusionStep<float> params = with_merged_windows(given);
    const auto at_width = [&]<int kWide>() {
        const bool previous = params.previous != nullptr;
        const bool noise = params.spread > 0;
        if (previous && noise) return launch.template operator()<kWide, true, true>(params);
        if (previous) return launch.template operator()<kWide, true, false>(params);
        if (noise) return launch.template operator()<kWide, false, true>(params);
        launch.template operator()<kWide, false, false>(params);
    };
    moves_wide(params) ? at_width.template operator()<4>() : at_width.template operator()<1>();
}

}  // namespace fastimpute::cuda
