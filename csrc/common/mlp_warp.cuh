#pragma once

#include "common/gaussian_pull.cuh"
#include "common/mlp_tile.cuh"

// The network on a GPU with tensor cores, as far as all heads share it. A warp owns 16 rows and all 256 hidden units of
// them: a layer is 128 accumulators a thread, LayerNorm's sums run within four lanes, and as the accumulators of one
// product are laid out like the operand of the next, a lane passes activations on to nobody but itself: through shared
// memory only because registers are scarce. W2, and as much of the input matrices as there is room for, stay in shared
// memory for all rows of a block, one copy for both directions.
namespace fastimpute::cuda {

// Sixteen rows in one warp. Lane 4 g + t holds units 2 t, 2 t + 1 of every tile for rows g and g + 8. A Job has `args`
// (rows, modulation), `weights`, `slab_steps` and its `kHead`. All warps of a block go through the same steps, so that
// they may bring slabs together.
template <class Lane, class Job>
struct MlpWarp {
    const Lane& lane;
    const Job& job;
    std::uint16_t* w2;    // shared
    FourWords* operands;  // shared: of the next product, [step][lane], from this lane on
    std::uint16_t* slab;  // shared: of the input matrices
    int g, t;
    int own;  // its tile of 16 rows; those behind the last are read as the last and not written
    const float* modulation[2];

    // `shared`: as mlp_layout says.
    __device__ MlpWarp(const Lane& on, const Job& given, std::uint16_t* shared)
        : lane(on), job(given), w2(shared), g(rank() / 4), t(rank() % 4) {
        operands = reinterpret_cast<FourWords*>(shared + kW2Values) + warp() * (kSteps * kWarp) + rank();
        slab = shared + kW2Values + warps() * kOperandValues;
    }
    // Unsigned divisions: signed ones leave a register each. Anew: not kept, where registers are scarcer than time.
    __device__ __forceinline__ int rank() const {
        return static_cast<int>(static_cast<unsigned>(lane.thread()) % kWarp);
    }
    __device__ __forceinline__ int rank_anew() const {
        return static_cast<int>(static_cast<unsigned>(lane.thread_anew()) % kWarp);
    }
    __device__ __forceinline__ int warp() const {
        return static_cast<int>(static_cast<unsigned>(lane.thread()) / kWarp);
    }
    __device__ __forceinline__ int warp_anew() const {
        return static_cast<int>(static_cast<unsigned>(lane.thread_anew()) / kWarp);
    }
    __device__ __forceinline__ int warps() const {
        return static_cast<int>(static_cast<unsigned>(lane.threads()) / kWarp);
    }
    // The operands of the whole warp, as room for other things.
    __device__ __forceinline__ void* room() const { return w2 + kW2Values + warp_anew() * kOperandValues; }

    // Before the first rows: W2, and the input matrices where all of them fit.
    __device__ void bring_weights() const {
        copy_values(job.weights.w2, w2, static_cast<int>(kW2Values));
        if (resident()) copy_values(job.weights.inputs, slab, input_matrices(Job::kHead) * input_steps() * kStepValues);
        lane.sync_block();
    }

    // ---- pieces ----

