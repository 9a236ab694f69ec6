#pragma once

#include <type_traits>

#include "energy_mlp/energy_mlp.cuh"
#include "particle_step/particle_step.cuh"
#include "proximal_recursion/recursion_job.cuh"
#include "score_mlp/score_mlp.cuh"
#include "spt_weights/spt_weights.cuh"

// The whole inner loop on a GPU: a block gathers a tile of patches from the series into rows of its own, which stay in
// the L2 cache, takes them through all iterations, and adds them to the sums of the overlaps.
namespace fastimpute::cuda {

// A lane that keeps nothing of itself.
template <class Lane>
struct Anew : Lane {
    __device__ int thread() const { return Lane::thread_anew(); }
};

// A warp's part of a tile: the rows of every warps-th 16 patches. Network: EnergyWarp or ScoreWarp; as it needs every
// register, what the loops around it count waits in shared memory, and all else is computed anew.
template <class Lane, class Network, class Job>
struct RecursionWarp {
    Anew<Lane> lane;
    const Job& job;
    Network network;

    __device__ RecursionWarp(const Lane& on, const Job& given, std::uint16_t* shared)
        : lane{on}, job(given), network(on, given.network, shared) {}

    __device__ __forceinline__ int rank() const {
        return static_cast<int>(static_cast<unsigned>(lane.thread()) % kWarp);
    }
    __device__ __forceinline__ int warp() const {
        return static_cast<int>(static_cast<unsigned>(lane.thread()) / kWarp);
    }
    __device__ __forceinline__ double* partial() const {
        return reinterpret_cast<double*>(network.w2 + job.network_bytes / 2);
    }
    __device__ __forceinline__ volatile int& counter(Counter which) const {
        return reinterpret_cast<volatile int*>(partial() + kMostWarps)[warp() * kCounters + which];
    }
    __device__ __forceinline__ void set(Counter which, int value) const {
        lane.sync_warp();  // the last value has been read
        counter(which) = value;
        lane.sync_warp();
    }
    __device__ __forceinline__ std::int64_t first_row() const { return lane.block() * job.tile_rows; }
    __device__ __forceinline__ std::int64_t first_patch() const { return counter(kTileCounter) * job.tile_patches; }
    __device__ __forceinline__ int patches() const {
        const std::int64_t left = job.patches - first_patch();
        return static_cast<int>(left < job.tile_patches ? left : job.tile_patches);
    }
    // body(row): the rows of the tile that are this warp's.
    template <typename Body>
    __device__ __forceinline__ void each_row(const Body& body) const {
#pragma unroll 1
        for (int begin = warp() * kTileRows; begin < job.tile_rows; begin += job.warps * kTileRows) {
#pragma unroll 1
            for (int row = begin; row < begin + kTileRows; ++row) body(row);
        }
    }
    // Where a patch lies in the series.
    struct Place {
        std::int64_t start;
        const std::int64_t* columns;
    };
    __device__ __forceinline__ Place place(std::int64_t patch) const {
        return {job.args.starts[patch / job.args.sets], job.args.columns + patch % job.args.sets * job.args.width};
    }

    // ---- from the series ----

    __device__ void gather(int row) const {
        const ProximalRecursionArgs<float>& args = job.args;
        const bool real = row < patches();
        const std::int64_t patch = first_patch() + (real ? row : 0);
        const std::int64_t at = first_row() + row;
        const Place from = place(patch);
        const int width = static_cast<int>(args.width);
        for (int cell = rank(); cell < job.stride; cell += kWarp) {
            float value = 0;
            std::uint8_t missing = 0;
            if (real && cell < job.dim) {
                const std::int64_t line = from.start + cell / width;
                const std::int64_t column = from.columns[cell % width];
                value = args.series[line * args.series_stride + column];
                missing = args.missing[line * args.missing_stride + column];
            }
            job.rows.x[at * job.stride + cell] = value;
            job.rows.missing[at * job.stride + cell] = missing;
            if (args.adam) job.rows.moment1[at * job.stride + cell] = job.rows.moment2[at * job.stride + cell] = 0;
        }
        if (rank() != 0) return;
        const std::int64_t window = patch / args.sets;
        job.rows.modulation_index[at] = args.modulation_index != nullptr ? args.modulation_index[window] : 0;
        job.rows.sigma[at] = args.sigma;
        job.rows.log_p[at] = job.rows.score_sq[at] = 0;
        job.rows.mass[at] = 1;
    }

    // ---- weights ----

