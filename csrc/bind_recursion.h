#pragma once

#include <cstdint>
#include <optional>
#include <tuple>

#include "bind_arguments.h"
#include "proximal_recursion/proximal_recursion.h"

// How the arguments of `proximal_recursion` come in, for the processor and for a GPU.

// (steps, sensors, series, series_stride, missing, missing_stride, out, out_stride)
using SeriesTuple = std::tuple<std::int64_t, std::int64_t, std::uintptr_t, std::int64_t, std::uintptr_t, std::int64_t,
                               std::uintptr_t, std::int64_t>;
// (windows, starts, window, sets, width, columns)
using PatchesTuple = std::tuple<std::int64_t, std::uintptr_t, std::int64_t, std::int64_t, std::int64_t, std::uintptr_t>;
// (modulation, modulation_rows, modulation_index, sigma)
using ConditionTuple = std::tuple<std::uintptr_t, std::int64_t, std::uintptr_t, double>;
// (group, log_ref, gamma, eta_w, tau, bound, robust, log_w)
using SptTuple = std::tuple<std::int64_t, std::uintptr_t, double, double, double, double, bool, std::uintptr_t>;
// (beta1, beta2, eps); None: plain steps.
using AdamTuple = std::optional<std::tuple<double, double, double>>;
// (seed, sample); None: no dissipation.
using DissipationTuple = std::optional<std::tuple<std::uint64_t, std::uint32_t>>;

template <typename Real>
fastimpute::ProximalRecursionArgs<Real> recursion_args(const SeriesTuple& series_tuple, const PatchesTuple& patches,
                                                       const ConditionTuple& condition, std::int64_t iterations,
                                                       double eta, const SptTuple& spt, const AdamTuple& adam,
                                                       const DissipationTuple& dissipation) {
    const auto& [steps, sensors, series, series_stride, missing, missing_stride, out, out_stride] = series_tuple;
    const auto& [windows, starts, window, sets, width, columns] = patches;
    const auto& [modulation, modulation_rows, modulation_index, sigma] = condition;
    const auto& [group, log_ref, gamma, eta_w, tau, bound, robust, log_w] = spt;
    const auto [beta1, beta2, adam_eps] = adam.value_or(std::tuple(0.0, 0.0, 0.0));
    const auto [seed, sample] = dissipation.value_or(std::tuple(std::uint64_t{0}, std::uint32_t{0}));
    return {steps,
            sensors,
            at<const Real>(series),
            series_stride,
            at<const std::uint8_t>(missing),
            missing_stride,
            windows,
            at<const std::int64_t>(starts),
            window,
            sets,
            width,
            at<const std::int64_t>(columns),
            at<const Real>(modulation),
            modulation_rows,
            at<const std::int64_t>(modulation_index),
            static_cast<Real>(sigma),
            iterations,
            static_cast<Real>(eta),
            static_cast<Real>(gamma),
            static_cast<Real>(eta_w),
            static_cast<Real>(tau),
            static_cast<Real>(bound),
            group,
            at<const Real>(log_ref),
            robust,
            adam.has_value(),
            static_cast<Real>(beta1),
            static_cast<Real>(beta2),
            static_cast<Real>(adam_eps),
            dissipation.has_value(),
            seed,
            sample,
            at<Real>(out),
            out_stride,
            at<Real>(log_w)};
}
