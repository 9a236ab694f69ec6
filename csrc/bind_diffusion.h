#pragma once

#include <array>
#include <cstdint>
#include <tuple>

#include "ball_quantile/ball_quantile.h"
#include "bind_arguments.h"
#include "diffusion_step/diffusion_step.h"

// How the arguments of `diffusion_step` and `ball_quantile` come in, for the processor and for a GPU.

// An array and the distance of its rows in elements.
using RowsTuple = std::tuple<std::uintptr_t, std::int64_t>;

// sizes: samples, windows, dim; coefficients: state, clean, earlier, spread.
template <typename Real>
fastimpute::DiffusionStep<Real> diffusion_step_params(const std::array<std::int64_t, 3>& sizes, const RowsTuple& v,
                                                      const RowsTuple& denoised, const RowsTuple& previous,
                                                      const RowsTuple& missing, const RowsTuple& v_new,
                                                      const std::array<double, 4>& coefficients,
                                                      const NoiseTuple& noise) {
    return {sizes[0],
            sizes[1],
            sizes[2],
            at<const Real>(std::get<0>(v)),
            std::get<1>(v),
            at<const Real>(std::get<0>(denoised)),
            std::get<1>(denoised),
            at<const Real>(std::get<0>(previous)),
            std::get<1>(previous),
            at<const std::uint8_t>(std::get<0>(missing)),
            std::get<1>(missing),
            at<Real>(std::get<0>(v_new)),
            std::get<1>(v_new),
            static_cast<Real>(coefficients[0]),
            static_cast<Real>(coefficients[1]),
            static_cast<Real>(coefficients[2]),
            static_cast<Real>(coefficients[3]),
            noise_of(noise)};
}

// An array, the distance of its samples and that of its windows.
using SamplesTuple = std::tuple<std::uintptr_t, std::int64_t, std::int64_t>;

// sizes: samples, windows, dim.
template <typename Real>
fastimpute::BallQuantile<Real> ball_quantile_params(const std::array<std::int64_t, 3>& sizes, const SamplesTuple& x,
                                                    const RowsTuple& missing, std::int64_t rank,
                                                    const RowsTuple& centre, std::uintptr_t radius) {
    return {sizes[0],
            sizes[1],
            sizes[2],
            at<const Real>(std::get<0>(x)),
            std::get<1>(x),
            std::get<2>(x),
            at<const std::uint8_t>(std::get<0>(missing)),
            std::get<1>(missing),
            rank,
            at<Real>(std::get<0>(centre)),
            std::get<1>(centre),
            at<Real>(radius)};
}
