#pragma once

#include "common/mlp_warp.cuh"
#include "common/wgmma.cuh"

// The network on Hopper: as in common/mlp_warp.cuh a warp owns 16 rows and all hidden units of them, but four warps
// form a group whose products are one instruction for 64 rows. Operands wait in registers, W1 and W2 both stay in
// shared memory, as they are packed, one copy for both directions. Of a block's two groups one multiplies while the
// other is between its products.
namespace fastimpute::cuda {

inline constexpr int kRun = 4;                                         // tiles of accumulators treated at a time
inline constexpr std::uint32_t kBlock8Bytes = 128;                     // of 8 x 8 values of a matrix
inline constexpr std::uint32_t kInputs8Bytes = kTiles * kBlock8Bytes;  // of 8 inputs, all outputs

using Operands = std::uint32_t[kSteps][4];  // of a product over the hidden units

// As SiluPoint, with one hardware function where that one has two; from half of LN(a), which saves a multiplication.
struct TanhPoint {
    float gain_less_one, half_u, turned;

    __device__ __forceinline__ TanhPoint(float half_normed, float gain_below, float shift)
        : gain_less_one(gain_below),
          half_u(0.5f * shift + (half_normed * gain_below + half_normed)),
          turned(rough_tanh(half_u)) {}
    __device__ __forceinline__ float value() const { return half_u * turned + half_u; }
    __device__ __forceinline__ float slope() const {
        const float sigmoid_u = 0.5f * turned + 0.5f;
        const float by_u = sigmoid_u * (half_u - half_u * turned) + sigmoid_u;
        return by_u * gain_less_one + by_u;
    }
};

// W1 has kInputSteps * 16 inputs in shared memory, which is also what `job.slab_steps` says; zeros behind its own.
template <class Lane, class Job, int kInputSteps>
struct MlpGroup : MlpWarp<Lane, Job> {
    using Base = MlpWarp<Lane, Job>;
    using Base::job, Base::lane, Base::real, Base::row, Base::t;

    std::uint32_t w2_address, w1_address;  // in shared memory

    __device__ MlpGroup(const Lane& on, const Job& given, std::uint16_t* shared)
        : Base(on, given, shared),
          w2_address(on.shared_address(shared)),
          w1_address(w2_address + static_cast<std::uint32_t>(kW2Values * 2)) {
        this->slab = shared + kW2Values;
    }

    // ---- pieces ----

