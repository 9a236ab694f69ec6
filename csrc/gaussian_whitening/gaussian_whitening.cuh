#pragma once

#include "common/masked_window.cuh"
#include "gaussian_whitening/gaussian_whitening_cuda.h"

// One window to a block at a time, as gaussian_conditional from the precision: A = P_mm = L L^T, and L^-T row of tiles
// by row of tiles. Tiles of both factors are written where they come up, from registers.
namespace fastimpute::cuda {

constexpr FactorLayout whitening_layout(std::int64_t dim, std::int64_t most, int shared_limit) {
    return factor_layout(static_cast<int>(dim), static_cast<int>(most), shared_limit);
}

template <typename Real>
struct WhiteningJob {
    GaussianWhiteningCuda<Real> call;
    FactorLayout layout;
};

template <typename Real, class Lane>
class WhiteningWindow {
  public:
    __device__ WhiteningWindow(const Lane& lane, const GaussianWhiteningCuda<Real>& call, std::int64_t row,
                               const WindowMemory& window)
        : lane_(lane), args_(call.args), status_(call.status + row), row_(row), window_(window) {
        dim_ = static_cast<int>(args_.dim);
        count_ = window.numbers[0];
    }

    __device__ int tiles() const { return tiles_of(count_); }

    // The missing cells in order, then observed ones in order, as far as the outputs go.
    __device__ __forceinline__ void write_cells() const {
        for (std::int64_t at = lane_.thread(); at < args_.most; at += lane_.threads()) {
            args_.cells[row_ * args_.most + at] = at < count_ ? window_.missing[at] : window_.seen[at - count_];
            args_.real[row_ * args_.most + at] = at < count_;
        }
    }

    __device__ __forceinline__ void refuse(int what) const {
        if (lane_.thread() == 0) *status_ = what;
    }

    // Ends with the results written, by a barrier where the window has something missing.
    __device__ __forceinline__ void solve(double* tiles_memory) const {
        const TileFactor<Lane> factor(lane_, tiles_memory, tiles());
        factor.clear_right();
        lane_.sync_block();
        right_from_rows(lane_, factor, args_.precision, dim_, window_.missing, count_, window_.centred);
        lane_.sync_block();
        const auto source = [&](int row, int column, Fragment& tile) {
            gather_tile(factor, args_.precision, dim_, window_.missing, count_, row, window_.missing, count_, column,
                        true, tile);
        };
        factor.factorise(source, Sink{*this, factor}, window_.numbers + 1);
        const int bad = window_.numbers[1];
        if (bad >= 0) return refuse(window_.missing[bad]);
        for (int row = factor.warp(); row < tiles(); row += factor.warps()) eight_cells(factor, row);
    }

    // The identity beyond the tiles of the window's own cells, and zeros above them.
    __device__ __forceinline__ void write_rest() const {
        const int most = static_cast<int>(args_.most);
        const int own = tiles() * kTile;
        for (int row = lane_.thread() / kWarp; row < most; row += lane_.threads() / kWarp) {
            const int first = row < own ? (row / kTile + 1) * kTile : 0;
            for (int column = first + lane_.thread() % kWarp; column < most; column += kWarp) {
                const Real value = row == column ? Real(1) : Real(0);
                *at(args_.factor, row, column) = value;
                *at(args_.inverse, row, column) = value;
            }
        }
    }

  private:
    struct Sink {
        const WhiteningWindow& window;
        const TileFactor<Lane>& factor;

        // The lane's elements are L_JJ^T's on and above the diagonal, where that of L_JJ^-1 stands.
        __device__ __forceinline__ void diagonal(int step, const Fragment& tile) const {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int row = factor.column(i), column = factor.row();
                const double value = row == column ? 1.0 / tile[i] : tile[i];
                if (row >= column) window.put(window.args_.factor, step, row, step, column, value);
                if (row > column) window.put(window.args_.factor, step, column, step, row, 0.0);
            }
        }
        __device__ __forceinline__ void below(int row, int column, const Fragment& tile) const {
#pragma unroll
            for (int i = 0; i < 2; ++i)
                window.put(window.args_.factor, row, factor.row(), column, factor.column(i), tile[i]);
        }
    };

    __device__ __forceinline__ void eight_cells(const TileFactor<Lane>& factor, int row) const {
        CellSums sums;
        const auto source = [&](int column, Fragment& tile) { identity_tile(factor, row, column, tile); };
        const auto take = [&](int column, const Fragment& tile) {
            sums.add(factor, column, tile);
#pragma unroll
            for (int i = 0; i < 2; ++i) put(args_.inverse, column, factor.column(i), row, factor.row(), tile[i]);
        };
        factor.solve_row(row, source, take);
        sums.finish(lane_);
        const int at = row * kTile + factor.row();
        if (at >= count_ || lane_.thread() % 4 != 0) return;
        const int cell = window_.missing[at];
        const double* mean = args_.mean + row_ * args_.mean_stride;
        args_.filled[row_ * args_.dim + cell] = static_cast<Real>(mean[cell] + sums.pull);
        args_.deviation[row_ * args_.dim + cell] = static_cast<Real>(sqrt(sums.squares));
    }

    __device__ __forceinline__ Real* at(Real* matrices, int row, int column) const {
        return matrices + (row_ * args_.most + row) * args_.most + column;
    }
    __device__ __forceinline__ void put(Real* matrices, int row_tile, int row, int column_tile, int column,
                                        double value) const {
        row += row_tile * kTile;
        column += column_tile * kTile;
        if (row < args_.most && column < args_.most) *at(matrices, row, column) = static_cast<Real>(value);
    }

    const Lane& lane_;
    const GaussianWhitening<Real>& args_;
    std::int32_t* status_;
    std::int64_t row_;
    const WindowMemory& window_;
    int dim_, count_;
};

// `shared`: layout.shared_bytes, on 16 bytes.
template <typename Real, class Lane>
__device__ __forceinline__ void gaussian_whitening_block(const Lane& lane, const WhiteningJob<Real>& job,
                                                         double* shared) {
    const GaussianWhitening<Real>& args = job.call.args;
    const int dim = static_cast<int>(args.dim);
    const WindowMemory window = window_memory(shared, dim);
    double* tiles = shared + window_bytes(dim) / 8;
    double* scratch = static_cast<double*>(job.call.scratch) + lane.block() * job.layout.scratch_values;
    for (std::int64_t row = lane.block(); row < args.rows; row += lane.blocks()) {
        const std::uint8_t* mask = args.missing + row * args.missing_stride;
        list_cells(lane, mask, dim, window);
        copy_seen(lane, args.x + row * args.x_stride, mask, args.mean + row * args.mean_stride, dim, window,
                  args.filled + row * args.dim, args.deviation + row * args.dim);
        lane.sync_block();
        const WhiteningWindow<Real, Lane> own(lane, job.call, row, window);
        if (window.numbers[0] > args.most) {
            own.refuse(dim);
        } else {
            own.write_cells();
            own.write_rest();
            if (own.tiles() > job.layout.tiles) {
                own.solve(scratch);
            } else if (own.tiles() > 0) {
                own.solve(tiles);
            }
        }
        lane.sync_block();  // shared memory is free for the next window
    }
}

}  // namespace fastimpute::cuda
