#pragma once

#include "common/mlp_warp.cuh"
#include "energy_mlp/energy_job.cuh"

// Value, score and H v on a GPU with tensor cores.
namespace fastimpute::cuda {

template <class Lane, bool kHvp>
struct EnergyWarp : MlpWarp<Lane, EnergyJob> {
    using Base = MlpWarp<Lane, EnergyJob>;
    using Base::begin_with, Base::each, Base::each_modulated, Base::hidden_back, Base::hidden_forward;
    using Base::inputs_forward, Base::job, Base::lane, Base::mean_rows, Base::real, Base::row;
    using Base::sum_rows, Base::t, Base::to_operands, Base::unit;

    std::uint32_t* kept;
    float rstd1[2], rstd2[2];

    __device__ EnergyWarp(const Lane& own, const EnergyJob& given, std::uint16_t* shared) : Base(own, given, shared) {
        kept =
            given.kept + (own.block() * this->warps() + this->warp()) * (kept_slots(kHvp) * kKeptWords) + this->rank();
    }
    static __device__ __forceinline__ float as_it_is(int, std::int64_t, float value) { return value; }

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
        this->first_normed(job.args.x, job.args.x_stride, sums, rstd1);
        keep_all(kNormed1, sums);
        this->activate(0, sums);
        this->second_normed(sums, rstd2);
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
        this->template inputs_back<0>(job.args.score, job.args.score_stride, as_it_is);
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
        this->template inputs_back<0>(job.args.hvp, job.args.hvp_stride, as_it_is);
    }

    __device__ __forceinline__ void evaluate() {
        const auto& args = job.args;
        value_and_score();
        if (job.weights.precision != nullptr) {
            auto pull = this->pull(job.weights.mean, args.x, args.x_stride, args.score, args.score_stride);
            pull.take_off();
            pull.take_off_energy(args.log_p);
        }
        if constexpr (kHvp) {
            hessian_vector();
            if (job.weights.precision == nullptr) return;
            const bool given = args.vector != nullptr;
            this->pull(nullptr, given ? args.vector : args.score, given ? args.vector_stride : args.score_stride,
                       args.hvp, args.hvp_stride)
                .take_off();
        }
    }
};

template <bool kHvp, class Lane>
__device__ void energy_mlp_block(const Lane& lane, const EnergyJob& job, std::uint16_t* shared) {
    EnergyWarp<Lane, kHvp> warp(lane, job, shared);
    warp.each_tile([&] { warp.evaluate(); });
}

}  // namespace fastimpute::cuda
