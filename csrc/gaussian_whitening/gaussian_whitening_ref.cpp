#include <cmath>
#include <vector>

#include "common/factor_ref.h"
#include "gaussian_whitening/gaussian_whitening.h"

namespace fastimpute::ref {

template <typename Real>
std::int64_t gaussian_whitening_window(const GaussianWhitening<Real>& params, const GapWindow& window, double*) {
    const std::int64_t dim = params.dim;
    const std::int64_t size = window.count;
    std::vector<double> lower = block(params.precision, dim, window.cells, size);
    const std::int64_t pivot = cholesky(lower, size);
    if (pivot >= 0) return pivot;
    const std::uint8_t* missing = params.missing + window.row * params.missing_stride;
    const Real* x = params.x + window.row * params.x_stride;
    const double* mean = params.mean + window.row * params.mean_stride;
    std::vector<double> right(size, 0.0);
    for (std::int64_t i = 0; i < size; ++i)
        for (std::int64_t j = 0; j < dim; ++j)
            if (!missing[j]) right[i] -= params.precision[window.cells[i] * dim + j] * (double(x[j]) - mean[j]);
    solve(lower, size, right);
    const std::vector<double> inverse = inverse_of(lower, size);
    for (std::int64_t i = 0; i < size; ++i) {
        const std::int64_t cell = window.row * dim + window.cells[i];
        double variance = 0;
        for (std::int64_t p = i; p < size; ++p) variance += inverse[p * size + i] * inverse[p * size + i];
        params.filled[cell] = static_cast<Real>(mean[window.cells[i]] + right[i]);
        params.deviation[cell] = static_cast<Real>(std::sqrt(variance));
        const std::int64_t row = (window.row * params.most + i) * params.most;
        for (std::int64_t j = 0; j < params.most; ++j) {
            params.factor[row + j] = j <= i ? static_cast<Real>(lower[i * size + j]) : Real(0);
            params.inverse[row + j] = j <= i ? static_cast<Real>(inverse[i * size + j]) : Real(0);
        }
    }
    return -1;
}

template std::int64_t gaussian_whitening_window(const GaussianWhitening<float>&, const GapWindow&, double*);
template std::int64_t gaussian_whitening_window(const GaussianWhitening<double>&, const GapWindow&, double*);

}  // namespace fastimpute::ref
