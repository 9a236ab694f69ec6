#pragma once

#include "common/device.cuh"

// Cholesky factorisation of one small matrix by one block, in double on the tensor cores, left-looking in tiles of 8 x
// 8: what one multiplication takes. A = L L^T; beyond its last row the matrix is continued by the identity.
//
// Everything is rows of tiles that are solved from the right: row I of L is (A_I - earlier tiles) L_JJ^-T, tile by
// tile; a right-hand side b as one more row becomes (L^-1 b)^T; rows of C^T become those of (L^-1 C)^T.
namespace fastimpute::cuda {

inline constexpr int kTile = 8;
inline constexpr int kTileValues = kTile * kTile;
inline constexpr double kLeastPivot = 1e-13;  // of the diagonal

constexpr int tiles_of(int cells) { return (cells + kTile - 1) / kTile; }

// Tiles of a matrix of so many rows of tiles: the lower triangle, the right-hand side, a row for each warp.
constexpr int factor_tiles(int tiles, int warps) { return tiles * (tiles + 1) / 2 + tiles * (1 + warps); }

// What a lane holds of a tile: row lane / 4, columns 2 (lane % 4) + {0, 1}.
using Fragment = double[2];

template <class Lane>
class TileFactor {
  public:
    // `tiles`: room for factor_tiles(count, warps) * kTileValues doubles, on 16 bytes.
    __device__ TileFactor(const Lane& lane, double* tiles, int count)
        : lane_(lane), tiles_(tiles), count_(count), warp_(lane.thread() / kWarp), warps_(lane.threads() / kWarp) {
        const int own = lane.thread() % kWarp;
        row_ = own / 4;
        column_ = own % 4;
    }

    __device__ int count() const { return count_; }
    __device__ int warp() const { return warp_; }
    __device__ int warps() const { return warps_; }
    __device__ int row() const { return row_; }
    __device__ int column(int i) const { return 2 * column_ + i; }

    // Element `at` of the right-hand side, for factorise; of the solved one behind it.
    __device__ double& right(int at) const { return *element(right_tile(at / kTile), 0, at % kTile); }
    __device__ void clear_right() const {
        for (int at = lane_.thread(); at < count_ * kTileValues; at += lane_.threads()) right_tile(0)[at] = 0.0;
    }

    // source(I, J, tile) gives A; sink.diagonal(J, tile) gets L_JJ^-1 in the lower triangle and L_JJ^T above it,
    // sink.below(I, J, tile) gets L_IJ. `bad`, of the block, -1 before: the first row whose pivot is not positive. Ends
    // with a barrier.
    template <class Source, class Sink>
    __device__ __forceinline__ void factorise(const Source& source, const Sink& sink, int* bad) const {
        for (int step = 0; step < count_; ++step) {
            if (warp_ == 0) diagonal(step, source, sink, bad);
            // The other warps bring the rows below to where the diagonal is needed, meanwhile.
            const int others = warps_ > 1 ? warps_ - 1 : 1;
            if (warp_ > 0 || warps_ == 1) {
                for (int row = step + (warps_ > 1 ? warp_ : 1); row <= count_; row += others) reduce(row, step, source);
            }
            lane_.sync_block();
            for (int row = step + 1 + warp_; row <= count_; row += warps_) {
                Fragment tile;
                times_inverse(tile_of(row, step), step, tile);
                lane_.sync_warp();
                store(tile_of(row, step), tile);
                if (row < count_) sink.below(row, step, tile);
            }
            lane_.sync_block();
        }
    }

    // One row of tiles of (L^-1 C)^T, by one warp: source(J, tile) gives that of C^T from tile `first` on, take(J,
    // tile) gets the result's.
    template <class Source, class Take>
    __device__ __forceinline__ void solve_row(int first, const Source& source, const Take& take) const {
        double* panel = right_tile(count_ * (1 + warp_));
        for (int step = first; step < count_; ++step) {
            Fragment tile, products = {0.0, 0.0};
            source(step, tile);
            for (int term = first; term < step; ++term)
                add_product(products, panel + term * kTileValues, tile_of(step, term));
            subtract(tile, products);
            double* place = panel + step * kTileValues;
            store(place, tile);
            lane_.sync_warp();
            times_inverse(place, step, tile);
            lane_.sync_warp();
            store(place, tile);
            lane_.sync_warp();
            take(step, tile);
        }
    }

