#pragma once

#include <cstdint>

#include "common/cpu_features.h"

namespace fastimpute {

// Conditional mean and standard deviation of the missing cells of Gaussian windows x (rows, dim), each with its own
// mask: with P = covariance^-1, m the missing and o the observed cells,
//     mean_m = mu_m - P_mm^-1 P_mo (x_o - mu_o)              deviation = sqrt(diag(P_mm^-1))
//            = mu_m + S_mo S_oo^-1 (x_o - mu_o)                        = sqrt(diag(S_mm - S_mo S_oo^-1 S_om))
// Both matrices are (dim, dim), dense, symmetric, in double; one of them may be null. Values of x at missing cells are
// never read into the result. Observed cells are copied bit for bit and have deviation 0.
template <typename Real>
struct GaussianConditional {
    std::int64_t rows = 0;
    std::int64_t dim = 0;
    const Real* x = nullptr;
    std::int64_t x_stride = 0;
    const std::uint8_t* missing = nullptr;
    std::int64_t missing_stride = 0;
    const double* mean = nullptr;
    const double* covariance = nullptr;
    const double* precision = nullptr;
    Real* filled = nullptr;
    std::int64_t filled_stride = 0;
    Real* deviation = nullptr;  // null: not wanted
    std::int64_t deviation_stride = 0;
};

// Windows with one mask: they share the factorisation.
struct WindowGroup {
    const std::int64_t* windows = nullptr;  // row numbers, `count` of them
    std::int64_t count = 0;
    const std::int64_t* missing = nullptr;  // cells, ascending
    std::int64_t missing_count = 0;
    const std::int64_t* observed = nullptr;
    std::int64_t observed_count = 0;
};

// Sizes of a group's work, the same for every instruction set. Everything is padded to whole vectors.
struct GroupPlan {
    static constexpr std::int64_t kPad = 8;
    static constexpr std::int64_t kTileColumns = 24;

    bool from_covariance = false;
    bool spread = false;
    std::int64_t pivots = 0;   // rows that are factorised
    std::int64_t cross = 0;    // columns of S_om carried along
    std::int64_t windows = 0;  // columns of right-hand sides
    std::int64_t stride = 0;   // of the matrix

    static std::int64_t padded(std::int64_t size) { return (size + kPad - 1) / kPad * kPad; }

    // The cheaper of the two ways, which depends on the mask alone: with the spread the covariance also has to solve
    // for all missing columns, and pays when some 3/5 of the cells are missing.
    template <typename Real>
    static GroupPlan of(const GaussianConditional<Real>& params, const WindowGroup& group) {
        GroupPlan plan;
        plan.spread = params.deviation != nullptr;
        const std::int64_t share = plan.spread ? 58 : 50;
        plan.from_covariance = params.precision == nullptr ||
                               (params.covariance != nullptr && 100 * group.missing_count > share * params.dim);
        plan.pivots = padded(plan.from_covariance ? group.observed_count : group.missing_count);
        plan.cross = plan.from_covariance && plan.spread ? padded(group.missing_count) : 0;
        plan.windows = padded(group.count);
        plan.stride = plan.pivots + plan.cross + plan.windows;
        if (plan.stride % 64 == 0) plan.stride += kPad;  // rows a power of two apart would share a cache set
        return plan;
    }

    // Doubles: the matrix, reciprocal pivots, a tile of the inverse, centred windows.
    std::int64_t scratch(std::int64_t dim) const {
        return pivots * (stride + 1 + kTileColumns) + windows * padded(dim) + kPad;
    }
};

// Throws std::invalid_argument naming the argument; what the addresses hold is not looked at.
template <typename Real>
void check_gaussian_conditional(const GaussianConditional<Real>& params);

// Checks the arguments, groups the windows by mask and computes them, spread over `threads`; the bits of a window do
// not depend on `threads` nor on the other windows. Throws std::invalid_argument, naming window and cell, where the
// matrix is not positive definite.
void gaussian_conditional(Isa isa, const GaussianConditional<float>& params, int threads);
void gaussian_conditional_ref_f64(const GaussianConditional<double>& params);

// One group, without checks. Returns -1, or the position among the factorised cells at which the matrix turned out not
// to be positive definite. `scratch`: of the plan, 64-byte aligned.
namespace ref {
template <typename Real>
std::int64_t gaussian_conditional_group(const GaussianConditional<Real>& params, const WindowGroup& group,
                                        const GroupPlan& plan, double* scratch);
}
namespace avx2 {
std::int64_t gaussian_conditional_group(const GaussianConditional<float>& params, const WindowGroup& group,
                                        const GroupPlan& plan, double* scratch);
}
namespace avx512 {
std::int64_t gaussian_conditional_group(const GaussianConditional<float>& params, const WindowGroup& group,
                                        const GroupPlan& plan, double* scratch);
}

}  // namespace fastimpute
