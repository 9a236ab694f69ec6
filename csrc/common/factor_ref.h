#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

// Dense factorisation for the scalar oracles, in plain loops: what common/factor.inl.h is compared with.
namespace fastimpute::ref {

inline constexpr double kLeastPivot = 1e-13;  // of the diagonal

// Lower factor in place; -1, or the pivot that is not positive.
inline std::int64_t cholesky(std::vector<double>& matrix, std::int64_t size) {
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
inline void solve(const std::vector<double>& lower, std::int64_t size, std::vector<double>& right) {
    for (std::int64_t i = 0; i < size; ++i) {
        for (std::int64_t p = 0; p < i; ++p) right[i] -= lower[i * size + p] * right[p];
        right[i] /= lower[i * size + i];
    }
    for (std::int64_t i = size - 1; i >= 0; --i) {
        for (std::int64_t p = i + 1; p < size; ++p) right[i] -= lower[p * size + i] * right[p];
        right[i] /= lower[i * size + i];
    }
}

// L^-1, zeros beyond the diagonal.
inline std::vector<double> inverse_of(const std::vector<double>& lower, std::int64_t size) {
    std::vector<double> inverse(size * size, 0.0);
    for (std::int64_t j = 0; j < size; ++j) {
        for (std::int64_t i = j; i < size; ++i) {
            double sum = i == j ? 1 : 0;
            for (std::int64_t p = j; p < i; ++p) sum -= lower[i * size + p] * inverse[p * size + j];
            inverse[i * size + j] = sum / lower[i * size + i];
        }
    }
    return inverse;
}

// matrix[cells, cells], matrix (dim, dim).
inline std::vector<double> block(const double* matrix, std::int64_t dim, const std::int64_t* cells,
                                 std::int64_t count) {
    std::vector<double> part(count * count);
    for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t j = 0; j < count; ++j) part[i * count + j] = matrix[cells[i] * dim + cells[j]];
    return part;
}

}  // namespace fastimpute::ref
