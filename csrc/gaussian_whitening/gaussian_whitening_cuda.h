#pragma once

#include <cstdint>

#include "gaussian_whitening/gaussian_whitening.h"

namespace fastimpute::cuda {

// `gaussian_whitening` on the current device: addresses are the device's, `stream` is a cudaStream_t. Same bits for any
// split of the rows with one `most`. Windows of 1 to 1024 cells.
template <typename Real>
struct GaussianWhiteningCuda {
    GaussianWhitening<Real> args;
    // (rows), negative before: receives the cell whose pivot is not positive, or dim where more than `most` are
    // missing.
    std::int32_t* status = nullptr;
    void* scratch = nullptr;  // for this call alone, on 16 bytes
    std::int64_t scratch_bytes = 0;
};
// What a call needs: 0 where every window's matrix fits into shared memory.
std::int64_t gaussian_whitening_scratch(std::int64_t rows, std::int64_t dim, std::int64_t most);

void gaussian_whitening(const GaussianWhiteningCuda<float>& call, std::uintptr_t stream);
void gaussian_whitening(const GaussianWhiteningCuda<double>& call, std::uintptr_t stream);

}  // namespace fastimpute::cuda
