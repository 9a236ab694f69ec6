#pragma once

#include <type_traits>

#include "common/device.cuh"
#include "unrolled_attention/sequence_layout.h"
#include "unrolled_attention/unrolled_attention_cuda.h"

// The sequences of a block and what a lane asks of them. What a warp multiplies lies in shared memory, frame by frame,
// its lines beside each other; everything else of a cell stays with its lane, in registers or parked.
namespace fastimpute::cuda {

struct UnrolledJob {
    UnrolledAttentionCuda call;
    SequenceLayout layout;
};

struct alignas(8) Pair {
    float value[2];
};
struct alignas(16) Quad {
    float value[4];
};

// Zero where the denominator is not positive: a solved sequence stays where it is.
__device__ __forceinline__ float quotient(float value, float by) { return by > 0.0f ? value / by : 0.0f; }

template <class Shape, class Lane>
class SequenceTile {
  public:
    static constexpr int kFrames = Shape::kFrames;
    using Cells = float[kLines][kFrames];
    enum Parked : int { kRight = 0, kDirection = 1, kSolution = 2 };

    __device__ SequenceTile(const Lane& lane, const UnrolledJob& job, float* shared)
        : lane_(lane), args_(job.call.args), channels_(job.layout.channels), table_(shared) {
        const int warp = lane.thread() / kWarp;
        const int own = lane.thread() % kWarp;
        group_ = own / Shape::kTeams;
        line_ = warp * Shape::kWarpLines + own % Shape::kTeams * kLines;
        sequence_ = lane.block() * job.layout.sequences + line_ / channels_;
        channel_ = line_ % channels_;
        sums_ = shared + Shape::kTable;
        warps_ = sums_ + 2 * kMostSequenceWarps;
        operand_ = warps_ + warp * Shape::kWarpFloats;
        parked_ = operand_ + Shape::kOperand + own * kLines;
        links_ = operand_ + Shape::kOperand + Shape::kParked + own;
        variances_ = operand_ + Shape::kOperand + Shape::kParked + Shape::kLinks + own % Shape::kTeams * 2 * kLines;
        lay_out_table();
        find_states();
        lay_out_variances();
        if (job.call.decay != nullptr) tie_frames(job.call.decay, job.call.weight);
        lane.sync_block();
    }

    template <typename Body>
    static __device__ __forceinline__ void each(const Body& body) {
#pragma unroll
        for (int l = 0; l < kLines; ++l) {
#pragma unroll
            for (int j = 0; j < kFrames; ++j) body(l, j);
        }
    }

    // ---- where a lane is -------------------------------------------------------------------------------------------

    __device__ __forceinline__ bool present() const { return sequence_ < args_.sequences; }
    __device__ __forceinline__ bool exists(int l) const { return channel_ + l < args_.channels; }
    __device__ __forceinline__ int frame(int j) const { return group_ * kFrames + j; }
    __device__ __forceinline__ std::int64_t cell(int l, int j) const {
        return frame(j) * args_.channels + channel_ + l;
    }
    __device__ __forceinline__ bool seen(int j) const { return states_ >> j & 1; }
    __device__ __forceinline__ bool hidden(int j) const { return states_ >> (16 + j) & 1; }

    // One number of the lane's sequence, zero where there is none.
    __device__ __forceinline__ float scale_of(const float* values) const {
        return present() ? values[sequence_] : 0.0f;
    }
    __device__ __forceinline__ void rate_of(const IterationRates<float>& rates, std::int64_t index, float& step,
                                            float& momentum) const {
        const std::int64_t row = rates.rows == 1 || !present() ? 0 : sequence_;
        const float* rate = rates.rates + 2 * (row * rates.count + index);
        step = rate[0];
        momentum = rate[1];
    }

    // ---- shared memory ---------------------------------------------------------------------------------------------

    __device__ __forceinline__ void store_operand(const Cells& cells) const {
#pragma unroll
        for (int j = 0; j < kFrames; ++j) *own(j) = across(cells, j);
    }
    __device__ __forceinline__ void load_operand(Cells& cells) const {
#pragma unroll
        for (int j = 0; j < kFrames; ++j) put(*own(j), cells, j);
    }
    __device__ __forceinline__ void park(Parked which, const Cells& cells) const {
#pragma unroll
        for (int j = 0; j < kFrames; ++j) *parking(which, j) = across(cells, j);
    }
    __device__ __forceinline__ void parked(Parked which, Cells& cells) const {
#pragma unroll
        for (int j = 0; j < kFrames; ++j) put(*parking(which, j), cells, j);
    }

    // ---- products --------------------------------------------------------------------------------------------------