    __device__ void update(const SptWeights<float>& params) const {
        lane.sync_block();
        const int group = static_cast<int>(params.group);
        if (group <= kTeamGroup) {
            const int step = job.warps * group;
            for (int begin = warp() * group; begin < patches(); begin += step) {
                WarpTeam<Anew<Lane>, kWarp, kTeamGroup / kWarp> team(lane);
                update_group(team, params, begin, particles_of(params, begin));
            }
        } else {
            BlockTeam<Anew<Lane>> team{lane, params.mass, partial()};
            update_group(team, params, 0, particles_of(params, 0));
        }
        lane.sync_block();
    }
    // The weights before the first iteration are those of an update by nothing, from the reference measure.
    __device__ SptWeights<float> weights(bool first) const {
        const ProximalRecursionArgs<float>& args = job.args;
        SptWeights<float> params;
        params.rows = patches();
        params.group = args.group;
        const float* log_ref = args.log_ref != nullptr ? args.log_ref + first_patch() : nullptr;
        params.log_w_new = args.log_w + first_patch();
        params.log_w = first ? log_ref : params.log_w_new;
        params.log_ref = first ? nullptr : log_ref;
        params.log_p = job.rows.log_p + first_row();
        params.score_sq = job.rows.score_sq + first_row();
        params.mass = job.rows.mass + first_row();
        params.bound = first ? INFINITY : args.bound;
        params.gamma = args.gamma;
        params.eta_w = first ? 0.0f : args.eta_w;
        params.tau = first ? 0.0f : args.tau;
        params.robust = !first && args.robust;
        return params;
    }
    __device__ void begin_weights() const {
        if (job.args.log_ref != nullptr) return update(weights(true));
        const std::int64_t group = job.args.group;
        for (int row = lane.thread(); row < patches(); row += lane.threads()) {
            const std::int64_t patch = first_patch() + row;
            const std::int64_t left = job.patches - patch / group * group;
            job.args.log_w[patch] = static_cast<float>(-log(static_cast<double>(left < group ? left : group)));
        }
    }

    // ---- an iteration ----

    // |s|^2 of four rows, then s -> s - gamma H s.
    __device__ __forceinline__ void bend(int row) const {
        constexpr int kRows = 4;
        const std::int64_t at = first_row() + row;
        float* const direction = job.rows.direction + at * job.stride;
        const float* const hvp = job.rows.hvp + at * job.stride;
        const float gamma = job.args.gamma;
        float sum[kRows] = {};
        for (int cell = rank(); cell < job.dim; cell += kWarp) {
            float score[kRows];
            float curved[kRows] = {};
#pragma unroll
            for (int k = 0; k < kRows; ++k) {
                score[k] = direction[k * job.stride + cell];
                if (gamma > 0) curved[k] = hvp[k * job.stride + cell];
            }
#pragma unroll
            for (int k = 0; k < kRows; ++k) {
                sum[k] += score[k] * score[k];
                if (gamma > 0) direction[k * job.stride + cell] = score[k] - gamma * curved[k];
            }
        }
#pragma unroll
        for (int k = 0; k < kRows; ++k) {
            for (int distance = kWarp / 2; distance > 0; distance /= 2)
                sum[k] += lane.shuffle_xor(kAllLanes, sum[k], distance);
        }
        if (rank() != 0) return;
#pragma unroll
        for (int k = 0; k < kRows; ++k) {
            job.rows.score_sq[at + k] = sum[k];
            if constexpr (std::is_same_v<Network, ScoreWarp<Lane>>)
                job.rows.log_p[at + k] = -0.5f * job.args.sigma * job.args.sigma * sum[k];
        }
    }
    // T_x of all rows, a tile of 16 at a time.
    __device__ __forceinline__ void evaluate() {
        set(kBeginCounter, warp() * kTileRows);
#pragma unroll 1
        while (counter(kBeginCounter) < job.tile_rows) {
            network.begin_tile(static_cast<int>((first_row() + counter(kBeginCounter)) / kTileRows));
            network.evaluate();
            lane.sync_warp();
            const int begin = counter(kBeginCounter);
            if (job.args.eta_w > 0 || job.args.gamma > 0) {
#pragma unroll 1
                for (int row = begin; row < begin + kTileRows; row += 4) bend(row);
            }
            set(kBeginCounter, begin + job.warps * kTileRows);
        }
    }

