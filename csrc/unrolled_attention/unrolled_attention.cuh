#pragma once

#include "unrolled_attention/sequence_tile.cuh"

// All iterations of a block's sequences. The inner systems are followed by their residual alone: S_oo u = right is
// solved by r <- r - step S d on all frames, d on those seen, so that the frames missing collect right - S_mo u, which
// is what the outer iteration asks for. u itself is never formed, and no product is spent on it.
namespace fastimpute::cuda {

template <class Shape, class Lane>
class UnrolledTile : SequenceTile<Shape, Lane> {
  public:
    using Tile = SequenceTile<Shape, Lane>;
    using typename Tile::Cells;

    __device__ UnrolledTile(const Lane& lane, const UnrolledJob& job, float* shared)
        : Tile(lane, job, shared), preconditioned_(job.call.decay != nullptr) {}

    __device__ __forceinline__ void solve() {
        Cells values;
        read(values);
        solve_seen(values);
        write_mean_and_start(values);
        solve_hidden(values);
        this->parked(Tile::kSolution, values);
        this->template mix<false>(values);
        write(args_.score, [&](int l, int j) { return this->hidden(j) ? values[l][j] : 0.0f; });
    }

  private:
    using Tile::args_;

    // value(l, j) at the lane's cells.
    template <typename Value>
    __device__ __forceinline__ void write(float* result, const Value& value) const {
        if (!this->present()) return;
        result += this->sequence_ * args_.frames * args_.channels;
        this->each([&](int l, int j) {
            if (this->exists(l) && this->frame(j) < args_.frames) result[this->cell(l, j)] = value(l, j);
        });
    }
    __device__ __forceinline__ float mean_of(int l, int j) const {
        return args_.mean != nullptr ? args_.mean[this->cell(l, j)] : 0.0f;
    }
    __device__ __forceinline__ float x_of(int l, int j) const {
        return args_.x[this->sequence_ * args_.x_stride + this->cell(l, j)];
    }

    // The modes of x - mean at frames seen; those of v - alpha mean at frames missing are parked.
    __device__ __forceinline__ void read(Cells& known) const {
        const float alpha = this->scale_of(args_.alpha);
        const float* v = args_.v + this->sequence_ * args_.v_stride;
        Cells values;
        this->each([&](int l, int j) {
            values[l][j] = 0.0f;
            if (!this->exists(l)) return;
            if (this->seen(j)) values[l][j] = x_of(l, j) - mean_of(l, j);
            if (this->hidden(j)) values[l][j] = v[this->cell(l, j)] - alpha * mean_of(l, j);
        });
        this->template mix<true>(values);
        this->each([&](int l, int j) {
            known[l][j] = this->seen(j) ? values[l][j] : 0.0f;
            values[l][j] = this->hidden(j) ? values[l][j] : 0.0f;
        });
        this->park(Tile::kRight, values);
    }

    // `values`: -mu at frames missing. Lays out the outer system: right side alpha mu - v, solution and direction zero.
    __device__ __forceinline__ void write_mean_and_start(Cells& values) const {
        const float alpha = this->scale_of(args_.alpha);
        Cells right;
        this->parked(Tile::kRight, right);
        this->each([&](int l, int j) { right[l][j] = this->hidden(j) ? -alpha * values[l][j] - right[l][j] : 0.0f; });
        this->park(Tile::kRight, right);
        this->each([&](int l, int j) { right[l][j] = 0.0f; });
        this->park(Tile::kDirection, right);
        this->park(Tile::kSolution, right);
        this->template mix<false>(values);
        write(args_.conditional_mean,
              [&](int l, int j) { return this->hidden(j) ? mean_of(l, j) - values[l][j] : x_of(l, j); });
    }

    // residual: the right side at frames seen, anything at the others. Becomes what `inner` iterations leave of it, and
    // at the others loses S u.
    __device__ __forceinline__ void solve_seen(Cells& residual) {
        const bool cg = args_.inner.rates == nullptr;
        float energy = 0.0f, size = 0.0f, momentum = 0.0f;
        Cells direction, image;
        this->each([&](int l, int j) { direction[l][j] = 0.0f; });
        for (std::int64_t index = 0; index < args_.inner.count; ++index) {
            if (preconditioned_) {
                this->precondition(residual, image);
            } else {
                this->each([&](int l, int j) { image[l][j] = this->seen(j) ? residual[l][j] : 0.0f; });
            }
            if (cg) {
                const float previous = energy;
                energy = this->dot(residual, image);
                momentum = quotient(energy, previous);
            } else {
                this->rate_of(args_.inner, index, size, momentum);
            }
            this->each([&](int l, int j) { direction[l][j] = image[l][j] + momentum * direction[l][j]; });
            this->attend(direction, image);
            this->load_operand(direction);  // had no registers during the product
            if (cg) size = quotient(energy, this->dot(direction, image));
            this->each([&](int l, int j) { residual[l][j] -= size * image[l][j]; });
        }
    }

    // The score's system, (alpha^2 (S_mm - S_mo S_oo^-1 S_om) + sigma^2) score = right.
    __device__ __forceinline__ void solve_hidden(Cells& image) {
        const bool cg = args_.outer.rates == nullptr;
        float energy = 0.0f, size = 0.0f, momentum = 0.0f;
        Cells direction, vector;
        for (std::int64_t index = 0; index < args_.outer.count; ++index) {
            this->parked(Tile::kRight, vector);
            if (cg) {
                const float previous = energy;
                energy = this->dot(vector, vector);
                momentum = quotient(energy, previous);
            } else {
                this->rate_of(args_.outer, index, size, momentum);
            }
            this->parked(Tile::kDirection, direction);
            this->each([&](int l, int j) { direction[l][j] = vector[l][j] + momentum * direction[l][j]; });
            this->park(Tile::kDirection, direction);
            if (cg || index + 1 < args_.outer.count) {
                this->attend(direction, image);
                solve_seen(image);
                this->parked(Tile::kDirection, direction);
                const float alpha = this->scale_of(args_.alpha);
                const float sigma = this->scale_of(args_.sigma);
                this->each([&](int l, int j) {
                    const float moved = alpha * alpha * image[l][j] + sigma * sigma * direction[l][j];
                    image[l][j] = this->hidden(j) ? moved : 0.0f;
                });
                if (cg) size = quotient(energy, this->dot(direction, image));
                this->parked(Tile::kRight, vector);
                this->each([&](int l, int j) { vector[l][j] -= size * image[l][j]; });
                this->park(Tile::kRight, vector);
            }
            this->parked(Tile::kSolution, vector);
            this->each([&](int l, int j) { vector[l][j] += size * direction[l][j]; });
            this->park(Tile::kSolution, vector);
        }
    }

    bool preconditioned_;
};

// `shared`: job.layout.shared_bytes, on 16 bytes.
template <class Shape, class Lane>
__device__ __forceinline__ void unrolled_attention_block(const Lane& lane, const UnrolledJob& job, float* shared) {
    UnrolledTile<Shape, Lane>(lane, job, shared).solve();
}

}  // namespace fastimpute::cuda
