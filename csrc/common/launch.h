#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/aligned.h"
#include "common/errors.h"

// What launching a kernel needs on the host. Launches allocate nothing and wait for nothing, so that CUDA graphs can
// capture them.
namespace fastimpute::cuda {

inline void check_launch(const char* op, cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(std::string(op) + ": CUDA: " + cudaGetErrorString(status));
}

// Blocks for `work` pieces, `per_block` each.
inline dim3 grid_of(const char* op, std::int64_t work, std::int64_t per_block) {
    const std::int64_t blocks = (work + per_block - 1) / per_block;
    if (blocks > 0x7FFFFFFF) throw_invalid(op, "rows", "fewer", static_cast<long long>(work));
    return dim3(static_cast<unsigned>(blocks));
}

inline cudaStream_t stream_of(std::uintptr_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

inline int device_attribute(const char* op, cudaDeviceAttr which) {
    int device = 0;
    int value = 0;
    check_launch(op, cudaGetDevice(&device));
    check_launch(op, cudaDeviceGetAttribute(&value, which, device));
    return value;
}

inline int multiprocessors(const char* op) { return device_attribute(op, cudaDevAttrMultiProcessorCount); }

// Lets `kernel` have so much dynamic shared memory in a block, and as many blocks of it on a multiprocessor as fit.
template <class Kernel>
void reserve_shared(const char* op, Kernel kernel, int bytes) {
    check_launch(op, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    check_launch(op, cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                          cudaSharedmemCarveoutMaxShared));
}

inline void check_scratch(const char* op, const void* scratch, std::int64_t bytes, std::int64_t needed) {
    if (needed > 0 && (scratch == nullptr || bytes < needed))
        throw_invalid(op, "scratch_bytes", "at least " + std::to_string(needed),
                      static_cast<long long>(scratch == nullptr ? 0 : bytes));
}

}  // namespace fastimpute::cuda
