#include <algorithm>
#include <cmath>
#include <vector>

#include "common/factor_ref.h"
#include "gaussian_conditional/gaussian_conditional.h"

namespace fastimpute::ref {
template <typename Real>
std::int64_t gaussian_conditional_group(const GaussianConditional<Real>& params, const WindowGroup& group,
                                        const GroupPlan& plan, double*) {
    const std::int64_t dim = params.dim;
    const double* matrix = plan.from_covariance ? params.covariance : params.precision;
    const std::int64_t* cells = plan.from_covariance ? group.observed : group.missing;
    const std::int64_t size = plan.from_covariance ? group.observed_count : group.missing_count;
    std::vector<double> lower = block(matrix, dim, cells, size);
    const std::int64_t pivot = cholesky(lower, size);
    if (pivot >= 0) return pivot;
    const auto centred = [&](std::int64_t row, std::int64_t cell) {
        return static_cast<double>(params.x[row * params.x_stride + cell]) - params.mean[cell];
    };
    for (std::int64_t w = 0; w < group.count; ++w) {
        const std::int64_t row = group.windows[w];
        std::vector<double> right(size);
        for (std::int64_t i = 0; i < size; ++i) {
            if (plan.from_covariance) {
                right[i] = centred(row, cells[i]);
            } else {
                for (std::int64_t j = 0; j < group.observed_count; ++j)
                    right[i] -= matrix[cells[i] * dim + group.observed[j]] * centred(row, group.observed[j]);
            }
        }
        solve(lower, size, right);
        for (std::int64_t i = 0; i < group.missing_count; ++i) {
            const std::int64_t cell = group.missing[i];
            double value = plan.from_covariance ? 0 : right[i];
            if (plan.from_covariance)
                for (std::int64_t j = 0; j < size; ++j) value += matrix[cell * dim + cells[j]] * right[j];
            params.filled[row * params.filled_stride + cell] = static_cast<Real>(params.mean[cell] + value);
        }
    }
    if (params.deviation == nullptr) return -1;
    for (std::int64_t i = 0; i < group.missing_count; ++i) {
        const std::int64_t cell = group.missing[i];
        std::vector<double> column(size, 0.0);
        double variance = 0;
        if (plan.from_covariance) {
            for (std::int64_t j = 0; j < size; ++j) column[j] = matrix[cell * dim + cells[j]];
            solve(lower, size, column);
            variance = matrix[cell * dim + cell];
            for (std::int64_t j = 0; j < size; ++j) variance -= matrix[cell * dim + cells[j]] * column[j];
        } else {
            column[i] = 1;
            solve(lower, size, column);
            variance = column[i];
        }
        const Real deviation = static_cast<Real>(std::sqrt(std::max(variance, 0.0)));
        for (std::int64_t w = 0; w < group.count; ++w)
            params.deviation[group.windows[w] * params.deviation_stride + cell] = deviation;
    }
    return -1;
}

template std::int64_t gaussian_conditional_group(const GaussianConditional<float>&, const WindowGroup&,
                                                 const GroupPlan&, double*);
template std::int64_t gaussian_conditional_group(const GaussianConditional<double>&, const WindowGroup&,
                                                 const GroupPlan&, double*);

}  // namespace fastimpute::ref
