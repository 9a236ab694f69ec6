#pragma once

#include <cstdint>

#include "gaussian_conditional/gaussian_conditional.h"

namespace fastimpute::cuda {

// `gaussian_conditional` on the current device: addresses are the device's, `stream` is a cudaStream_t. All arithmetic
// is in double; same bits for any split of the rows. Windows of 1 to 1024 cells.
template <typename Real>
struct GaussianConditionalCuda {
    GaussianConditional<Real> args;
    // (rows), negative before: receives the cell whose pivot is not positive, plus dim where it is the covariance's.
    std::int32_t* status = nullptr;
    void* scratch = nullptr;  // for this call alone, on 16 bytes
    std::int64_t scratch_bytes = 0;
};
// What a call needs, at most: 0 where every window's matrix fits into shared memory.
std::int64_t gaussian_conditional_scratch(std::int64_t rows, std::int64_t dim, bool covariance, bool precision);

void gaussian_conditional(const GaussianConditionalCuda<float>& call, std::uintptr_t stream);
void gaussian_conditional(const GaussianConditionalCuda<double>& call, std::uintptr_t stream);

}  // namespace fastimpute::cuda
