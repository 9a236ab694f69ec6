#pragma once

#include <cmath>

#include "ball_quantile/ball_quantile_cuda.h"
#include "common/cells.cuh"
#include "common/device.cuh"
#include "common/errors.h"

// Centre and radius of a window's ball on a GPU. A team of lanes takes a window, kTile columns at a time: their samples
// are held in registers, so that mean and deviations need one reading; what remains of a column is its share of the
// squared distances. Sums run in one order, whatever the grid and however rows are aligned.
namespace fastimpute::cuda {

inline constexpr int kTileCells = 4;  // neighbouring columns of a lane
inline constexpr int kTileLanes = 8;  // lanes side by side
inline constexpr int kTile = kTileCells * kTileLanes;
inline constexpr int kWarpSamples = kWarp / kTileLanes;  // that a warp takes at a time

using TileCells = Cells<float, kTileCells>;

__device__ __forceinline__ TileCells added(const TileCells& a, const TileCells& b) {
    TileCells sum;
#pragma unroll
    for (int i = 0; i < kTileCells; ++i) sum.cell[i] = a.cell[i] + b.cell[i];
    return sum;
}

// Of the samples that one warp holds, in each of its lanes.
template <class Lane>
__device__ __forceinline__ TileCells added_in_warp(const Lane& lane, TileCells sum) {
#pragma unroll
    for (int distance = kTileLanes; distance < kWarp; distance *= 2) {
        TileCells other;
#pragma unroll
        for (int i = 0; i < kTileCells; ++i) other.cell[i] = lane.shuffle_xor(0xFFFFFFFFu, sum.cell[i], distance);
        sum = added(sum, other);
    }
    return sum;
}

// One warp for a window.
template <class Lane>
struct BallWarp {
    const Lane& lane;

    __device__ __forceinline__ int first_sample() const { return lane.thread() % kWarp / kTileLanes; }
    __device__ __forceinline__ int samples_at_once() const { return kWarpSamples; }
    __device__ __forceinline__ TileCells total(const TileCells& sum) { return added_in_warp(lane, sum); }
    __device__ __forceinline__ void meet() const { lane.sync_warp(); }
    __device__ __forceinline__ bool ranks() const { return true; }
};

// A whole block for a window; `partial`: shared memory for two tiles a warp, used in turn.
template <class Lane>
struct BallBlock {
    const Lane& lane;
    TileCells* partial;
    int turn = 0;

    __device__ __forceinline__ int first_sample() const { return lane.thread() / kTileLanes; }
    __device__ __forceinline__ int samples_at_once() const { return lane.threads() / kTileLanes; }
    __device__ __forceinline__ TileCells total(const TileCells& sum) {
        const int warps = lane.threads() / kWarp;
        TileCells* own = partial + turn * warps * kTileLanes;
        turn = 1 - turn;
        const TileCells of_warp = added_in_warp(lane, sum);
        const int place = lane.thread() % kTileLanes;
        if (lane.thread() % kWarp < kTileLanes) own[lane.thread() / kWarp * kTileLanes + place] = of_warp;
        lane.sync_block();
        TileCells all = own[place];
        for (int warp = 1; warp < warps; ++warp) all = added(all, own[warp * kTileLanes + place]);
        return all;
    }
    __device__ __forceinline__ void meet() const { lane.sync_block(); }
    __device__ __forceinline__ bool ranks() const { return lane.thread() < kWarp; }
};

// A lane's columns of one window, tile after tile.
template <bool kWide>
struct BallPlace {
    const BallQuantile<float>& params;
    std::int64_t window;
    std::int64_t column;

    __device__ __forceinline__ std::int64_t left() const { return params.dim - column; }
    __device__ __forceinline__ Cells<std::uint8_t, kTileCells> missing(std::int64_t ahead) const {
        const std::uint8_t* source = params.missing + window * params.missing_stride + column + ahead;
        return kWide ? load_cells<std::uint8_t, kTileCells>(source, left() - ahead)
                     : load_cells_singly<std::uint8_t, kTileCells>(source, left() - ahead);
    }
    __device__ __forceinline__ const float* sample(std::int64_t index) const {
        return params.x + index * params.sample_stride + window * params.window_stride + column;
    }
    __device__ __forceinline__ void store_centre(const TileCells& centre) const {
        float* target = params.centre + window * params.centre_stride + column;
        kWide ? store_cells(target, centre, left()) : store_cells_singly(target, centre, left());
    }
};

// Up to kHeld samples of a lane: every `step`-th from `first` on.
template <int kHeld>
struct HeldSamples {
    TileCells held[kHeld];

