#pragma once

#include <array>
#include <cstdint>
#include <tuple>

#include "bind_arguments.h"
#include "gaussian_conditional/gaussian_conditional.h"
#include "gaussian_whitening/gaussian_whitening.h"

// The arguments of gaussian_conditional and gaussian_whitening, as both modules take them.

template <typename Real>
fastimpute::GaussianConditional<Real> gaussian_conditional_params(
    std::int64_t rows, std::int64_t dim, std::uintptr_t x, std::int64_t x_stride, std::uintptr_t missing,
    std::int64_t missing_stride, std::uintptr_t mean, std::uintptr_t covariance, std::uintptr_t precision,
    std::uintptr_t filled, std::int64_t filled_stride, std::uintptr_t deviation, std::int64_t deviation_stride) {
    return {rows,
            dim,
            at<const Real>(x),
            x_stride,
            at<const std::uint8_t>(missing),
            missing_stride,
            at<const double>(mean),
            at<const double>(covariance),
            at<const double>(precision),
            at<Real>(filled),
            filled_stride,
            at<Real>(deviation),
            deviation_stride};
}

// (rows, dim, most)
using WindowsTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
// (address, row stride)
using RowsTuple = std::tuple<std::uintptr_t, std::int64_t>;
// filled, deviation, cells, real, factor, inverse
using WhiteningOutputs = std::array<std::uintptr_t, 6>;

template <typename Real>
fastimpute::GaussianWhitening<Real> gaussian_whitening_params(const WindowsTuple& sizes, const RowsTuple& x,
                                                              const RowsTuple& missing, const RowsTuple& mean,
                                                              std::uintptr_t precision, const WhiteningOutputs& out) {
    const auto& [rows, dim, most] = sizes;
    return {rows,
            dim,
            most,
            at<const Real>(std::get<0>(x)),
            std::get<1>(x),
            at<const std::uint8_t>(std::get<0>(missing)),
            std::get<1>(missing),
            at<const double>(std::get<0>(mean)),
            std::get<1>(mean),
            at<const double>(precision),
            at<Real>(out[0]),
            at<Real>(out[1]),
            at<std::int64_t>(out[2]),
            at<std::uint8_t>(out[3]),
            at<Real>(out[4]),
            at<Real>(out[5])};
}
