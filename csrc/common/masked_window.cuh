#pragma once

#include "common/tile_factor.cuh"

// A masked Gaussian window in a block's shared memory: its cells by mask, and what is observed less the mean.
namespace fastimpute::cuda {

inline constexpr std::int64_t kMostCells = 1024;  // of a window
inline constexpr int kMostFactorThreads = 256;    // of a block
inline constexpr int kFactorWarps = 16;           // of a multiprocessor, as registers allow

struct WindowMemory {
    double* centred;         // dim: x - mean, zero where missing
    std::uint16_t* missing;  // dim: the missing cells in order
    std::uint16_t* seen;     // dim: the others in order
    int* numbers;            // how many are missing; the first row whose pivot is not positive
};

// Bytes, behind which tiles may begin.
constexpr int window_bytes(int dim) { return (dim * (8 + 2 * 2) + 2 * 4 + 15) / 16 * 16; }

__device__ __forceinline__ WindowMemory window_memory(double* shared, int dim) {
    auto* cells = reinterpret_cast<std::uint16_t*>(shared + dim);
    return {shared, cells, cells + dim, reinterpret_cast<int*>(cells + 2 * dim)};
}

// Lists the cells; by the first warp. The caller sets the barrier.
template <class Lane>
__device__ __forceinline__ void list_cells(const Lane& lane, const std::uint8_t* mask, int dim,
                                           const WindowMemory& window) {
    if (lane.thread() >= kWarp) return;
    int before = 0;
    for (int first = 0; first < dim; first += kWarp) {
        const int cell = first + lane.thread();
        const bool missing = cell < dim && mask[cell] != 0;
        const std::uint32_t word = lane.add(0xFFFFFFFFu, missing ? 1u << lane.thread() : 0u);
        const int place = before + count_bits(word & ((1u << lane.thread()) - 1));
        if (missing) window.missing[place] = static_cast<std::uint16_t>(cell);
        if (!missing && cell < dim) window.seen[cell - place] = static_cast<std::uint16_t>(cell);
        before += count_bits(word);
    }
    if (lane.thread() == 0) {
        window.numbers[0] = before;
        window.numbers[1] = -1;
    }
}

// Copies the observed cells, and lays x - mean aside. deviation may be null.
template <class Lane, typename Real>
__device__ __forceinline__ void copy_seen(const Lane& lane, const Real* x, const std::uint8_t* mask, const double* mean,
                                          int dim, const WindowMemory& window, Real* filled, Real* deviation) {
    for (int cell = lane.thread(); cell < dim; cell += lane.threads()) {
        const bool missing = mask[cell] != 0;
        window.centred[cell] = missing ? 0.0 : static_cast<double>(x[cell]) - mean[cell];
        if (missing) continue;
        filled[cell] = x[cell];
        if (deviation != nullptr) deviation[cell] = Real(0);
    }
}

// right = -matrix[cells] centred; eight cells at a time to a warp, four lanes to a cell.
template <class Lane>
__device__ __forceinline__ void right_from_rows(const Lane& lane, const TileFactor<Lane>& factor, const double* matrix,
                                                int dim, const std::uint16_t* cells, int count, const double* centred) {
    const int part = lane.thread() % 4;
    for (int first = factor.warp() * kTile; first < count; first += factor.warps() * kTile) {
        const int at = first + factor.row();
        const double* row = matrix + static_cast<std::int64_t>(at < count ? cells[at] : 0) * dim;
        double sum = 0.0;
#pragma unroll 8
        for (int cell = part; cell < dim; cell += 4) sum += row[cell] * centred[cell];
        sum += lane.shuffle_xor(0xFFFFFFFFu, sum, 1);
        sum += lane.shuffle_xor(0xFFFFFFFFu, sum, 2);
        if (at < count && part == 0) factor.right(at) = -sum;
    }
}

// A tile of matrix[rows, columns]; beyond either list zero, but for ones on the diagonal where `identity`.
template <class Lane>
__device__ __forceinline__ void gather_tile(const TileFactor<Lane>& factor, const double* matrix, int dim,
                                            const std::uint16_t* rows, int row_count, int row_tile,
                                            const std::uint16_t* columns, int column_count, int column_tile,
                                            bool identity, Fragment& tile) {
    const int row = row_tile * kTile + factor.row();
    const double* source = matrix + static_cast<std::int64_t>(row < row_count ? rows[row] : 0) * dim;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int column = column_tile * kTile + factor.column(i);
        const bool inside = row < row_count && column < column_count;
        tile[i] = inside ? source[columns[column]] : identity && row == column ? 1.0 : 0.0;
    }
}

// A tile of the identity.
template <class Lane>
__device__ __forceinline__ void identity_tile(const TileFactor<Lane>& factor, int row_tile, int column_tile,
                                              Fragment& tile) {
#pragma unroll
    for (int i = 0; i < 2; ++i) tile[i] = row_tile == column_tile && factor.row() == factor.column(i) ? 1.0 : 0.0;
}

// What the rows of Y^T, Y = L^-1 C, are for: sums of their squares, and their products with L^-1 b.
struct CellSums {
    double squares = 0.0;
    double pull = 0.0;

    template <class Lane>
    __device__ __forceinline__ void add(const TileFactor<Lane>& factor, int column_tile, const Fragment& tile) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            squares += tile[i] * tile[i];
            pull += tile[i] * factor.right(column_tile * kTile + factor.column(i));
        }
    }
    // Over the four lanes of a row.
    template <class Lane>
    __device__ __forceinline__ void finish(const Lane& lane) {
#pragma unroll
        for (int distance = 1; distance < 4; distance *= 2) {
            squares += lane.shuffle_xor(0xFFFFFFFFu, squares, distance);
            pull += lane.shuffle_xor(0xFFFFFFFFu, pull, distance);
        }
    }
};

// How a grid of blocks shares the chip: one window to a block, its tiles in shared memory up to `tiles` rows of them,
// in memory of the block's own beyond.
struct FactorLayout {
    int warps;
    int blocks;  // of a multiprocessor
    int tiles;
    int shared_bytes;
    std::int64_t scratch_values;  // doubles of a block
};

// For windows of `dim` cells of which up to `most` rows are factorised: as many blocks as leave room for two fifths of
// the cells.
constexpr FactorLayout factor_layout(int dim, int most, int shared_limit) {
    const int warps = dim <= 96 ? 1 : dim <= 192 ? 2 : 8;
    const int wanted = tiles_of(most < dim * 2 / 5 ? most : dim * 2 / 5);
    const int fixed = window_bytes(dim);
    for (int blocks = kFactorWarps / warps;; --blocks) {
        const int room = ((shared_limit + 1024) / blocks - 1024 - fixed) / (kTileValues * 8);
        int tiles = 0;
        while (tiles < tiles_of(most) && factor_tiles(tiles + 1, warps) <= room) ++tiles;
        if (tiles < wanted && blocks > 1) continue;
        const bool all = tiles >= tiles_of(most);
        const std::int64_t scratch = all ? 0 : std::int64_t{factor_tiles(tiles_of(most), warps)} * kTileValues;
        return {warps, blocks, tiles, fixed + factor_tiles(tiles, warps) * kTileValues * 8, scratch};
    }
}

}  // namespace fastimpute::cuda
