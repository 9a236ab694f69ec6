#pragma once

#include "common/aligned.h"
#include "common/device.cuh"

// Neighbouring cells of a row, which move in one access where rows allow it.
namespace fastimpute::cuda {

template <typename T, int kWide>
struct alignas(sizeof(T) * kWide) Cells {
    T cell[kWide];
};

template <typename T, int kWide>
__device__ __forceinline__ Cells<T, kWide> load_cells(const T* source) {
    return *reinterpret_cast<const Cells<T, kWide>*>(source);
}

template <typename T, int kWide>
__device__ __forceinline__ void store_cells(T* target, const Cells<T, kWide>& cells) {
    *reinterpret_cast<Cells<T, kWide>*>(target) = cells;
}

// Of cells of which only the first `left` exist: those one by one, the others are zero and stay unwritten.
template <typename T, int kWide>
__device__ __forceinline__ Cells<T, kWide> load_cells_singly(const T* source, std::int64_t left) {
    Cells<T, kWide> cells;
#pragma unroll
    for (int i = 0; i < kWide; ++i) cells.cell[i] = i < left ? source[i] : T{};
    return cells;
}

template <typename T, int kWide>
__device__ __forceinline__ void store_cells_singly(T* target, const Cells<T, kWide>& cells, std::int64_t left) {
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
        if (i < left) target[i] = cells.cell[i];
    }
}

// The same, in one access where all exist.
template <typename T, int kWide>
__device__ __forceinline__ Cells<T, kWide> load_cells(const T* source, std::int64_t left) {
    return left >= kWide ? load_cells<T, kWide>(source) : load_cells_singly<T, kWide>(source, left);
}

template <typename T, int kWide>
__device__ __forceinline__ void store_cells(T* target, const Cells<T, kWide>& cells, std::int64_t left) {
    left >= kWide ? store_cells(target, cells) : store_cells_singly(target, cells, left);
}

template <typename T, int kWide>
__device__ __forceinline__ bool any_of(const Cells<T, kWide>& cells) {
    bool any = false;
#pragma unroll
    for (int i = 0; i < kWide; ++i) any |= cells.cell[i] != 0;
    return any;
}

// Whether rows of `stride` cells that begin at `first` move kWide cells at a time.
template <int kWide, typename T>
bool wide_rows(const T* first, std::int64_t stride) {
    return stride % kWide == 0 && aligned(first, kWide * sizeof(T));
}

}  // namespace fastimpute::cuda
