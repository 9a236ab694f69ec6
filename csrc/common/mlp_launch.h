#pragma once

#include <algorithm>
#include <string>

#include "common/launch.h"
#include "common/mlp_checks.h"
#include "common/mlp_tile.cuh"

// What launching a network kernel needs on the host.
namespace fastimpute::cuda {

// Particles (rows, dim), their modulation and the pack, as far as the host can tell.
inline void check_network_call(const char* op, Head head, std::int64_t dim, std::int64_t rows, const float* x,
                               std::int64_t x_stride, const Modulation<float>& modulation, const void* pack) {
    mlp_pack_bytes(head, dim);
    check_rows(op, rows);
    if (rows > kMostRows) throw_invalid(op, "rows", "at most 2^30", static_cast<long long>(rows));
    check_matrix(op, "x", x, rows, x_stride, dim);
    check_matrix(op, "modulation", modulation.values, rows, 4 * kHidden, 4 * kHidden);
    if (rows > 0 && !aligned(modulation.values, 8)) throw_invalid(op, "modulation", "on 8 bytes", "another address");
    if (rows > 0 && modulation.index == nullptr && modulation.rows != 1)
        throw_invalid(op, "modulation_rows", "1 without modulation_index", static_cast<long long>(modulation.rows));
    if (pack == nullptr || !aligned(pack, 16)) throw_invalid(op, "pack", "on 16 bytes", "another address");
}

inline void check_layout(const char* op, const Layout& layout) {
    if (layout.warps == 0)
        throw_invalid(op, "device", "one with 152 KB of shared memory for a block",
                      static_cast<long long>(shared_limit()));
}

// Up to `most` blocks, fewer where there are fewer tiles.
template <class Job>
void launch_blocks(const char* op, void (*kernel)(Job), const Layout& layout, const Job& job, std::int64_t most,
                   cudaStream_t stream) {
    check_launch(op, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, layout.shared_bytes));
    const std::int64_t block_rows = layout.warps * kTileRows;
    const std::int64_t tiles = (job.args.rows + block_rows - 1) / block_rows;
    const auto blocks = static_cast<unsigned>(std::min(tiles, most));
    kernel<<<blocks, layout.warps * kWarp, layout.shared_bytes, stream>>>(job);
    check_launch(op, cudaGetLastError());
}

// One block to a multiprocessor.
template <class Job>
void launch_network(const char* op, void (*kernel)(Job), const Layout& layout, const Job& job, cudaStream_t stream) {
    launch_blocks(op, kernel, layout, job, multiprocessors(op), stream);
}

}  // namespace fastimpute::cuda
