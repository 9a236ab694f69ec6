#pragma once

#include "common/masked_window.cuh"
#include "gaussian_conditional/gaussian_conditional_cuda.h"

// One window to a block at a time. With A = P_mm = L L^T, b = -P_mo (x_o - mu_o) and C = I, or A = S_oo, b = x_o - mu_o
// and C = S_om, the mean is mu_m + C^T A^-1 b, and the columns of Y = L^-1 C have the squares that the variance is made
// of. A warp takes eight missing cells at a time, as a row of tiles of Y^T.
namespace fastimpute::cuda {

// Percent of the cells missing beyond which the covariance is cheaper.
inline constexpr std::int64_t kCovarianceShare = 58;

template <typename Real>
constexpr bool from_covariance(const GaussianConditional<Real>& args, int missing) {
    return args.precision == nullptr || (args.covariance != nullptr && 100 * missing > kCovarianceShare * args.dim);
}

// Rows that may have to be factorised in a window, whatever its mask.
constexpr int most_pivots(int dim, bool covariance, bool precision) {
    if (!covariance || !precision) return dim;
    const int missing = static_cast<int>(dim * kCovarianceShare / 100);
    return missing > dim - missing - 1 ? missing : dim - missing - 1;
}

constexpr FactorLayout conditional_layout(std::int64_t dim, bool covariance, bool precision, int shared_limit) {
    const int cells = static_cast<int>(dim);
    return factor_layout(cells, most_pivots(cells, covariance, precision), shared_limit);
}

template <typename Real>
struct ConditionalJob {
    GaussianConditionalCuda<Real> call;
    FactorLayout layout;
};

struct NoSink {
    __device__ void diagonal(int, const Fragment&) const {}
    __device__ void below(int, int, const Fragment&) const {}
};

template <typename Real, class Lane>
class ConditionalWindow {
  public:
    __device__ ConditionalWindow(const Lane& lane, const GaussianConditionalCuda<Real>& call, std::int64_t row,
                                 const WindowMemory& window)
        : lane_(lane), args_(call.args), status_(call.status + row), row_(row), window_(window) {
        dim_ = static_cast<int>(args_.dim);
        count_ = window.numbers[0];
        covariance_ = from_covariance(args_, count_);
        matrix_ = covariance_ ? args_.covariance : args_.precision;
        pivots_ = covariance_ ? window.seen : window.missing;
        pivot_count_ = covariance_ ? dim_ - count_ : count_;
    }

    __device__ int tiles() const { return tiles_of(pivot_count_); }

    // Ends with the results written, by a barrier where the window has something missing.
    __device__ __forceinline__ void solve(double* tiles_memory) const {
        const TileFactor<Lane> factor(lane_, tiles_memory, tiles());
        factor.clear_right();
        lane_.sync_block();
        if (covariance_) {
            for (int at = lane_.thread(); at < pivot_count_; at += lane_.threads())
                factor.right(at) = window_.centred[pivots_[at]];
        } else {
            right_from_rows(lane_, factor, matrix_, dim_, pivots_, pivot_count_, window_.centred);
        }
        lane_.sync_block();
        const auto source = [&](int row, int column, Fragment& tile) {
            gather_tile(factor, matrix_, dim_, pivots_, pivot_count_, row, pivots_, pivot_count_, column, true, tile);
        };
        factor.factorise(source, NoSink{}, window_.numbers + 1);
        const int bad = window_.numbers[1];
        if (bad < 0) {
            for (int row = factor.warp(); row < tiles_of(count_); row += factor.warps()) eight_cells(factor, row);
        } else if (lane_.thread() == 0) {
            *status_ = pivots_[bad] + (covariance_ ? dim_ : 0);
        }
    }

  private:
    __device__ __forceinline__ void eight_cells(const TileFactor<Lane>& factor, int row) const {
        const auto source = [&](int column, Fragment& tile) {
            if (covariance_) {
                gather_tile(factor, matrix_, dim_, window_.missing, count_, row, pivots_, pivot_count_, column, false,
                            tile);
            } else {
                identity_tile(factor, row, column, tile);
            }
        };
        CellSums sums;
        const auto take = [&](int column, const Fragment& tile) { sums.add(factor, column, tile); };
        factor.solve_row(covariance_ ? 0 : row, source, take);  // L^-1 is zero above
        sums.finish(lane_);
        const int at = row * kTile + factor.row();
        if (at >= count_ || lane_.thread() % 4 != 0) return;
        const int cell = window_.missing[at];
        args_.filled[row_ * args_.filled_stride + cell] = static_cast<Real>(args_.mean[cell] + sums.pull);
        if (args_.deviation == nullptr) return;
        const double prior = covariance_ ? matrix_[static_cast<std::int64_t>(cell) * (dim_ + 1)] : 0.0;
        const double variance = covariance_ ? prior - sums.squares : sums.squares;
        args_.deviation[row_ * args_.deviation_stride + cell] = static_cast<Real>(sqrt(fmax(variance, 0.0)));
    }

    const Lane& lane_;
    const GaussianConditional<Real>& args_;
    std::int32_t* status_;
    std::int64_t row_;
    const WindowMemory& window_;
    const double* matrix_;
    const std::uint16_t* pivots_;
    int dim_, count_, pivot_count_;
    bool covariance_;
};

// `shared`: layout.shared_bytes, on 16 bytes.
template <typename Real, class Lane>
__device__ __forceinline__ void gaussian_conditional_block(const Lane& lane, const ConditionalJob<Real>& job,
                                                           double* shared) {
    const GaussianConditional<Real>& args = job.call.args;
    const int dim = static_cast<int>(args.dim);
    const WindowMemory window = window_memory(shared, dim);
    double* tiles = shared + window_bytes(dim) / 8;
    double* scratch = static_cast<double*>(job.call.scratch) + lane.block() * job.layout.scratch_values;
    for (std::int64_t row = lane.block(); row < args.rows; row += lane.blocks()) {
        const std::uint8_t* mask = args.missing + row * args.missing_stride;
        list_cells(lane, mask, dim, window);
        copy_seen(lane, args.x + row * args.x_stride, mask, args.mean, dim, window,
                  args.filled + row * args.filled_stride,
                  args.deviation != nullptr ? args.deviation + row * args.deviation_stride : nullptr);
        lane.sync_block();
        const ConditionalWindow<Real, Lane> own(lane, job.call, row, window);
        if (window.numbers[0] > 0) {
            own.tiles() <= job.layout.tiles ? own.solve(tiles) : own.solve(scratch);
        }
        lane.sync_block();  // shared memory is free for the next window
    }
}

}  // namespace fastimpute::cuda