    // Where nothing is missing only the first sample is read, for the centre.
    template <bool kWide>
    __device__ __forceinline__ void load(const BallPlace<kWide>& place, int first, int step, bool gaps) {
        const int wanted = gaps ? static_cast<int>(place.params.samples) : 1;
        const std::int64_t jump = step * place.params.sample_stride;
        const auto each = [&](const auto& load_one) {
            const float* source = place.sample(first);
#pragma unroll
            for (int k = 0; k < kHeld; ++k) {
                held[k] = first + k * step < wanted ? load_one(source) : TileCells{};
                source += jump;
            }
        };
        if (kWide && place.left() >= kTileCells) {
            each([](const float* source) { return load_cells<float, kTileCells>(source); });
        } else {
            each([&](const float* source) { return load_cells_singly<float, kTileCells>(source, place.left()); });
        }
    }
    __device__ __forceinline__ TileCells sum() const {
        TileCells total = held[0];
#pragma unroll
        for (int k = 1; k < kHeld; ++k) total = added(total, held[k]);
        return total;
    }
    __device__ __forceinline__ void add_squares(const TileCells& mean, const Cells<std::uint8_t, kTileCells>& missing,
                                                float (&squares)[kHeld]) const {
#pragma unroll
        for (int i = 0; i < kTileCells; ++i) {
            if (missing.cell[i] == 0) continue;
#pragma unroll
            for (int k = 0; k < kHeld; ++k) {
                const float deviation = held[k].cell[i] - mean.cell[i];
                squares[k] += deviation * deviation;
            }
        }
    }
};

__device__ __forceinline__ TileCells centre_of(const TileCells& mean, const TileCells& known,
                                               const Cells<std::uint8_t, kTileCells>& missing) {
    TileCells centre;
#pragma unroll
    for (int i = 0; i < kTileCells; ++i) centre.cell[i] = missing.cell[i] != 0 ? mean.cell[i] : known.cell[i];
    return centre;
}

__device__ __forceinline__ TileCells scaled(const TileCells& cells, float factor) {
    TileCells product;
#pragma unroll
    for (int i = 0; i < kTileCells; ++i) product.cell[i] = factor * cells.cell[i];
    return product;
}

// The sum over the lanes side by side, in each of them.
template <class Lane>
__device__ __forceinline__ float added_across(const Lane& lane, float value) {
#pragma unroll
    for (int distance = kTileLanes / 2; distance > 0; distance /= 2)
        value += lane.shuffle_xor(0xFFFFFFFFu, value, distance);
    return value;
}

// Bits of an infinity: those of a NaN are above, as unsigned integers, and finite squares below.
inline constexpr std::uint32_t kInfinityBits = 0x7F800000u;

// The rank-th smallest of squares, found by one warp bit by bit from the highest; NaN if one is.
template <class Lane>
__device__ float order_statistic(const Lane& lane, const float* squares, int samples, std::uint32_t rank) {
    const auto count = [&](const auto& counts) {
        std::uint32_t own = 0;
        for (int i = lane.thread() % kWarp; i < samples; i += kWarp) own += counts(bits_of(squares[i]));
        return lane.add(0xFFFFFFFFu, own);
    };
    if (count([](std::uint32_t key) { return key > kInfinityBits; }) > 0) return NAN;
    std::uint32_t found = 0;
    for (int bit = 30; bit >= 0; --bit) {
        const std::uint32_t tried = found | 1u << bit;
        if (count([=](std::uint32_t key) { return key < tried; }) < rank) found = tried;
    }
    return float_of(found);
}

// The end of a window: its squared distances lie in `squares`.
template <class Team, class Lane>
__device__ void store_radius(Team& team, const Lane& lane, const BallQuantile<float>& params, std::int64_t window,
                             const float* squares) {
    team.meet();
    if (!team.ranks()) return;
    const auto samples = static_cast<int>(params.samples);
    const float square = order_statistic(lane, squares, samples, static_cast<std::uint32_t>(params.rank));
    const float of_the_others = static_cast<float>(samples) / static_cast<float>(samples - 1);
    if (lane.thread() % kWarp == 0) params.radius[window] = sqrtf(square) * of_the_others;
}

// Windows of up to kHeld * samples_at_once samples, read once. `squares`: shared memory of the team, one a sample.
template <int kHeld, bool kWide, class Team, class Lane>
__device__ void ball_window_held(Team& team, const Lane& lane, const BallQuantile<float>& params, std::int64_t window,
                                 float* squares) {
    const float share = 1.0f / static_cast<float>(params.samples);
    const int first = team.first_sample();
    const int step = team.samples_at_once();
    BallPlace<kWide> place{params, window, lane.thread() % kTileLanes * kTileCells};
    auto missing = place.missing(0);
    float own[kHeld] = {};
    for (std::int64_t tile = 0; tile < params.dim; tile += kTile) {
        const auto gaps = missing;
        missing = place.missing(kTile);  // on its way meanwhile
        HeldSamples<kHeld> samples;
        samples.load(place, first, step, any_of(gaps));
        const TileCells mean = scaled(team.total(samples.sum()), share);
        if (first == 0) place.store_centre(centre_of(mean, samples.held[0], gaps));
        samples.add_squares(mean, gaps, own);
        place.column += kTile;
    }
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
        const float square = added_across(lane, own[k]);
        if (lane.thread() % kTileLanes == 0 && first + k * step < params.samples) squares[first + k * step] = square;
    }
    store_radius(team, lane, params, window, squares);
}