    // image = S values on all frames. The window of the lag table that a lane looks through moves on by one for each
    // frame of the operand: kFrames new heads serve kFrames^2 kLines multiply-adds.
    __device__ __forceinline__ void attend(const Cells& values, Cells& image) const {
        store_operand(values);
        lane_.sync_warp();
        float heads[2 * kFrames];  // of lags frame(0) - k - kFrames and on, k the first frame of the group multiplied
        const float* window = table_ + frame(0) + Shape::kSpan;
        load_heads(window, heads + kFrames);
        each([&](int l, int j) { image[l][j] = 0.0f; });
        const int groups = (static_cast<int>(args_.frames) + kFrames - 1) / kFrames;
        const float* source = operand_ + line_ % Shape::kWarpLines;
#pragma unroll 2
        for (int g = 0; g < groups; ++g) {
            window -= kFrames;
            load_heads(window, heads);
#pragma unroll
            for (int k = 0; k < kFrames; ++k) {
                const Quad quad = *reinterpret_cast<const Quad*>(source + k * Shape::kWarpLines);
                each([&](int l, int j) { image[l][j] += quad.value[l] * heads[kFrames + j - k]; });
            }
#pragma unroll
            for (int k = 0; k < kFrames; ++k) heads[kFrames + k] = heads[k];
            source += Shape::kStep;
        }
        const Quad variance = *reinterpret_cast<const Quad*>(variances_);
        each([&](int l, int j) { image[l][j] *= variance.value[l]; });
        lane_.sync_warp();
    }

    // The product summed over frames and channels of the lane's sequence. Always the same tree, wherever the sequence
    // lies in the block.
    __device__ __forceinline__ float dot(const Cells& left, const Cells& right) {
        float lines[kLines] = {};
        each([&](int l, int j) { lines[l] += left[l][j] * right[l][j]; });
        float sum = (lines[0] + lines[1]) + (lines[2] + lines[3]);
#pragma unroll
        for (int distance = Shape::kTeams; distance < kWarp; distance *= 2)
            sum += lane_.shuffle_xor(0xFFFFFFFFu, sum, distance);
#pragma unroll
        for (int distance = 1; distance < Shape::kTeams; distance *= 2) {
            const float other = lane_.shuffle_xor(0xFFFFFFFFu, sum, distance);
            if (distance * kLines < channels_) sum += other;
        }
        return channels_ > Shape::kWarpLines ? over_warps(sum) : sum;
    }

    // z = B^T W B / variance of the residual, B y = y - decay y_before over the frames seen; zero elsewhere. Uses the
    // operand's place.
    __device__ __forceinline__ void precondition(const Cells& residual, Cells& z) const {
        store_operand(residual);
        lane_.sync_warp();
        const Quad before = neighbour(before_), after = neighbour(after_);
        const Quad inverse = *reinterpret_cast<const Quad*>(variances_ + kLines);
        const float decay_after = *link(2 * kFrames), weight_after = *link(2 * kFrames + 1);
        float decay[kFrames], weight[kFrames];
#pragma unroll
        for (int j = 0; j < kFrames; ++j) {
            decay[j] = *link(j);
            weight[j] = *link(kFrames + j);
        }
#pragma unroll
        for (int l = 0; l < kLines; ++l) {
            float previous = before.value[l];
#pragma unroll
            for (int j = 0; j < kFrames; ++j) {
                z[l][j] = weight[j] * (residual[l][j] - decay[j] * previous);
                previous = seen(j) ? residual[l][j] : previous;
            }
            float carried = decay_after * weight_after * (after.value[l] - decay_after * previous);
#pragma unroll
            for (int j = kFrames - 1; j >= 0; --j) {
                const float increment = z[l][j];
                z[l][j] = seen(j) ? (increment - carried) * inverse.value[l] : 0.0f;
                carried = seen(j) ? decay[j] * increment : carried;
            }
        }
        lane_.sync_warp();
    }

    // The channels' modes (kInto), or the channels from their modes. Uses the operand's place.
    template <bool kInto>
    __device__ __forceinline__ void mix(Cells& cells) const {
        if (args_.basis == nullptr) return;
        store_operand(cells);
        lane_.sync_block();
        each([&](int l, int j) { cells[l][j] = 0.0f; });
        const int channels = static_cast<int>(args_.channels);
        for (int source = 0; source < channels; ++source) {
            const int line = line_ - channel_ + source;
            const float* place = warps_ + line / Shape::kWarpLines * Shape::kWarpFloats + group_ * Shape::kStep +
                                 line % Shape::kWarpLines;
#pragma unroll
            for (int l = 0; l < kLines; ++l) {
                const int own = channel_ + l;
                const int at = kInto ? source * channels + own : own * channels + source;
                const float share = exists(l) ? args_.basis[at] : 0.0f;
#pragma unroll
                for (int j = 0; j < kFrames; ++j) cells[l][j] += share * place[j * Shape::kWarpLines];
            }
        }
        lane_.sync_block();
    }

  private:
    __device__ void lay_out_table() const {
        for (int place = lane_.thread(); place < Shape::kTable; place += lane_.threads()) {
            const int lag = place < Shape::kSpan ? Shape::kSpan - place : place - Shape::kSpan;
            table_[place] = lag < args_.frames ? args_.lag_table[lag] : 0.0f;
        }
    }

