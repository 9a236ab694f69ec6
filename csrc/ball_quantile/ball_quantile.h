#pragma once

#include <cstdint>

#include "common/cpu_features.h"

namespace fastimpute {

// Centre and radius of the ball around the mean of the samples of each window (arXiv 2510.02216, confidence region),
// over its missing cells. Samples x windows x dim, strides in elements, samples >= 2:
//     centre = mean over samples where missing, the cell of the first sample elsewhere (bit for bit)
//     radius = the rank-th smallest of |x_s - centre| samples / (samples - 1), which is the distance of a sample from
//              the mean of the others; 0 for a window without missing cells
template <typename Real>
struct BallQuantile {
    std::int64_t samples = 0;
    std::int64_t windows = 0;
    std::int64_t dim = 0;
    const Real* x = nullptr;
    std::int64_t sample_stride = 0;
    std::int64_t window_stride = 0;
    const std::uint8_t* missing = nullptr;  // windows x dim
    std::int64_t missing_stride = 0;
    std::int64_t rank = 1;  // 1 .. samples
    Real* centre = nullptr;
    std::int64_t centre_stride = 0;
    Real* radius = nullptr;
};

// Throws std::invalid_argument naming op and argument.
template <typename Real>
void check_ball_quantile(const BallQuantile<Real>& params);

// Checks the arguments, then works through the windows, spread over `threads`; the bits do not depend on `threads`.
void ball_quantile(Isa isa, const BallQuantile<float>& params, int threads);
void ball_quantile_ref_f64(const BallQuantile<double>& params);

// Writes the centres of windows [begin, end), and |x_s - centre|^2 of each over its missing cells to
// squares[(window - begin) * samples + s].
namespace ref {
template <typename Real>
void ball_windows(const BallQuantile<Real>& params, std::int64_t begin, std::int64_t end, Real* squares);
}
namespace avx2 {
void ball_windows(const BallQuantile<float>& params, std::int64_t begin, std::int64_t end, float* squares);
}
namespace avx512 {
void ball_windows(const BallQuantile<float>& params, std::int64_t begin, std::int64_t end, float* squares);
}

}  // namespace fastimpute
