#pragma once

#include <cstdint>

#include "common/cpu_features.h"

namespace fastimpute {

// White coordinates of Gaussian windows x (rows, dim), each with its own mask: with m the k_w missing and o the
// observed cells of window w, P its precision and L the Cholesky factor of P_mm,
//     filled_m = mu_m - P_mm^-1 P_mo (x_o - mu_o)     factor = L     inverse = L^-1     deviation^2 = diag(P_mm^-1)
// The factors are (rows, most, most), row-major; beyond a window's own cells the identity. All of it is computed in
// double and rounded once. Values of x at missing cells are never read into the result; observed cells are copied bit
// for bit and have deviation 0.
//
// Floors of a window: 2 k_w^3 / 3 FLOPs for the factor and its inverse, 2 k_w dim for P_mo (x_o - mu_o); 8 most^2 bytes
// written, zeros included, and 8 k_w dim of the precision read. Arithmetic outweighs the bytes from some 200 cells on.
template <typename Real>
struct GaussianWhitening {
    std::int64_t rows = 0;
    std::int64_t dim = 0;
    std::int64_t most = 0;  // the largest number of missing cells of a window
    const Real* x = nullptr;
    std::int64_t x_stride = 0;
    const std::uint8_t* missing = nullptr;
    std::int64_t missing_stride = 0;
    const double* mean = nullptr;
    std::int64_t mean_stride = 0;       // 0: one for all windows
    const double* precision = nullptr;  // (dim, dim), symmetric
    Real* filled = nullptr;             // (rows, dim)
    Real* deviation = nullptr;          // (rows, dim)
    std::int64_t* cells = nullptr;      // (rows, most): the missing cells in order, then observed ones in order
    std::uint8_t* real = nullptr;       // (rows, most): which of these are missing
    Real* factor = nullptr;             // (rows, most, most)
    Real* inverse = nullptr;            // (rows, most, most)
};

// A window and its missing cells, ascending.
struct GapWindow {
    std::int64_t row = 0;
    const std::int64_t* cells = nullptr;
    std::int64_t count = 0;
};

// Sizes of a window's work, the same for every instruction set: rows of whole vectors.
struct WhiteningPlan {
    static constexpr std::int64_t kPad = 8;
    static constexpr std::int64_t kTileColumns = 24;

    std::int64_t pivots = 0;
    std::int64_t stride = 0;

    static std::int64_t padded(std::int64_t size) { return (size + kPad - 1) / kPad * kPad; }

    static WhiteningPlan of(std::int64_t count) {
        WhiteningPlan plan;
        plan.pivots = padded(count);
        plan.stride = plan.pivots % 64 == 0 ? plan.pivots + kPad : plan.pivots;  // not a power of two apart
        return plan;
    }

    // Doubles: the matrix, reciprocal pivots, variances, the right-hand side, a tile of the inverse, the centred
    // window.
    std::int64_t scratch(std::int64_t dim) const { return pivots * (stride + 3 + kTileColumns) + padded(dim); }
};

// Throws std::invalid_argument naming the argument; what the addresses hold is not looked at.
template <typename Real>
void check_gaussian_whitening(const GaussianWhitening<Real>& params);

// Checks the arguments and computes the windows, spread over `threads`; the bits of a window do not depend on `threads`
// nor on the other windows. Throws std::invalid_argument, naming window and cell, where the precision is not positive
// definite.
void gaussian_whitening(Isa isa, const GaussianWhitening<float>& params, int threads);
void gaussian_whitening_ref_f64(const GaussianWhitening<double>& params);

// Mean, deviation and the first `count` rows of both factors of a window with at least one missing cell, without
// checks. Returns -1, or the position among its cells at which the precision turned out not to be positive definite.
// `scratch`: of the plan, 64-byte aligned.
namespace ref {
template <typename Real>
std::int64_t gaussian_whitening_window(const GaussianWhitening<Real>& params, const GapWindow& window, double* scratch);
}
namespace avx2 {
std::int64_t gaussian_whitening_window(const GaussianWhitening<float>& params, const GapWindow& window,
                                       double* scratch);
}
namespace avx512 {
std::int64_t gaussian_whitening_window(const GaussianWhitening<float>& params, const GapWindow& window,
                                       double* scratch);
}

}  // namespace fastimpute