    __device__ void lay_out_variances() const {
        if (group_ != 0) return;
#pragma unroll
        for (int l = 0; l < kLines; ++l) {
            const float variance = args_.variance != nullptr && exists(l) ? args_.variance[channel_ + l] : 1.0f;
            variances_[l] = variance;
            variances_[kLines + l] = 1.0f / variance;
        }
    }

    __device__ __forceinline__ bool missing(int at) const {
        return args_.missing[sequence_ * args_.missing_stride + at] != 0;
    }

    __device__ void find_states() {
        states_ = 0;
#pragma unroll
        for (int j = 0; j < kFrames; ++j) {
            if (present() && frame(j) < args_.frames) states_ |= 1u << (missing(frame(j)) ? 16 + j : j);
        }
    }

    // Finds the frames seen before and after the lane's own, counted from 1 (0: none), and lays out what the
    // preconditioner asks of its frames seen: decays and weights of their ties to those before them (0 at others), and
    // of the tie of the last one to the one after it.
    __device__ void tie_frames(const float* decay, const float* weight) {
        const int frames = present() ? static_cast<int>(args_.frames) : 0;
        before_ = frame(0) < frames ? frame(0) : frames;
        while (before_ > 0 && missing(before_ - 1)) --before_;
        after_ = frame(kFrames) + 1;
        while (after_ <= frames && missing(after_ - 1)) ++after_;
        if (after_ > frames) after_ = 0;
        int last = before_;
        for (int j = 0; j < kFrames; ++j) {
            const int gap = last > 0 ? frame(j) + 1 - last : 0;
            *link(j) = seen(j) ? decay[gap] : 0.0f;
            *link(kFrames + j) = seen(j) ? weight[gap] : 0.0f;
            if (seen(j)) last = frame(j) + 1;
        }
        const bool tied = after_ > 0 && last > 0;
        *link(2 * kFrames) = tied ? decay[after_ - last] : 0.0f;
        *link(2 * kFrames + 1) = tied ? weight[after_ - last] : 0.0f;
    }

    static __device__ __forceinline__ Quad across(const Cells& cells, int j) {
        return {{cells[0][j], cells[1][j], cells[2][j], cells[3][j]}};
    }
    static __device__ __forceinline__ void put(const Quad& quad, Cells& cells, int j) {
#pragma unroll
        for (int l = 0; l < kLines; ++l) cells[l][j] = quad.value[l];
    }
    __device__ __forceinline__ Quad* own(int j) const {
        return reinterpret_cast<Quad*>(operand_ + group_ * Shape::kStep + j * Shape::kWarpLines +
                                       line_ % Shape::kWarpLines);
    }
    // Of the operand; zero without that frame.
    __device__ __forceinline__ Quad neighbour(int counted) const {
        const int at = counted - 1;
        if (at < 0) return {};
        return *reinterpret_cast<const Quad*>(operand_ + (at + at / kFrames) * Shape::kWarpLines +
                                              line_ % Shape::kWarpLines);
    }
    __device__ __forceinline__ float* link(int which) const { return links_ + which * kWarp; }
    __device__ __forceinline__ Quad* parking(Parked which, int j) const {
        return reinterpret_cast<Quad*>(parked_ + (which * kFrames + j) * kWarp * kLines);
    }

    static __device__ __forceinline__ void load_heads(const float* window, float* heads) {
        using Part = std::conditional_t<kFrames % 4 == 0, Quad, Pair>;
        constexpr int kPart = sizeof(Part) / sizeof(float);
#pragma unroll
        for (int k = 0; k < kFrames; k += kPart) {
            const Part part = *reinterpret_cast<const Part*>(window + k);
#pragma unroll
            for (int i = 0; i < kPart; ++i) heads[k + i] = part.value[i];
        }
    }

    // Two sets of places for the sums, in turn: whoever writes to one knows that all have read it.
    __device__ __forceinline__ float over_warps(float sum) {
        float* places = sums_ + turn_ * kMostSequenceWarps;
        turn_ ^= 1;
        if (lane_.thread() % kWarp == 0) places[lane_.thread() / kWarp] = sum;
        lane_.sync_block();
        float total = 0.0f;
        for (int warp = 0; warp < lane_.threads() / kWarp; ++warp) total += places[warp];
        return total;
    }

  protected:
    const Lane& lane_;
    const UnrolledAttention<float>& args_;
    std::int64_t sequence_;

  private:
    int channels_;
    float *table_, *sums_, *warps_, *operand_, *parked_, *links_, *variances_;
    int group_, line_, channel_;
    int turn_ = 0;
    std::uint32_t states_;  // a bit a frame: seen, and from 16 on: missing
    int before_ = 0, after_ = 0;
};

}  // namespace fastimpute::cuda