    // Neighbouring values of a vector over the units: one access.
    struct alignas(8) Two {
        float value[2];
    };
    __device__ __forceinline__ Two two(const float* vector, int tile) const {
        return *reinterpret_cast<const Two*>(vector + 8 * tile);
    }
    // body(tile): all tiles.
    template <typename Body>
    __device__ __forceinline__ void each_tile_of_units(const Body& body) const {
#pragma unroll
        for (int run = 0; run < kTiles / kRun; ++run) {
            lane.apart(run, [&] {
#pragma unroll
                for (int tile = run * kRun; tile < (run + 1) * kRun; ++tile) body(tile);
            });
        }
    }
    // As Base's.
    template <typename Body>
    __device__ __forceinline__ void each_modulated(int layer, const Body& body) const {
        each_tile_of_units([&](int tile) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float* const from = this->modulation[half] + 2 * layer * kHidden;
                const Two gains = two(from, tile);
                const Two shifts = two(from + kHidden, tile);
#pragma unroll
                for (int i = 0; i < 2; ++i) body(tile, half, i, gains.value[i], shifts.value[i]);
            }
        });
    }
    // body(tile, half, i, value of the vector)
    template <typename Body>
    __device__ __forceinline__ void each_with(const float* vector, const Body& body) const {
        each_tile_of_units([&](int tile) {
            const Two values = two(vector + 2 * t, tile);
#pragma unroll
            for (int k = 0; k < 4; ++k) body(tile, k / 2, k % 2, values.value[k % 2]);
        });
    }
    __device__ __forceinline__ void add_bias(const float* bias, Accumulators& sums) const {
        each_with(bias, [&](int tile, int half, int i, float value) { sums[tile][2 * half + i] += value; });
    }
    // Accumulators become the operands of the next product.
    __device__ __forceinline__ void to_operands(const Accumulators& values, Operands& operands) const {
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const float* const pair = &values[2 * step + k / 2][k % 2 * 2];
                operands[step][k] = lane.bf16_pair(pair[0], pair[1]);
            }
        }
    }

    // ---- products ----

    // sums = operands W2^T.
    __device__ __forceinline__ void hidden_forward(const Operands& operands, Accumulators& sums) const {
        multiply_forward(w2_address, operands, sums);
    }
    // sums = operands W2.
    __device__ __forceinline__ void hidden_back(const Operands& operands, Accumulators& sums) const {
        multiply_back(w2_address, operands, sums);
    }
    // sums = rows W1^T, rows (particles, dim) in memory.
    __device__ __forceinline__ void inputs_forward(const float* rows, std::int64_t stride, Accumulators& sums) const {
        const int left = static_cast<int>(job.weights.dim) - 2 * t;
        const float* const from[2] = {rows + row(0) * stride + 2 * t, rows + row(1) * stride + 2 * t};
        std::uint32_t operands[kInputSteps][4];
#pragma unroll
        for (int step = 0; step < kInputSteps; ++step) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const int column = step * 16 + k / 2 * 8;
                operands[step][k] = lane.bf16_pair(column < left ? from[k % 2][column] : 0.0f,
                                                   column + 1 < left ? from[k % 2][column + 1] : 0.0f);
            }
        }
        multiply_forward(w1_address, operands, sums);
    }
    // rows = operands W1, into memory.
    __device__ __forceinline__ void inputs_back(const Operands& operands, float* rows, std::int64_t stride) const {
        float sums[2 * kInputSteps][4];
        multiply_back(w1_address, operands, sums);
        const int left = static_cast<int>(job.weights.dim) - 2 * t;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float* const to = rows + row(half) * stride + 2 * t;
#pragma unroll
            for (int k = 0; k < 4 * kInputSteps; ++k) {
                const int column = k / 2 * 8 + k % 2;
                if (real(half) && column < left) to[column] = sums[k / 2][2 * half + k % 2];
            }
        }
    }

    // Blocks take tiles of 16 rows for each of their warps in turn; `evaluate` works on this warp's.
    template <typename Evaluate>
    __device__ __forceinline__ void each_tile(const Evaluate& evaluate) {
        this->bring_weights();
        for (int i = this->input_steps() * kStepValues + lane.thread(); i < kInputSteps * kStepValues;
             i += lane.threads())
            this->slab[i] = 0;
        lane.publish();
        lane.sync_block();
        lane.begin_turns();
        const int stride = static_cast<int>(lane.blocks()) * this->warps();
        for (int tile = static_cast<int>(lane.block()) * this->warps(); tile * kTileRows < this->rows();
             tile += stride) {
            this->begin_tile(tile + this->warp());
            evaluate();
        }
        lane.end_turns();
    }

  private:
    // sums = operands W^T, W at `address`, as many of its inputs as there are operands.
    template <int kOperandSteps>
    __device__ __forceinline__ void multiply_forward(std::uint32_t address,
                                                     const std::uint32_t (&operands)[kOperandSteps][4],
                                                     Accumulators& sums) const {
        multiply<false>(matrix_descriptor(address, kInputs8Bytes, kBlock8Bytes), 2 * kInputs8Bytes, operands, sums);
    }
    // sums = operands W, as many of its inputs as there are sums.
    template <int kSumTiles>
    __device__ __forceinline__ void multiply_back(std::uint32_t address, const Operands& operands,
                                                  float (&sums)[kSumTiles][4]) const {
        multiply<true>(matrix_descriptor(address, kBlock8Bytes, kInputs8Bytes), 2 * kBlock8Bytes, operands, sums);
    }
    // Each step's matrix lies `step_bytes` behind the one before.
    template <bool kTransposed, int kOperandSteps, int kSumTiles>
    __device__ __forceinline__ void multiply(std::uint64_t matrix, std::uint32_t step_bytes,
                                             const std::uint32_t (&operands)[kOperandSteps][4],
                                             float (&sums)[kSumTiles][4]) const {
        lane.wait_for_turn();
        lane.begin_products(sums);
#pragma unroll
        for (int step = 0; step < kOperandSteps; ++step)
            lane.template multiply<kTransposed>(sums, operands[step], moved(matrix, step * step_bytes), step > 0);
        lane.wait(sums);
        lane.pass_turn();
    }
};

}  // namespace fastimpute::cuda
