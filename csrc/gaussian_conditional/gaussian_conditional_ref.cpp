#include <algorithm>
#include <cmath>
#include <vector>

#include "gaussian_conditional/gaussian_conditional.h"

namespace fastimpute::ref {
namespace {

constexpr double kLeastPivot = 1e-13;  // of the diagonal

// Lower factor in place; -1, or the pivot that is not positive.
std::int64_t cholesky(std::vector<double>& matrix, std::int64_t size) {
    for (std::int64_t i = 0; i < size; ++i) {
        const double diagonal = matrix[i * size + i];
        for (std::int64_t j = 0; j <= i; ++j) {
            double sum = matrix[i * size + j];
            for (std::int64_t p = 0; p < j; ++p) sum -= matrix[i * size + p] * matrix[j * size + p];
            if (j < i) {
                matrix[i * size + j] = sum / matrix[j * size + j];
            } else if (!(sum > kLeastPivot * diagonal)) {
                return i;
            } else {
                matrix[i * size + i] = std::sqrt(sum);
            }
        }
    }
    return -1;
}

// right <- (L L^T)^-1 right
void solve(const std::vector<double>& lower, std::int64_t size, std::vector<double>& right) {
    for (std::int64_t i = 0; i < size; ++i) {
        for (std::int64_t p = 0; p < i; ++p) right[i] -= lower[i * size + p] * right[p];
        right[i] /= lower[i * size + i];
    }
    for (std::int64_t i = size - 1; i >= 0; --i) {
        for (std::int64_t p = i + 1; p < size; ++p) right[i] -= lower[p * size + i] * right[p];
        right[i] /= lower[i * size + i];
    }
}

std::vector<double> block(const double* matrix, std::int64_t dim, const std::int64_t* cells, std::int64_t count) {
    std::vector<double> part(count * count);
    for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t j = 0; j < count; ++j) part[i * count + j] = matrix[cells[i] * dim + cells[j]];
    return part;
}

}  // namespace

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
