#include "gaussian_conditional/gaussian_conditional.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/errors.h"
#include "common/parallel_for.h"
#include "common/scratch.h"
#include "dispatch.h"

namespace fastimpute {
namespace {

constexpr const char* kOp = "gaussian_conditional";
constexpr std::int64_t kMostWindows = 64;  // of a group: larger ones factorise again, which they hardly notice

template <typename Real>
const std::uint8_t* mask_of(const GaussianConditional<Real>& params, std::int64_t row) {
    return params.missing + row * params.missing_stride;
}

// FNV-1a over words of eight cells, a bit for each; equal masks are told apart from equal hashes by comparing them.
std::uint64_t hash_of(const std::uint8_t* mask, std::int64_t dim) {
    constexpr std::uint64_t kLow = 0x7f7f7f7f7f7f7f7fu;
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (std::int64_t i = 0; i < dim; i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, mask + i, static_cast<std::size_t>(std::min<std::int64_t>(8, dim - i)));
        const std::uint64_t missing = (((word & kLow) + kLow) | word) & ~kLow;  // the top bits of bytes but zero
        hash = (hash ^ (missing >> 7)) * 0x100000001b3u;
    }
    return hash;
}

bool same_mask(const std::uint8_t* left, const std::uint8_t* right, std::int64_t dim) {
    return std::equal(left, left + dim, right, [](std::uint8_t a, std::uint8_t b) { return (a != 0) == (b != 0); });
}

// Rows ordered so that equal masks stand together, and where the groups begin (one more entry than groups).
struct Groups {
    std::vector<std::int64_t> order;
    std::vector<std::int64_t> begin;
};

template <typename Real>
Groups group_by_mask(const GaussianConditional<Real>& params) {
    std::vector<std::uint64_t> hash(params.rows);
    for (std::int64_t row = 0; row < params.rows; ++row) hash[row] = hash_of(mask_of(params, row), params.dim);
    Groups groups;
    groups.order.resize(params.rows);
    std::iota(groups.order.begin(), groups.order.end(), 0);
    std::stable_sort(groups.order.begin(), groups.order.end(),
                     [&](std::int64_t a, std::int64_t b) { return hash[a] < hash[b]; });
    for (std::int64_t at = 0; at < params.rows; ++at) {
        const bool fresh =
            at == 0 || at - groups.begin.back() == kMostWindows ||
            hash[groups.order[at]] != hash[groups.order[at - 1]] ||
            !same_mask(mask_of(params, groups.order[at]), mask_of(params, groups.order[at - 1]), params.dim);
        if (fresh) groups.begin.push_back(at);
    }
    groups.begin.push_back(params.rows);
    return groups;
}

template <typename Real>
void copy_observed(const GaussianConditional<Real>& params, std::int64_t row) {
    std::memcpy(params.filled + row * params.filled_stride, params.x + row * params.x_stride,
                static_cast<std::size_t>(params.dim) * sizeof(Real));
    if (params.deviation != nullptr) std::fill_n(params.deviation + row * params.deviation_stride, params.dim, Real(0));
}

[[noreturn]] void throw_singular(const GroupPlan& plan, const WindowGroup& group, std::int64_t pivot) {
    const char* matrix = plan.from_covariance ? "covariance" : "precision";
    const std::int64_t cell = (plan.from_covariance ? group.observed : group.missing)[pivot];
    throw std::invalid_argument(std::string(kOp) + ": " + matrix + " must be positive definite, but in window " +
                                std::to_string(*std::min_element(group.windows, group.windows + group.count)) +
                                " the pivot of cell " + std::to_string(cell) +
                                " is not positive: give noise > 0, a variance added to every cell");
}

template <typename Real, typename Kernel>
void run_group(const GaussianConditional<Real>& params, const std::int64_t* windows, std::int64_t count,
               std::vector<std::int64_t>& cells, const Kernel& kernel) {
    const std::uint8_t* mask = mask_of(params, windows[0]);
    const std::int64_t missing = std::count_if(mask, mask + params.dim, [](std::uint8_t gone) { return gone != 0; });
    cells.resize(params.dim);
    std::int64_t at_missing = 0;
    std::int64_t at_observed = missing;
    for (std::int64_t cell = 0; cell < params.dim; ++cell) cells[mask[cell] ? at_missing++ : at_observed++] = cell;
    for (std::int64_t i = 0; i < count; ++i) copy_observed(params, windows[i]);
    if (missing == 0) return;
    const WindowGroup group{windows, count, cells.data(), missing, cells.data() + missing, params.dim - missing};
    const GroupPlan plan = GroupPlan::of(params, group);
    auto* scratch = reinterpret_cast<double*>(thread_scratch(2 * plan.scratch(params.dim)));
    const std::int64_t pivot = kernel(params, group, plan, scratch);
    if (pivot >= 0) throw_singular(plan, group, pivot);
}

template <typename Real, typename Kernel>
void run(const GaussianConditional<Real>& params, int threads, const Kernel& kernel) {
    check_gaussian_conditional(params);
    if (params.rows == 0) return;
    const Groups groups = group_by_mask(params);
    const std::int64_t grain = std::max<std::int64_t>(1, 2048 / params.dim);
    const auto count = static_cast<std::int64_t>(groups.begin.size()) - 1;
    parallel_for(0, count, grain, threads, [&](std::int64_t first, std::int64_t last, int) {
        std::vector<std::int64_t> cells;
        for (std::int64_t i = first; i < last; ++i)
            run_group(params, groups.order.data() + groups.begin[i], groups.begin[i + 1] - groups.begin[i], cells,
                      kernel);
    });
}

}  // namespace

void gaussian_conditional(Isa isa, const GaussianConditional<float>& params, int threads) {
    run(params, threads, kernels(isa).gaussian_conditional_group);
}

void gaussian_conditional_ref_f64(const GaussianConditional<double>& params) {
    run(params, 1, ref::gaussian_conditional_group<double>);
}

}  // namespace fastimpute
