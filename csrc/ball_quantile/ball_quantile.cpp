#include "ball_quantile/ball_quantile.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/parallel_for.h"
#include "dispatch.h"

namespace fastimpute {
namespace {

// The rank-th smallest distance from the mean of the other samples; a NaN among them makes it NaN. Reorders the
// squares.
template <typename Real>
Real radius_of(Real* squares, std::int64_t samples, std::int64_t rank) {
    Real* const end = squares + samples;
    if (Real* const spoilt = std::find_if(squares, end, [](Real square) { return std::isnan(square); }); spoilt != end)
        return *spoilt;
    std::nth_element(squares, squares + (rank - 1), end);
    return std::sqrt(squares[rank - 1]) * (static_cast<Real>(samples) / static_cast<Real>(samples - 1));
}

template <typename Real, typename Windows>
void run(const BallQuantile<Real>& params, std::int64_t begin, std::int64_t end, const Windows& ball_windows) {
    std::vector<Real> squares((end - begin) * params.samples);
    ball_windows(params, begin, end, squares.data());
    for (std::int64_t window = begin; window < end; ++window)
        params.radius[window] =
            radius_of(squares.data() + (window - begin) * params.samples, params.samples, params.rank);
}

}  // namespace

void ball_quantile(Isa isa, const BallQuantile<float>& params, int threads) {
    check_ball_quantile(params);
    // Neighbouring windows whose samples stay in the second-level cache until their distances are taken, beside the
    // next ones.
    constexpr std::int64_t kCellsPerTask = 1 << 16;
    const std::int64_t cells = std::max<std::int64_t>(params.samples * params.dim, 1);
    parallel_for(0, params.windows, kCellsPerTask / cells, threads, [&](std::int64_t begin, std::int64_t end, int) {
        run(params, begin, end, kernels(isa).ball_windows);
    });
}

void ball_quantile_ref_f64(const BallQuantile<double>& params) {
    check_ball_quantile(params);
    run(params, 0, params.windows, ref::ball_windows<double>);
}

}  // namespace fastimpute
