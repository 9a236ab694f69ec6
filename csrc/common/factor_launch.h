#pragma once

#include <algorithm>

#include "common/launch.h"
#include "common/masked_window.cuh"
#include "common/mlp_pack_cuda.h"

// What launching a kernel that factorises windows needs on the host: a grid that fills the chip once, at most.
namespace fastimpute::cuda {

inline std::int64_t factor_blocks(const char* op, std::int64_t rows, const FactorLayout& layout) {
    return std::min<std::int64_t>(rows, std::int64_t{layout.blocks} * multiprocessors(op));
}

// Bytes of scratch.
inline std::int64_t factor_scratch(const char* op, std::int64_t rows, const FactorLayout& layout) {
    return factor_blocks(op, rows, layout) * layout.scratch_values * 8;
}

inline void check_cells(const char* op, std::int64_t dim) {
    if (dim < 1 || dim > kMostCells) throw_invalid(op, "dim", "in [1, 1024]", static_cast<long long>(dim));
}

template <class Job>
void launch_factor(const char* op, void (*kernel)(Job), std::int64_t rows, const Job& job, std::uintptr_t stream) {
    const FactorLayout& layout = job.layout;
    const int bytes = layout.shared_bytes;
    reserve_shared(op, kernel, bytes);
    const auto blocks = static_cast<unsigned>(factor_blocks(op, rows, layout));
    kernel<<<blocks, layout.warps * kWarp, bytes, stream_of(stream)>>>(job);
    check_launch(op, cudaGetLastError());
}

}  // namespace fastimpute::cuda
