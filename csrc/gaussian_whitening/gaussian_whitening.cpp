#include "gaussian_whitening/gaussian_whitening.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/errors.h"
#include "common/parallel_for.h"
#include "common/scratch.h"
#include "dispatch.h"

namespace fastimpute {
namespace {

constexpr const char* kOp = "gaussian_whitening";

// All cells of a window, the missing ones first, each part in order. Returns how many are missing.
std::int64_t missing_first(const std::uint8_t* mask, std::int64_t dim, std::vector<std::int64_t>& cells) {
    cells.resize(dim);
    const std::int64_t count = std::count_if(mask, mask + dim, [](std::uint8_t gone) { return gone != 0; });
    std::int64_t at_missing = 0;
    std::int64_t at_observed = count;
    for (std::int64_t cell = 0; cell < dim; ++cell) cells[mask[cell] ? at_missing++ : at_observed++] = cell;
    return count;
}

// Rows of the identity from `begin` on.
template <typename Real>
void identity_rows(Real* matrix, std::int64_t size, std::int64_t begin) {
    std::fill(matrix + begin * size, matrix + size * size, Real(0));
    for (std::int64_t i = begin; i < size; ++i) matrix[i * size + i] = Real(1);
}

// What a window's own cells leave of the outputs.
template <typename Real>
void write_rest(const GaussianWhitening<Real>& params, const GapWindow& window) {
    const std::int64_t most = params.most;
    std::memcpy(params.filled + window.row * params.dim, params.x + window.row * params.x_stride,
                static_cast<std::size_t>(params.dim) * sizeof(Real));
    std::fill_n(params.deviation + window.row * params.dim, params.dim, Real(0));
    std::copy_n(window.cells, most, params.cells + window.row * most);
    for (std::int64_t i = 0; i < most; ++i) params.real[window.row * most + i] = i < window.count;
    identity_rows(params.factor + window.row * most * most, most, window.count);
    identity_rows(params.inverse + window.row * most * most, most, window.count);
}

[[noreturn]] void throw_singular(const GapWindow& window, std::int64_t pivot) {
    throw std::invalid_argument(std::string(kOp) + ": precision must be positive definite, but in window " +
                                std::to_string(window.row) + " the pivot of cell " +
                                std::to_string(window.cells[pivot]) + " is not positive");
}

template <typename Real, typename Kernel>
void run_window(const GaussianWhitening<Real>& params, std::int64_t row, std::vector<std::int64_t>& cells,
                const Kernel& kernel) {
    const std::int64_t count = missing_first(params.missing + row * params.missing_stride, params.dim, cells);
    if (count > params.most) throw_invalid(kOp, "most", "that of all windows", static_cast<long long>(params.most));
    const GapWindow window{row, cells.data(), count};
    write_rest(params, window);
    if (count == 0) return;
    const std::int64_t doubles = WhiteningPlan::of(count).scratch(params.dim);
    const std::int64_t pivot = kernel(params, window, reinterpret_cast<double*>(thread_scratch(2 * doubles)));
    if (pivot >= 0) throw_singular(window, pivot);
}

template <typename Real, typename Kernel>
void run(const GaussianWhitening<Real>& params, int threads, const Kernel& kernel) {
    check_gaussian_whitening(params);
    const std::int64_t grain = std::max<std::int64_t>(1, 256 / params.dim);
    parallel_for(0, params.rows, grain, threads, [&](std::int64_t first, std::int64_t last, int) {
        std::vector<std::int64_t> cells;
        for (std::int64_t row = first; row < last; ++row) run_window(params, row, cells, kernel);
    });
}

}  // namespace

void gaussian_whitening(Isa isa, const GaussianWhitening<float>& params, int threads) {
    run(params, threads, kernels(isa).gaussian_whitening_window);
}

void gaussian_whitening_ref_f64(const GaussianWhitening<double>& params) {
    run(params, 1, ref::gaussian_whitening_window<double>);
}

}  // namespace fastimpute