    __device__ __forceinline__ bool real(int half) const { return own * kTileRows + g + 8 * half < rows(); }
    __device__ __forceinline__ std::int64_t row(int half) const {
        return static_cast<std::uint32_t>(real(half) ? own * kTileRows + g + 8 * half : rows() - 1);
    }
    // One of the tile's 16 rows.
    __device__ __forceinline__ bool real_row(int nth) const { return own * kTileRows + nth < rows(); }
    __device__ __forceinline__ std::int64_t nth_row(int nth) const {
        return static_cast<std::uint32_t>(real_row(nth) ? own * kTileRows + nth : rows() - 1);
    }
    __device__ __forceinline__ int rows() const { return static_cast<int>(job.args.rows); }
    __device__ __forceinline__ void begin_tile(int tile) {
        own = tile;
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
        return w + (inputs * kTiles + outputs) * 64 + rank() % 8 * 8;
    }
    // sums += operand W^T for 16 inputs, beginning at block `inputs` of W.
    __device__ __forceinline__ void multiply_forward(const std::uint16_t* w, int inputs,
                                                     const std::uint32_t (&operand)[4], Accumulators& sums) const {
        const int matrix = rank() / 8;
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
        const int matrix = rank() / 8;
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
        const int matrix = rank() / 8;
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
    __device__ __forceinline__ bool resident() const {
        return job.slab_steps >= input_matrices(Job::kHead) * input_steps();
    }
    __device__ __forceinline__ void copy_values(const std::uint16_t* from, std::uint16_t* to, int values) const {
        struct alignas(16) Eight {
            std::uint16_t value[8];
        };
        for (int i = lane.thread(); i < values / 8; i += lane.threads())
            reinterpret_cast<Eight*>(to)[i] = reinterpret_cast<const Eight*>(from)[i];
    }
    // Brings the slab that begins at step `done` of an input matrix, unless all of them are there for good.
    __device__ __forceinline__ void bring_slab(int matrix, int done) const {
        if (resident()) return;
        const int left = input_steps() - done;
        const int steps = left < job.slab_steps ? left : job.slab_steps;
        lane.sync_block();
        copy_values(job.weights.inputs + std::int64_t{matrix * input_steps() + done} * kStepValues, slab,
                    steps * kStepValues);
        lane.sync_block();
    }
    // body(step, inputs): the steps of an input matrix, the 16 inputs of each in the slab from block `inputs` on.
    template <int kMatrix, typename Body>
    __device__ __forceinline__ void each_step(const Body& body) const {
        const int before = kMatrix > 0 && resident() ? kMatrix * input_steps() : 0;
        for (int done = 0; done < input_steps(); done += job.slab_steps) {
            bring_slab(kMatrix, done);
            for (int step = 0; step < job.slab_steps && done + step < input_steps(); ++step)
                body(done + step, 2 * (before + step));
        }
    }
    // sums += rows W1^T, rows (particles, dim) in memory.
    __device__ __forceinline__ void inputs_forward(const float* rows, std::int64_t stride, Accumulators& sums) const {
        const std::int64_t dim = job.weights.dim;
        each_step<0>([&](int step, int inputs) {
            std::uint32_t operand[4];
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const std::int64_t column = step * 16 + k / 2 * 8 + 2 * t;
                const float* from = rows + row(k % 2) * stride + column;
                operand[k] = lane.bf16_pair(column < dim ? from[0] : 0.0f, column + 1 < dim ? from[1] : 0.0f);
            }
            multiply_forward(slab, inputs, operand, sums);
        });
    }
    // rows = finish(half, column, operands W) for an input matrix, into memory.
    template <int kMatrix, typename Finish>
    __device__ __forceinline__ void inputs_back(float* rows, std::int64_t stride, const Finish& finish) const {
        const std::int64_t dim = job.weights.dim;
        each_step<kMatrix>([&](int step, int inputs) {
            float sums[2][4] = {};
            multiply_back(slab, inputs, sums);
#pragma unroll
            for (int k = 0; k < 8; ++k) {
                const int half = k % 4 / 2;
                const std::int64_t column = step * 16 + k / 4 * 8 + 2 * t + k % 2;
                if (real(half) && column < dim)
                    rows[row(half) * stride + column] = finish(half, column, sums[k / 4][k % 4]);
            }
        });
    }

    // ---- layers ----

    // a -> share LN(a); its factor.
    __device__ __forceinline__ void normalise(Accumulators& values, float (&rstd)[2], float share = 1.0f) const {
        float variance[2] = {};
        each([&](int tile, int half, int i) {
            variance[half] += values[tile][2 * half + i] * values[tile][2 * half + i];
        });
        mean_rows(variance);
#pragma unroll
        for (int half = 0; half < 2; ++half)
            rstd[half] = 1.0f / sqrtf(variance[half] + static_cast<float>(kLayerNormEps));
        each([&](int tile, int half, int i) { values[tile][2 * half + i] *= share * rstd[half]; });
        lane.forget();
    }
    // sums = LN(a1) of rows in memory, and LN(a2) of the operands.
    __device__ __forceinline__ void first_normed(const float* rows, std::int64_t stride, Accumulators& sums,
                                                 float (&rstd)[2]) const {
        begin_with(job.weights.b1, sums);
        inputs_forward(rows, stride, sums);
        normalise(sums, rstd);
    }
    __device__ __forceinline__ void second_normed(Accumulators& sums, float (&rstd)[2]) const {
        begin_with(job.weights.b2, sums);
        hidden_forward(sums);
        normalise(sums, rstd);
    }
    // to -= P (from - mean); null: no mean.
    __device__ __forceinline__ GaussianPull<MlpWarp> pull(const float* mean, const float* from,
                                                          std::int64_t from_stride, float* to,
                                                          std::int64_t to_stride) const {
        return {*this,    static_cast<int>(job.weights.dim), job.weights.precision, mean, from, from_stride, to,
                to_stride};
    }
    // LN(a) of a layer becomes the next product's operand h.
    __device__ __forceinline__ void activate(int layer, Accumulators& sums) const {
        each_modulated(layer, [&](int tile, int half, int i, float gain, float shift) {
            float& value = sums[tile][2 * half + i];
            value = SiluPoint(value, gain, shift).value();
        });
        to_operands(sums);
    }

    // Blocks take tiles of 16 rows for each of their warps in turn; `evaluate` works on this warp's.
    template <typename Evaluate>
    __device__ __forceinline__ void each_tile(const Evaluate& evaluate) {
        bring_weights();
        begin_tile(static_cast<int>(lane.block()) * warps() + warp());
        while ((own - warp_anew()) * kTileRows < rows()) {
            evaluate();
            begin_tile(own + static_cast<int>(lane.blocks()) * warps());
        }
    }
};

}  // namespace fastimpute::cuda
