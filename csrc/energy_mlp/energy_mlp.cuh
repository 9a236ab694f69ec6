#pragma once

#include "energy_mlp/energy_job.cuh"

// Value, score and H v on a GPU with tensor cores. A warp owns 16 rows and all 256 hidden units of them: a layer is 128
// accumulators a thread, LayerNorm's sums run within four lanes, and as the accumulators of one product are laid out
// like the operand of the next, a lane passes activations on to nobody but itself: through shared memory only because
// registers are scarce. W2, and as much of W1 as there is room for, stay in shared memory for all rows of a block, one
// copy for both directions.
namespace fastimpute::cuda {

// Sixteen rows in one warp. Lane 4 g + t holds units 2 t, 2 t + 1 of every tile for rows g and g + 8.
template <class Lane, bool kHvp>
struct EnergyWarp {
    const Lane& lane;
    const EnergyJob& job;
    const std::uint16_t* w2;  // shared
    FourWords* operands;      // shared: of the next product, [step][lane], from this lane on
    std::uint16_t* w1;        // shared: a slab of W1
    int g, t;
    std::uint32_t* kept;
    std::int64_t first;  // of its rows; those behind the last are read as the last and not written
    const float* modulation[2];
    float rstd1[2], rstd2[2];

    __device__ EnergyWarp(const Lane& own, const EnergyJob& given, std::uint16_t* shared)
        : lane(own), job(given), w2(shared), g(own.thread() % kWarp / 4), t(own.thread() % 4) {
        const int warp = own.thread() / kWarp;
        const int warps = own.threads() / kWarp;
        operands = reinterpret_cast<FourWords*>(shared + kW2Values) + warp * (kSteps * kWarp) + own.thread() % kWarp;
        w1 = shared + kW2Values + warps * kOperandValues;
        kept = given.kept + (own.block() * warps + warp) * (kept_slots(kHvp) * kKeptWords) + own.thread() % kWarp;
    }

    // ---- pieces ----

    __device__ __forceinline__ bool real(int half) const { return first + g + 8 * half < job.args.rows; }
    __device__ __forceinline__ std::int64_t row(int half) const {
        return real(half) ? first + g + 8 * half : job.args.rows - 1;
    }
    __device__ __forceinline__ void begin_rows(std::int64_t row_of_first) {
        first = row_of_first;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const std::int64_t* index = job.args.modulation.index;
            const std::int64_t which = index != nullptr ? index[row(half)] : 0;
            modulation[half] = job.args.modulation.values + which * (4 * kHidden) + 2 * t;
        }
    }

