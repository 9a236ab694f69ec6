#pragma once

#include "common/mlp_warp.cuh"
#include "score_mlp/score_mlp_cuda.h"

// The score of the direct head on a GPU with tensor cores: W3^T lies as W1 does, so that the way out is W1's way back.
namespace fastimpute::cuda {

struct ScoreJob {
    static constexpr Head kHead = Head::kDirect;

    ScoreMlpArgs<float> args;
    MlpCuda weights;
    int slab_steps;  // steps of 16 inputs of W1 and W3^T that lie in shared memory at a time
};

template <class Lane>
struct ScoreWarp : MlpWarp<Lane, ScoreJob> {
    using Base = MlpWarp<Lane, ScoreJob>;
    using Base::job;

    __device__ ScoreWarp(const Lane& own, const ScoreJob& given, std::uint16_t* shared) : Base(own, given, shared) {}

    __device__ __forceinline__ void evaluate() const {
        Accumulators sums;
        float rstd[2];
        this->first_normed(job.args.x, job.args.x_stride, sums, rstd);
        this->activate(0, sums);
        this->second_normed(sums, rstd);
        this->activate(1, sums);
        const float sigma[2] = {job.args.sigma[this->row(0)], job.args.sigma[this->row(1)]};
        this->template inputs_back<1>(
            job.args.score, job.args.score_stride,
            [&](int half, std::int64_t column, float sum) { return (sum + job.weights.b3[column]) / sigma[half]; });
        if (job.weights.precision != nullptr)
            this->pull(job.weights.mean, job.args.x, job.args.x_stride, job.args.score, job.args.score_stride)
                .take_off();
    }
};

template <class Lane>
__device__ void score_mlp_block(const Lane& lane, const ScoreJob& job, std::uint16_t* shared) {
    ScoreWarp<Lane> warp(lane, job, shared);
    warp.each_tile([&] { warp.evaluate(); });
}

}  // namespace fastimpute::cuda
