#pragma once

#include "common/mlp_group.cuh"
#include "energy_mlp/energy_job.cuh"

// Value and score on Hopper.
namespace fastimpute::cuda {

template <class Lane, int kInputSteps>
struct EnergyGroup : MlpGroup<Lane, EnergyJob, kInputSteps> {
    using Base = MlpGroup<Lane, EnergyJob, kInputSteps>;
    using Base::add_bias, Base::each, Base::each_modulated, Base::each_with, Base::job, Base::lane, Base::mean_rows;
    using Base::normalise, Base::real, Base::row, Base::sum_rows, Base::t, Base::unit;

    std::uint32_t* kept;  // half of LN(a1) in half precision, waiting for the way back

    __device__ EnergyGroup(const Lane& own, const EnergyJob& given, std::uint16_t* shared) : Base(own, given, shared) {
        kept =
            given.kept + (own.block() * this->warps() + this->warp()) * (kept_slots(false) * kKeptWords) + this->rank();
    }

    // Sums of grad LN(a) / 2 become what LN(a) / 2 is taken off with: twice their means, for twice the values.
    __device__ __forceinline__ void mean_halves(float (&along)[2]) const {
        mean_rows(along);
        along[0] *= 4.0f;
        along[1] *= 4.0f;
    }
    // Operands h1 of the rows.
    __device__ __forceinline__ void first_layer(Operands& operands, float (&rstd)[2]) const {
        Accumulators sums;
        this->inputs_forward(job.args.x, job.args.x_stride, sums);
        add_bias(job.weights.b1, sums);
        normalise(sums, rstd, 0.5f);
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
            for (int half = 0; half < 2; ++half)
                kept[(2 * tile + half) * kWarp] = lane.half_pair(sums[tile][2 * half], sums[tile][2 * half + 1]);
        }
        each_modulated(0, [&](int tile, int half, int i, float gain, float shift) {
            float& value = sums[tile][2 * half + i];
            value = TanhPoint(value, gain, shift).value();
        });
        this->to_operands(sums, operands);
    }
    // log p; operands h1 become those of d log p / d a2.
    __device__ __forceinline__ void second_layer(Operands& operands) const {
        Accumulators sums;
        float rstd[2];
        this->hidden_forward(operands, sums);
        add_bias(job.weights.b2, sums);
        normalise(sums, rstd, 0.5f);
        float log_p[2] = {};
        float along[2] = {};
        each_modulated(1, [&](int tile, int half, int i, float gain, float shift) {
            float& half_normed = sums[tile][2 * half + i];
            const TanhPoint point(half_normed, gain, shift);
            const float w3 = unit(job.weights.w3, tile, i);
            const float slope = point.slope();
            log_p[half] += w3 * point.value();
            along[half] += w3 * slope * half_normed;
            half_normed = float_of(lane.half_pair(half_normed, slope));  // one register for both
        });
        sum_rows(log_p);
        mean_halves(along);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (t == 0 && real(half)) job.args.log_p[row(half)] = log_p[half] + job.weights.b3[0];
        }
        each_with(job.weights.w3, [&](int tile, int half, int i, float w3) {
            float& value = sums[tile][2 * half + i];
            const std::uint32_t both = bits_of(value);
            const float grad = w3 * lane.half_of(both, 1);
            value = rstd[half] * (grad - lane.half_of(both, 0) * along[half]);
        });
        this->to_operands(sums, operands);
    }
    // They become those of d log p / d a1.
    __device__ __forceinline__ void first_layer_back(const float (&rstd)[2], Operands& operands) const {
        Accumulators sums;
        this->hidden_back(operands, sums);
        std::uint32_t half_normed[2 * kTiles];
#pragma unroll
        for (int k = 0; k < 2 * kTiles; ++k) half_normed[k] = kept[k * kWarp];
        float along[2] = {};
        each_modulated(0, [&](int tile, int half, int i, float gain, float shift) {
            const float value = lane.half_of(half_normed[2 * tile + half], i);
            float& grad = sums[tile][2 * half + i];
            grad *= TanhPoint(value, gain, shift).slope();
            along[half] += grad * value;
        });
        mean_halves(along);
        each([&](int tile, int half, int i) {
            float& grad = sums[tile][2 * half + i];
            grad = rstd[half] * (grad - lane.half_of(half_normed[2 * tile + half], i) * along[half]);
        });
        this->to_operands(sums, operands);
    }

    __device__ __forceinline__ void evaluate() const {
        Operands operands;
        float rstd[2];
        first_layer(operands, rstd);
        second_layer(operands);
        first_layer_back(rstd, operands);
        this->inputs_back(operands, job.args.score, job.args.score_stride);
    }
};

template <int kInputSteps, class Lane>
__device__ void energy_group_block(const Lane& lane, const EnergyJob& job, std::uint16_t* shared) {
    EnergyGroup<Lane, kInputSteps> group(lane, job, shared);
    group.each_tile([&] { group.evaluate(); });
}

}  // namespace fastimpute::cuda
