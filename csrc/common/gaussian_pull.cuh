#pragma once

#include "common/device.cuh"

// The Gaussian part on a GPU, in float32: plain multiply-adds, as the tensor cores' float32 is none.
namespace fastimpute::cuda {

// rows -> P (rows - mean) for the 16 rows of a warp. A lane owns one or two columns of P at a time; the rows' cells
// wait in shared memory, 128 columns of them: what the operands of a product take.
template <class Warp>
struct GaussianPull {
    static constexpr int kRows = 16;
    static constexpr int kPart = 128;
    struct alignas(16) FourRows {
        float row[4];
    };

    const Warp& warp;
    int dim;
    const float* precision;  // (dim, dim), symmetric
    const float* mean;       // null: 0
    const float* from;       // (rows, dim)
    std::int64_t from_stride;
    float* to;  // (rows, dim); the pull is taken off
    std::int64_t to_stride;
    float along[kRows] = {};  // this lane's part of (row - mean) . P (row - mean)

    __device__ __forceinline__ FourRows* part() const { return static_cast<FourRows*>(warp.room()); }
    __device__ __forceinline__ float cell(int row, int column) const {
        return from[warp.nth_row(row) * from_stride + column] - (mean != nullptr ? mean[column] : 0.0f);
    }

    __device__ __forceinline__ void bring(int begin) const {
        FourRows* const cells = part();
        warp.lane.sync_warp();
#pragma unroll 1
        for (int j = warp.rank_anew(); j < kPart; j += kWarp) {
#pragma unroll
            for (int k = 0; k < kRows / 4; ++k) {
                FourRows four = {};
#pragma unroll
                for (int i = 0; i < 4; ++i) four.row[i] = begin + j < dim ? cell(4 * k + i, begin + j) : 0.0f;
                cells[k * kPart + j] = four;
            }
        }
        warp.lane.sync_warp();
    }
    // Columns first + lane, + 32 ...
    template <int kColumns>
    __device__ __forceinline__ void columns(int first) {
        float sums[kColumns][kRows] = {};
        const FourRows* const cells = part();
        const int column = first + warp.rank_anew();
#pragma unroll 1
        for (int begin = 0; begin < dim; begin += kPart) {
            if (first == 0 || dim > kPart) bring(begin);
            const int count = dim - begin < kPart ? dim - begin : kPart;
#pragma unroll 4
            for (int j = 0; j < count; ++j) {
                const float* row = precision + std::int64_t{begin + j} * dim + column;
                float weight[kColumns];
#pragma unroll
                for (int c = 0; c < kColumns; ++c) weight[c] = column + c * kWarp < dim ? row[c * kWarp] : 0.0f;
#pragma unroll
                for (int k = 0; k < kRows / 4; ++k) {
                    const FourRows four = cells[k * kPart + j];
#pragma unroll
                    for (int i = 0; i < 4 * kColumns; ++i)
                        sums[i / 4][4 * k + i % 4] += weight[i / 4] * four.row[i % 4];
                }
            }
        }
#pragma unroll
        for (int i = 0; i < kRows * kColumns; ++i) {
            const int own = column + i / kRows * kWarp;
            const int row = i % kRows;
            if (own >= dim) continue;
            const float pull = sums[i / kRows][row];
            along[row] += pull * cell(row, own);
            if (warp.real_row(row)) to[warp.nth_row(row) * to_stride + own] -= pull;
        }
    }
    __device__ __forceinline__ void take_off() {
        int first = 0;
#pragma unroll 1
        for (; first + kWarp < dim; first += 2 * kWarp) columns<2>(first);
        if (first < dim) columns<1>(first);
        warp.lane.sync_warp();  // the part has been read, the rows are there
    }
    // Behind take_off: what an energy loses by it.
    __device__ __forceinline__ void take_off_energy(float* log_p) {
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
            float sum = along[row];
#pragma unroll
            for (int distance = kWarp / 2; distance > 0; distance /= 2)
                sum += warp.lane.shuffle_xor(0xFFFFFFFFu, sum, distance);
            if (warp.rank_anew() == 0 && warp.real_row(row)) log_p[warp.nth_row(row)] -= 0.5f * sum;
        }
        warp.lane.sync_warp();
    }
};

}  // namespace fastimpute::cuda
