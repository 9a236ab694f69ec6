#pragma once

#include <cstdint>
#include <tuple>

#include "bind_arguments.h"
#include "unrolled_attention/unrolled_attention.h"

// The arguments of unrolled_attention, as both modules take them.

// (sequences, frames, channels)
using SequencesTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
// (v, v_stride, x, x_stride, missing, missing_stride)
using FramesTuple =
    std::tuple<std::uintptr_t, std::int64_t, std::uintptr_t, std::int64_t, std::uintptr_t, std::int64_t>;
// (lag_table, alpha, sigma, mean, basis, variance)
using ProcessTuple =
    std::tuple<std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t>;
// (outer rates, rows, count, inner rates, rows, count); rates = 0: conjugate gradients.
using RatesTuple = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::uintptr_t, std::int64_t, std::int64_t>;

template <typename Real>
fastimpute::UnrolledAttention<Real> unrolled_attention_params(const SequencesTuple& shape, const FramesTuple& data,
                                                              const ProcessTuple& process, const RatesTuple& rates,
                                                              double length, std::uintptr_t score,
                                                              std::uintptr_t conditional_mean) {
    const auto& [sequences, frames, channels] = shape;
    const auto& [v, v_stride, x, x_stride, missing, missing_stride] = data;
    const auto& [lag_table, alpha, sigma, mean, basis, variance] = process;
    const auto& [outer, outer_rows, outer_count, inner, inner_rows, inner_count] = rates;
    return {sequences,
            frames,
            channels,
            at<const Real>(v),
            v_stride,
            at<const Real>(x),
            x_stride,
            at<const std::uint8_t>(missing),
            missing_stride,
            at<const Real>(lag_table),
            at<const Real>(alpha),
            at<const Real>(sigma),
            at<const Real>(mean),
            at<const Real>(basis),
            at<const Real>(variance),
            {at<const Real>(outer), outer_rows, outer_count},
            {at<const Real>(inner), inner_rows, inner_count},
            length,
            at<Real>(score),
            at<Real>(conditional_mean)};
}
