#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>
#include <tuple>

#include "bind.h"
#include "bind_arguments.h"
#include "common/cpu_features.h"
#include "unrolled_attention/unrolled_attention.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

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
fi::UnrolledAttention<Real> unrolled_attention_params(const SequencesTuple& shape, const FramesTuple& data,
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

}  // namespace

void bind_unrolled_attention(py::module_& m) {
    m.def(
        "unrolled_attention",
        [](std::string_view isa, int threads, const SequencesTuple& shape, const FramesTuple& data,
           const ProcessTuple& process, const RatesTuple& rates, double length, std::uintptr_t score,
           std::uintptr_t conditional_mean) {
            const auto params =
                unrolled_attention_params<float>(shape, data, process, rates, length, score, conditional_mean);
            const py::gil_scoped_release release;
            fi::unrolled_attention(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("shape"), py::arg("data"), py::arg("process"), py::arg("rates"),
        py::arg("length"), py::arg("score"), py::arg("conditional_mean"));
    m.def(
        "unrolled_attention_ref_f64",
        [](const SequencesTuple& shape, const FramesTuple& data, const ProcessTuple& process, const RatesTuple& rates,
           double length, std::uintptr_t score, std::uintptr_t conditional_mean) {
            const auto params =
                unrolled_attention_params<double>(shape, data, process, rates, length, score, conditional_mean);
            const py::gil_scoped_release release;
            fi::unrolled_attention_ref_f64(params);
        },
        py::arg("shape"), py::arg("data"), py::arg("process"), py::arg("rates"), py::arg("length"), py::arg("score"),
        py::arg("conditional_mean"));
}