// Windows of any number of samples, read twice: the second time from the cache, if it holds a tile of every block.
template <int kHeld, bool kWide, class Team, class Lane>
__device__ void ball_window_streamed(Team& team, const Lane& lane, const BallQuantile<float>& params,
                                     std::int64_t window, float* squares) {
    const auto count = static_cast<int>(params.samples);
    const float share = 1.0f / static_cast<float>(count);
    const int step = team.samples_at_once();
    const int first = team.first_sample();
    const bool stores = lane.thread() % kTileLanes == 0;
    // Other threads add to them, after the block has met for the first mean.
    for (int sample = lane.thread(); sample < count; sample += lane.threads()) squares[sample] = 0;
    BallPlace<kWide> place{params, window, lane.thread() % kTileLanes * kTileCells};
    for (std::int64_t tile = 0; tile < params.dim; tile += kTile, place.column += kTile) {
        const auto missing = place.missing(0);
        HeldSamples<kHeld> samples;
        TileCells sum{};
        for (int begin = 0; begin < count; begin += kHeld * step) {
            samples.load(place, begin + first, step, any_of(missing));
            sum = added(sum, samples.sum());
        }
        const TileCells mean = scaled(team.total(sum), share);
        for (int begin = 0; begin < count; begin += kHeld * step) {
            samples.load(place, begin + first, step, any_of(missing));
            if (begin + first == 0) place.store_centre(centre_of(mean, samples.held[0], missing));
            float own[kHeld] = {};
            samples.add_squares(mean, missing, own);
#pragma unroll
            for (int k = 0; k < kHeld; ++k) {
                const int sample = begin + first + k * step;
                const float square = added_across(lane, own[k]);
                if (stores && sample < count) squares[sample] += square;
            }
        }
    }
    store_radius(team, lane, params, window, squares);
}

// How a kernel works: a warp for a window, a block whose lanes hold few samples or many, or a block that reads twice.
enum class BallForm { kOfWarp, kFew, kMany, kStreamed };

// Samples of a lane in registers, and the most warps of a window.
inline constexpr int ball_held(BallForm form) { return form == BallForm::kMany ? 16 : 8; }
inline constexpr int ball_warps(BallForm form) {
    if (form == BallForm::kOfWarp) return 1;
    return form == BallForm::kFew ? 8 : 16;
}

// Samples of a window.
inline constexpr int ball_samples(BallForm form) {
    return form == BallForm::kStreamed ? int{kBallSamplesMost} : ball_warps(form) * kWarpSamples * ball_held(form);
}

// The team's window; beyond the last one there is nothing to do.
template <BallForm kForm, bool kWide, class Team, class Lane>
__device__ void ball_window(Team team, const Lane& lane, const BallQuantile<float>& params, std::int64_t window,
                            float* squares) {
    if (window >= params.windows) return;
    if constexpr (kForm == BallForm::kStreamed) {
        ball_window_streamed<ball_held(kForm), kWide>(team, lane, params, window, squares);
    } else {
        ball_window_held<ball_held(kForm), kWide>(team, lane, params, window, squares);
    }
}

inline bool moves_wide(const BallQuantile<float>& params) {
    return wide_rows<kTileCells>(params.x, params.sample_stride | params.window_stride) &&
           wide_rows<kTileCells>(params.missing, params.missing_stride) &&
           wide_rows<kTileCells>(params.centre, params.centre_stride);
}

// Checks the arguments, then calls launch.operator()<kForm, kWide>(warps of a window) of the kernel that takes them;
// nothing where there are no windows.
template <class Launch>
void with_ball_kernel(const BallQuantile<float>& params, const Launch& launch) {
    check_ball_quantile(params);
    if (params.samples > kBallSamplesMost)
        throw_invalid("ball_quantile", "samples", "at most 8192", static_cast<long long>(params.samples));
    if (params.windows == 0) return;
    const auto in_form = [&]<BallForm kForm, bool kWide>() {
        int warps = 1;
        while (warps < ball_warps(kForm) && warps * kWarpSamples * ball_held(kForm) < params.samples) warps *= 2;
        launch.template operator()<kForm, kWide>(warps);
    };
    const auto at_width = [&]<bool kWide>() {
        const auto fits = [&](BallForm form) { return params.samples <= ball_samples(form); };
        if (fits(BallForm::kOfWarp)) return in_form.template operator()<BallForm::kOfWarp, kWide>();
        if (fits(BallForm::kFew)) return in_form.template operator()<BallForm::kFew, kWide>();
        if (fits(BallForm::kMany)) return in_form.template operator()<BallForm::kMany, kWide>();
        in_form.template operator()<BallForm::kStreamed, kWide>();
    };
    moves_wide(params) ? at_width.template operator()<true>() : at_width.template operator()<false>();
}

}  // namespace fastimpute::cuda