  private:
    // Where the elements of a tile lie: rows 2, 3, 6 and 7 have their halves exchanged, which keeps banks apart.
    static __device__ __forceinline__ double* element(double* tile, int row, int column) {
        return tile + kTile * row + (column ^ (row & 2) << 1);
    }
    __device__ __forceinline__ double* right_tile(int at) const {
        return tiles_ + (count_ * (count_ + 1) / 2 + at) * kTileValues;
    }
    // Row count() is the right-hand side's.
    __device__ __forceinline__ double* tile_of(int row, int column) const {
        return tiles_ + (row * (row + 1) / 2 + column) * kTileValues;
    }

    __device__ __forceinline__ void store(double* tile, const Fragment& values) const {
        double* place = element(tile, row_, 2 * column_);
        place[0] = values[0];
        place[1] = values[1];
    }

    // sum += left above^T. Sums begin at zero: what they are taken from may still be on its way from memory.
    __device__ __forceinline__ void add_product(Fragment& sum, double* left, double* above) const {
#pragma unroll
        for (int half = 0; half < kTile; half += kTile / 2)
            lane_.multiply(sum, *element(left, row_, half + column_), *element(above, row_, half + column_));
    }
    static __device__ __forceinline__ void subtract(Fragment& from, const Fragment& what) {
        from[0] -= what[0];
        from[1] -= what[1];
    }

    // result = tile L_JJ^-T.
    __device__ __forceinline__ void times_inverse(double* tile, int step, Fragment& result) const {
        result[0] = result[1] = 0.0;
        add_product(result, tile, tile_of(step, step));
    }

    // A_IJ less the products of earlier tiles, to where L_IJ will be.
    template <class Source>
    __device__ __forceinline__ void reduce(int row, int step, const Source& source) const {
        Fragment tile, products = {0.0, 0.0};
        if (row < count_) {
            source(row, step, tile);
        } else {
            tile[0] = *element(tile_of(row, step), row_, 2 * column_);
            tile[1] = *element(tile_of(row, step), row_, 2 * column_ + 1);
        }
        for (int term = 0; term < step; ++term) add_product(products, tile_of(row, term), tile_of(step, term));
        subtract(tile, products);
        store(tile_of(row, step), tile);
    }

    template <class Source, class Sink>
    __device__ __forceinline__ void diagonal(int step, const Source& source, const Sink& sink, int* bad) const {
        Fragment tile, products = {0.0, 0.0};
        source(step, step, tile);
        for (int term = 0; term < step; ++term) add_product(products, tile_of(step, term), tile_of(step, term));
        const double least = kLeastPivot * on_diagonal(tile);
        subtract(tile, products);
        eliminate(tile);
        const double pivot = on_diagonal(tile);
        const std::uint32_t refused = lane_.add(0xFFFFFFFFu, column_ == 0 && !(pivot > least) ? 1u << row_ : 0u);
        if (refused != 0 && lane_.thread() == 0 && *bad < 0) *bad = step * kTile + count_bits(~refused & (refused - 1));
        const double scale = 1.0 / sqrt(pivot);
        Fragment inverse;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            tile[i] = column(i) == row_ ? scale : tile[i] * scale;
            inverse[i] = column(i) <= row_ ? tile[i] : 0.0;
        }
        store(tile_of(step, step), inverse);
        sink.diagonal(step, tile);
    }

    // The diagonal element of a lane's row.
    __device__ __forceinline__ double on_diagonal(const Fragment& tile) const {
        return lane_.shuffle(0xFFFFFFFFu, row_ & 1 ? tile[1] : tile[0], 4 * row_ + row_ / 2);
    }

    // M below the diagonal, M A on and above it, with M unit lower triangular such that M A is upper triangular. Both
    // share the tile: a step clears a column of A below the diagonal, and fills that of M.
    __device__ __forceinline__ void eliminate(Fragment& tile) const {
#pragma unroll
        for (int step = 0; step + 1 < kTile; ++step) {
            const double pivot = lane_.shuffle(0xFFFFFFFFu, tile[step % 2], 4 * step + step / 2);
            const double down = lane_.shuffle(0xFFFFFFFFu, tile[step % 2], 4 * row_ + step / 2);
            const double share = down * (1.0 / pivot);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const double across = lane_.shuffle(0xFFFFFFFFu, tile[i], 4 * step + column_);
                const double moved = column(i) == step ? -share : tile[i] - share * across;
                tile[i] = row_ > step ? moved : tile[i];
            }
        }
    }

    const Lane& lane_;
    double* tiles_;
    int count_, warp_, warps_, row_, column_;
};

}  // namespace fastimpute::cuda