    // body(tile, half, i): all values of this lane; i = 0, 1 are neighbouring units.
    template <typename Body>
    __device__ __forceinline__ void each(const Body& body) const {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
#pragma unroll
                for (int i = 0; i < 2; ++i) body(tile, half, i);
            }
        }
    }
    // The rows' sums over all units.
    __device__ __forceinline__ void sum_rows(float (&sums)[2]) const {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            sums[half] += lane.shuffle_xor(kAllLanes, sums[half], 1);
            sums[half] += lane.shuffle_xor(kAllLanes, sums[half], 2);
        }
    }
    __device__ __forceinline__ void mean_rows(float (&sums)[2]) const {
        sum_rows(sums);
        sums[0] *= 1.0f / kHidden;
        sums[1] *= 1.0f / kHidden;
        lane.forget();
    }
    // The same with the modulation of a layer: body(tile, half, i, gain, shift).
    template <typename Body>
    __device__ __forceinline__ void each_modulated(int layer, const Body& body) const {
        struct alignas(8) Two {
            float value[2];
        };
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float* from = modulation[half] + 2 * layer * kHidden + 8 * tile;
                const Two gains = *reinterpret_cast<const Two*>(from);
                const Two shifts = *reinterpret_cast<const Two*>(from + kHidden);
#pragma unroll
                for (int i = 0; i < 2; ++i) body(tile, half, i, gains.value[i], shifts.value[i]);
            }
            if (tile % 8 == 7) lane.forget();
        }
    }
    __device__ __forceinline__ float unit(const float* vector, int tile, int i) const {
        return vector[8 * tile + 2 * t + i];
    }

    template <bool kHalf>
    __device__ __forceinline__ void keep(Kept slot, int tile, int half, float low, float high) const {
        kept[slot * kKeptWords + (2 * tile + half) * kWarp] =
            kHalf ? lane.half_pair(low, high) : lane.bf16_pair(low, high);
    }
    __device__ __forceinline__ float recall_half(Kept slot, int tile, int half, int i) const {
        return lane.half_of(kept[slot * kKeptWords + (2 * tile + half) * kWarp], i);
    }
    __device__ __forceinline__ float recall_bf16(Kept slot, int tile, int half, int i) const {
        const std::uint32_t pair = kept[slot * kKeptWords + (2 * tile + half) * kWarp];
        return float_of(i ? pair & 0xFFFF0000u : pair << 16);
    }

    // ---- products ----

    // Accumulators become the operand of the next product.
    __device__ __forceinline__ void to_operands(const Accumulators& values) const {
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            FourWords own;
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const float* pair = &values[2 * step + k / 2][k % 2 * 2];
                own.word[k] = lane.bf16_pair(pair[0], pair[1]);
            }
            operands[step * kWarp] = own;
        }
        lane.forget();
    }
    __device__ __forceinline__ void begin_with(const float* bias, Accumulators& sums) const {
        each([&](int tile, int half, int i) {
            sums[tile][2 * half + i] = bias != nullptr ? unit(bias, tile, i) : 0.0f;
        });
    }
    // This lane's row, for load_matrices, of the block of W at blocks `inputs` and `outputs`.
    __device__ __forceinline__ const std::uint16_t* block_row(const std::uint16_t* w, int inputs, int outputs) const {
        return w + (inputs * kTiles + outputs) * 64 + lane.thread() % 8 * 8;
    }
    // sums += operand W^T for 16 inputs, beginning at block `inputs` of W.
    __device__ __forceinline__ void multiply_forward(const std::uint16_t* w, int inputs,
                                                     const std::uint32_t (&operand)[4], Accumulators& sums) const {
        const int matrix = lane.thread() % kWarp / 8;
        const std::uint16_t* own = block_row(w, inputs + matrix % 2, matrix / 2);
#pragma unroll
        for (int tile = 0; tile < kTiles; tile += 2) {
            std::uint32_t b[4];
            lane.template load_matrices<false>(own + tile * 64, b);
            lane.multiply(sums[tile], operand, b[0], b[1]);
            lane.multiply(sums[tile + 1], operand, b[2], b[3]);
        }
    }
    // sums += operands W for 16 inputs, beginning at block `inputs`. Two sums for each tile keep four products on their
    // way.
    __device__ __forceinline__ void multiply_back(const std::uint16_t* w, int inputs, float (&sums)[2][4]) const {
        const int matrix = lane.thread() % kWarp / 8;
        const std::uint16_t* own = block_row(w, inputs + matrix / 2, matrix % 2);
        float odd[2][4] = {};
#pragma unroll 4
        for (int step = 0; step < kSteps; step += 2) {
            std::uint32_t b[4];
            const FourWords even_operand = operands[step * kWarp];
            lane.template load_matrices<true>(own + 2 * step * 64, b);
            lane.multiply(sums[0], even_operand.word, b[0], b[1]);
            lane.multiply(sums[1], even_operand.word, b[2], b[3]);
            const FourWords odd_operand = operands[(step + 1) * kWarp];
            lane.template load_matrices<true>(own + 2 * (step + 1) * 64, b);
            lane.multiply(odd[0], odd_operand.word, b[0], b[1]);
            lane.multiply(odd[1], odd_operand.word, b[2], b[3]);
        }
#pragma unroll
        for (int k = 0; k < 8; ++k) sums[k / 4][k % 4] += odd[k / 4][k % 4];
    }
    __device__ __forceinline__ void hidden_forward(Accumulators& sums) const {
#pragma unroll 1
        for (int step = 0; step < kSteps; ++step) multiply_forward(w2, 2 * step, operands[step * kWarp].word, sums);
    }
    __device__ __forceinline__ void hidden_back(Accumulators& sums) const {
        const int matrix = lane.thread() % kWarp / 8;
        const std::uint16_t* own = block_row(w2, matrix / 2, matrix % 2);
        each([&](int tile, int half, int i) { sums[tile][2 * half + i] = 0; });
#pragma unroll 1
        for (int step = 0; step < kSteps; ++step) {
            const FourWords operand = operands[step * kWarp];
#pragma unroll
            for (int tile = 0; tile < kTiles; tile += 2) {
                std::uint32_t b[4];
                lane.template load_matrices<true>(own + (tile * kTiles + 2 * step) * 64, b);
                lane.multiply(sums[tile], operand.word, b[0], b[1]);
                lane.multiply(sums[tile + 1], operand.word, b[2], b[3]);
            }
        }
    }

    __device__ __forceinline__ int input_steps() const { return static_cast<int>((job.weights.dim + 15) / 16); }

    // Brings the slab of W1 that begins at `step` into shared memory, unless all of it is there.
    __device__ __forceinline__ void bring_slab(int step) const {
        if (job.slab_steps >= input_steps()) return;
        lane.sync_block();
        copy_slab(lane, job, w1, step);
        lane.sync_block();
    }

    static __device__ __forceinline__ void copy_slab(const Lane& lane, const EnergyJob& job, std::uint16_t* to,
                                                     int step) {
        constexpr int kStepValues = 16 * kHidden;
        const int all = static_cast<int>((job.weights.dim + 15) / 16);
        const int steps = all - step < job.slab_steps ? all - step : job.slab_steps;
        copy_values(lane, job.weights.w1 + std::int64_t{step} * kStepValues, to, steps * kStepValues);
    }
    static __device__ __forceinline__ void copy_values(const Lane& lane, const std::uint16_t* from, std::uint16_t* to,
                                                       int values) {
        struct alignas(16) Eight {
            std::uint16_t value[8];
        };
        for (int i = lane.thread(); i < values / 8; i += lane.threads())
            reinterpret_cast<Eight*>(to)[i] = reinterpret_cast<const Eight*>(from)[i];
    }

    // sums += rows W1^T, rows (particles, dim) in memory.
    __device__ __forceinline__ void inputs_forward(const float* rows, std::int64_t stride, Accumulators& sums) const {
        const std::int64_t dim = job.weights.dim;
        for (int slab = 0; slab < input_steps(); slab += job.slab_steps) {
            bring_slab(slab);
            for (int step = 0; step < job.slab_steps && slab + step < input_steps(); ++step) {
                std::uint32_t operand[4];
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    const std::int64_t column = (slab + step) * 16 + k / 2 * 8 + 2 * t;
                    const float* from = rows + row(k % 2) * stride + column;
                    operand[k] = lane.bf16_pair(column < dim ? from[0] : 0.0f, column + 1 < dim ? from[1] : 0.0f);
                }
                multiply_forward(w1, 2 * step, operand, sums);
            }
        }
    }
    // rows = operands W1, into memory.
    __device__ __forceinline__ void inputs_back(float* rows, std::int64_t stride) const {
        const std::int64_t dim = job.weights.dim;
        for (int slab = 0; slab < input_steps(); slab += job.slab_steps) {
            bring_slab(slab);
            for (int step = 0; step < job.slab_steps && slab + step < input_steps(); ++step) {
                float sums[2][4] = {};
                multiply_back(w1, 2 * step, sums);
#pragma unroll
                for (int k = 0; k < 8; ++k) {
                    const int half = k % 4 / 2;
                    const std::int64_t column = (slab + step) * 16 + k / 4 * 8 + 2 * t + k % 2;
                    if (real(half) && column < dim) rows[row(half) * stride + column] = sums[k / 4][k % 4];
                }
            }
        }
    }

    // ---- layers ----

    // a -> LN(a); its factor.
    __device__ __forceinline__ void normalise(Accumulators& values, float (&rstd)[2]) const {
        float variance[2] = {};
        each([&](int tile, int half, int i) {
            variance[half] += values[tile][2 * half + i] * values[tile][2 * half + i];
        });
        mean_rows(variance);
#pragma unroll
        for (int half = 0; half < 2; ++half)
            rstd[half] = 1.0f / sqrtf(variance[half] + static_cast<float>(kLayerNormEps));
        each([&](int tile, int half, int i) { values[tile][2 * half + i] *= rstd[half]; });
        lane.forget();
    }
    __device__ __forceinline__ void keep_all(Kept slot, const Accumulators& values) const {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            keep<true>(slot, tile, 0, values[tile][0], values[tile][1]);
            keep<true>(slot, tile, 1, values[tile][2], values[tile][3]);
        }
    }
    __device__ __forceinline__ void keep_all_bf16(Kept slot, const Accumulators& values) const {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            keep<false>(slot, tile, 0, values[tile][0], values[tile][1]);
            keep<false>(slot, tile, 1, values[tile][2], values[tile][3]);
        }
    }

    __device__ __forceinline__ void value_and_score() {
        Accumulators sums;
        begin_with(job.weights.b1, sums);
        inputs_forward(job.args.x, job.args.x_stride, sums);
        normalise(sums, rstd1);
        keep_all(kNormed1, sums);
        each_modulated(0, [&](int tile, int half, int i, float gain, float shift) {
            float& value = sums[tile][2 * half + i];
            value = SiluPoint(value, gain, shift).value();
        });
        to_operands(sums);
        begin_with(job.weights.b2, sums);
        hidden_forward(sums);
        normalise(sums, rstd2);
        if constexpr (kHvp) keep_all(kNormed2, sums);
        float log_p[2] = {};
        float along[2] = {};
        each_modulated(1, [&](int tile, int half, int i, float gain, float shift) {
            const float normed = sums[tile][2 * half + i];
            const SiluPoint point(normed, gain, shift);
            const float w3 = unit(job.weights.w3, tile, i);
            log_p[half] += w3 * point.value();
            along[half] += w3 * point.slope() * normed;
        });
        sum_rows(log_p);
        mean_rows(along);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (t == 0 && real(half)) job.args.log_p[row(half)] = log_p[half] + job.weights.b3[0];
        }
        each_modulated(1, [&](int tile, int half, int i, float gain, float shift) {
            const float normed = sums[tile][2 * half + i];
            const float grad = unit(job.weights.w3, tile, i) * SiluPoint(normed, gain, shift).slope();
            sums[tile][2 * half + i] = rstd2[half] * (grad - normed * along[half]);
        });
        to_operands(sums);
        hidden_back(sums);
        if constexpr (kHvp) keep_all_bf16(kBack1, sums);
        float along1[2] = {};
        each_modulated(0, [&](int tile, int half, int i, float gain, float shift) {
            const float normed = recall_half(kNormed1, tile, half, i);
            float& grad = sums[tile][2 * half + i];
            grad *= SiluPoint(normed, gain, shift).slope();
            along1[half] += grad * normed;
        });
        mean_rows(along1);
        each([&](int tile, int half, int i) {
            float& grad = sums[tile][2 * half + i];
            grad = rstd1[half] * (grad - recall_half(kNormed1, tile, half, i) * along1[half]);
        });
        to_operands(sums);
        inputs_back(job.args.score, job.args.score_stride);
    }

    // Tangent of LN at `slot`'s values: a' -> n' = rstd (a' - n mean(n a')); gives the tangent of the factor.
    __device__ __forceinline__ void normalise_tangent(Kept slot, const float (&rstd)[2], Accumulators& values,
                                                      float (&rstd_tangent)[2]) const {
        float along[2] = {};
        each([&](int tile, int half, int i) {
            along[half] += recall_half(slot, tile, half, i) * values[tile][2 * half + i];
        });
        mean_rows(along);
        each([&](int tile, int half, int i) {
            float& value = values[tile][2 * half + i];
            value = rstd[half] * (value - recall_half(slot, tile, half, i) * along[half]);
        });
#pragma unroll
        for (int half = 0; half < 2; ++half) rstd_tangent[half] = -rstd[half] * rstd[half] * along[half];
    }

    // After value_and_score for the same rows.
    __device__ __forceinline__ void hessian_vector() const {
        Accumulators sums;
        float rstd_tangent1[2];
        float rstd_tangent2[2];
        begin_with(nullptr, sums);
        lane.sync_warp();  // the score is there
        const bool given = job.args.vector != nullptr;
        inputs_forward(given ? job.args.vector : job.args.score, given ? job.args.vector_stride : job.args.score_stride,
                       sums);
        normalise_tangent(kNormed1, rstd1, sums, rstd_tangent1);
        keep_all_bf16(kNormedTangent1, sums);
        lane.forget();
        each_modulated(0, [&](int tile, int half, int i, float gain, float shift) {
            sums[tile][2 * half + i] *= SiluPoint(recall_half(kNormed1, tile, half, i), gain, shift).slope();
        });
        to_operands(sums);
        begin_with(nullptr, sums);
        hidden_forward(sums);
        normalise_tangent(kNormed2, rstd2, sums, rstd_tangent2);
        float along[2] = {};
        float along_tangent[2] = {};
        each_modulated(1, [&](int tile, int half, int i, float gain, float shift) {
            const float normed = recall_half(kNormed2, tile, half, i);
            const float tangent = sums[tile][2 * half + i];
            const SiluPoint point(normed, gain, shift);
            const float w3 = unit(job.weights.w3, tile, i);
            along[half] += w3 * point.slope() * normed;
            along_tangent[half] += w3 * (point.curvature() * tangent * normed + point.slope() * tangent);
        });
        mean_rows(along);
        mean_rows(along_tangent);
        each_modulated(1, [&](int tile, int half, int i, float gain, float shift) {
            const float normed = recall_half(kNormed2, tile, half, i);
            float& value = sums[tile][2 * half + i];
            const SiluPoint point(normed, gain, shift);
            const float w3 = unit(job.weights.w3, tile, i);
            value = rstd_tangent2[half] * (w3 * point.slope() - normed * along[half]) +
                    rstd2[half] * (w3 * point.curvature() * value - value * along[half] - normed * along_tangent[half]);
        });
        to_operands(sums);
        hidden_back(sums);
        float along1[2] = {};
        float along_tangent1[2] = {};
        each_modulated(0, [&](int tile, int half, int i, float gain, float shift) {
            const float normed = recall_half(kNormed1, tile, half, i);
            const float tangent = recall_bf16(kNormedTangent1, tile, half, i);
            const float back = recall_bf16(kBack1, tile, half, i);
            const SiluPoint point(normed, gain, shift);
            float& value = sums[tile][2 * half + i];
            value = value * point.slope() + back * point.curvature() * tangent;
            along1[half] += back * point.slope() * normed;
            along_tangent1[half] += value * normed + back * point.slope() * tangent;
        });
        mean_rows(along1);
        mean_rows(along_tangent1);
        each_modulated(0, [&](int tile, int half, int i, float gain, float shift) {
            const float normed = recall_half(kNormed1, tile, half, i);
            const float tangent = recall_bf16(kNormedTangent1, tile, half, i);
            const float grad = recall_bf16(kBack1, tile, half, i) * SiluPoint(normed, gain, shift).slope();
            float& value = sums[tile][2 * half + i];
            value = rstd_tangent1[half] * (grad - normed * along1[half]) +
                    rstd1[half] * (value - tangent * along1[half] - normed * along_tangent1[half]);
        });
        to_operands(sums);
        inputs_back(job.args.hvp, job.args.hvp_stride);
    }
};

// `shared`: W2, the operands of every warp, slab_steps of W1. Blocks take tiles of 16 rows for each of their warps in
// turn; all warps of a block go through the same steps, so that they may bring slabs together.
template <bool kHvp, class Lane>
__device__ void energy_mlp_block(const Lane& lane, const EnergyJob& job, std::uint16_t* shared) {
    using Warp = EnergyWarp<Lane, kHvp>;
    Warp warp(lane, job, shared);
    Warp::copy_values(lane, job.weights.w2, shared, static_cast<int>(kW2Values));
    Warp::copy_slab(lane, job, warp.w1, 0);
    lane.sync_block();
    const std::int64_t block_rows = std::int64_t{kTileRows} * (lane.threads() / kWarp);
    for (std::int64_t first = lane.block() * block_rows; first < job.args.rows; first += lane.blocks() * block_rows) {
        warp.begin_rows(first + lane.thread() / kWarp * kTileRows);
        warp.value_and_score();
        if constexpr (kHvp) warp.hessian_vector();
    }
}

}  // namespace fastimpute::cuda
