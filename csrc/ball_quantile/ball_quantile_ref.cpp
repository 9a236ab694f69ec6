#include "ball_quantile/ball_quantile.h"

namespace fastimpute::ref {

namespace {

template <typename Real>
void ball_window(const BallQuantile<Real>& params, std::int64_t window, Real* squares) {
    const Real* x = params.x + window * params.window_stride;
    const std::uint8_t* missing = params.missing + window * params.missing_stride;
    Real* centre = params.centre + window * params.centre_stride;
    for (std::int64_t sample = 0; sample < params.samples; ++sample) squares[sample] = 0;
    for (std::int64_t column = 0; column < params.dim; ++column) {
        if (missing[column] == 0) {
            centre[column] = x[column];
            continue;
        }
        Real sum = 0;
        for (std::int64_t sample = 0; sample < params.samples; ++sample)
            sum += x[sample * params.sample_stride + column];
        centre[column] = sum / static_cast<Real>(params.samples);
        for (std::int64_t sample = 0; sample < params.samples; ++sample) {
            const Real deviation = x[sample * params.sample_stride + column] - centre[column];
            squares[sample] += deviation * deviation;
        }
    }
}

}  // namespace

template <typename Real>
void ball_windows(const BallQuantile<Real>& params, std::int64_t begin, std::int64_t end, Real* squares) {
    for (std::int64_t window = begin; window < end; ++window)
        ball_window(params, window, squares + (window - begin) * params.samples);
}

template void ball_windows(const BallQuantile<float>&, std::int64_t, std::int64_t, float*);
template void ball_windows(const BallQuantile<double>&, std::int64_t, std::int64_t, double*);

}  // namespace fastimpute::ref