    __device__ static double power(double base, int exponent) {
        double result = 1;
        for (; exponent > 0; exponent /= 2, base *= base) result *= exponent % 2 ? base : 1.0;
        return result;
    }
    __device__ __forceinline__ AdamMoments<float> moments(int iteration) const {
        AdamMoments<float> own;
        own.beta1 = job.args.beta1;
        own.beta2 = job.args.beta2;
        own.eps = job.args.adam_eps;
        if (!job.args.adam) return own;
        own.correction1 = static_cast<float>(1 - power(own.beta1, iteration + 1));
        own.correction2 = static_cast<float>(1 - power(own.beta2, iteration + 1));
        return own;
    }
    __device__ __forceinline__ float noise(const Place& from, int cell, int iteration) const {
        const int width = static_cast<int>(job.args.width);
        const NoiseStream stream{job.args.seed, from.start, job.args.sample, static_cast<std::uint32_t>(iteration)};
        return sqrtf(2.0f * job.args.eta) * normal_cell(stream, static_cast<std::uint32_t>(cell / width),
                                                        static_cast<std::uint32_t>(from.columns[cell % width]));
    }
    // particle_step, four cells of a row at a time.
    __device__ __forceinline__ void step(int row, int iteration, const AdamMoments<float>& adam) const {
        const std::int64_t at = first_row() + row;
        const float rate = job.args.eta * job.rows.mass[at];
        const float pull = job.args.dissipation ? job.args.eta : 0.0f;
        const Place from = place(first_patch() + (row < patches() ? row : 0));
        for (int cell = 4 * rank(); cell < job.stride; cell += 4 * kWarp) {
            const std::int64_t there = at * job.stride + cell;
            const auto missing = load_cells<std::uint8_t, 4>(job.rows.missing + there);
            if ((missing.cell[0] | missing.cell[1] | missing.cell[2] | missing.cell[3]) == 0) continue;
            auto x = load_cells<float, 4>(job.rows.x + there);
            const auto direction = load_cells<float, 4>(job.rows.direction + there);
            Cells<float, 4> m{}, v{};
            if (job.args.adam) m = load_cells<float, 4>(job.rows.moment1 + there);
            if (job.args.adam) v = load_cells<float, 4>(job.rows.moment2 + there);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (missing.cell[i] == 0) continue;
                float along = direction.cell[i];
                if (job.args.adam) along = adam_direction(adam, along, m.cell[i], v.cell[i]);
                float moved = x.cell[i] + rate * along - pull * x.cell[i];
                if (job.args.dissipation) moved += noise(from, cell + i, iteration);
                x.cell[i] = moved;
            }
            store_cells(job.rows.x + there, x);
            if (job.args.adam) store_cells(job.rows.moment1 + there, m);
            if (job.args.adam) store_cells(job.rows.moment2 + there, v);
        }
    }
    // ---- back into the series ----

    __device__ void add(int row) const {
        if (row >= patches()) return;
        const std::int64_t at = first_row() + row;
        const Place to = place(first_patch() + row);
        const int width = static_cast<int>(job.args.width);
        const float mass = job.rows.mass[at];
        for (int cell = rank(); cell < job.dim; cell += kWarp) {
            if (job.rows.missing[at * job.stride + cell] == 0) continue;
            const std::int64_t line = to.start + cell / width;
            std::uint64_t* sums = job.rows.overlap + 2 * (line * job.args.sensors + to.columns[cell % width]);
            const float weighted = mass * job.rows.x[at * job.stride + cell];
            if (fabsf(weighted) < job.overlap_limit && mass < job.overlap_limit) {
                const double exact =
                    static_cast<double>(mass) * static_cast<double>(job.rows.x[at * job.stride + cell]);
                lane.add_to(sums, static_cast<std::uint64_t>(llrint(exact * kOverlapScale)));
                lane.add_to(sums + 1, static_cast<std::uint64_t>(llrint(static_cast<double>(mass) * kOverlapScale)));
            } else {
                lane.set_bits(sums + 1, kOverlapPoison);
            }
        }
    }

    __device__ __forceinline__ void run_tile() {
        each_row([&](int row) { gather(row); });
        begin_weights();
        set(kIterationCounter, 0);
#pragma unroll 1
        while (counter(kIterationCounter) < job.args.iterations) {
            evaluate();
            if (job.args.eta_w > 0) update(weights(false));
            const int iteration = counter(kIterationCounter);
            const AdamMoments<float> adam = moments(iteration);
            each_row([&](int row) { step(row, iteration, adam); });
            set(kIterationCounter, iteration + 1);
        }
        each_row([&](int row) { add(row); });
    }
    __device__ __forceinline__ void run() {
        network.bring_weights();
        set(kTileCounter, static_cast<int>(lane.block()));
#pragma unroll 1
        while (counter(kTileCounter) < job.tiles) {
            run_tile();
            set(kTileCounter, counter(kTileCounter) + static_cast<int>(lane.blocks()));
        }
    }
};

// `shared`: as mlp_layout says, and kBlockBytes behind it.
template <class Network, class Lane, class Job>
__device__ void recursion_block(const Lane& lane, const Job& job, std::uint16_t* shared) {
    RecursionWarp<Lane, Network, Job> warp(lane, job, shared);
    warp.run();
}

// The average of the overlaps: one cell of the series to a thread.
template <class Lane>
__device__ void average_overlaps(const Lane& lane, const ProximalRecursionArgs<float>& args,
                                 const std::uint64_t* overlap) {
    const std::int64_t cell = lane.block() * lane.threads() + lane.thread();
    if (cell >= args.steps * args.sensors) return;
    const std::int64_t line = cell / args.sensors;
    const std::int64_t column = cell % args.sensors;
    float value = args.series[line * args.series_stride + column];
    const std::uint64_t weight = overlap[2 * cell + 1];
    if (args.missing[line * args.missing_stride + column] != 0 && weight > 0) {
        const auto sum = static_cast<double>(static_cast<std::int64_t>(overlap[2 * cell]));
        value = weight & kOverlapPoison ? NAN : static_cast<float>(sum / static_cast<double>(weight));
    }
    args.out[line * args.out_stride + column] = value;
}

}  // namespace fastimpute::cuda
