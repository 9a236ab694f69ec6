#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>
#include <tuple>

#include "bind.h"
#include "bind_arguments.h"
#include "bind_mlp.h"
#include "common/cpu_features.h"
#include "score_matching/score_matching.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

// (loss, w1, b1, w2, b2, w3, b3, modulation)
using GradientsTuple = std::tuple<std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t,
                                  std::uintptr_t, std::uintptr_t, std::uintptr_t>;

template <typename Real>
fi::ScoreMatchingArgs<Real> score_matching_args(std::int64_t rows, std::uintptr_t x, std::int64_t x_stride,
                                                std::uintptr_t target, std::int64_t target_stride,
                                                std::uintptr_t weight, std::uintptr_t modulation,
                                                std::int64_t conditions, const GradientsTuple& gradients) {
    const auto& [loss, w1, b1, w2, b2, w3, b3, by_modulation] = gradients;
    return {
        rows,
        at<const Real>(x),
        x_stride,
        at<const Real>(target),
        target_stride,
        at<const Real>(weight),
        at<const Real>(modulation),
        conditions,
        at<Real>(loss),
        {at<Real>(w1), at<Real>(b1), at<Real>(w2), at<Real>(b2), at<Real>(w3), at<Real>(b3), at<Real>(by_modulation)}};
}

}  // namespace

void bind_score_matching(py::module_& m) {
    m.def(
        "score_matching",
        [](std::string_view isa, int threads, const WeightsTuple& weights, std::int64_t rows, std::uintptr_t x,
           std::int64_t x_stride, std::uintptr_t target, std::int64_t target_stride, std::uintptr_t weight,
           std::uintptr_t modulation, std::int64_t conditions, const GradientsTuple& gradients) {
            const auto args = score_matching_args<float>(rows, x, x_stride, target, target_stride, weight, modulation,
                                                         conditions, gradients);
            const py::gil_scoped_release release;
            fi::score_matching(fi::isa_from_name(isa), mlp_weights<float>(weights), threads, args);
        },
        py::arg("isa"), py::arg("threads"), py::arg("weights"), py::arg("rows"), py::arg("x"), py::arg("x_stride"),
        py::arg("target"), py::arg("target_stride"), py::arg("weight"), py::arg("modulation"), py::arg("conditions"),
        py::arg("gradients"));
    m.def(
        "score_matching_ref_f64",
        [](const WeightsTuple& weights, std::int64_t rows, std::uintptr_t x, std::int64_t x_stride,
           std::uintptr_t target, std::int64_t target_stride, std::uintptr_t weight, std::uintptr_t modulation,
           std::int64_t conditions, const GradientsTuple& gradients) {
            const auto args = score_matching_args<double>(rows, x, x_stride, target, target_stride, weight, modulation,
                                                          conditions, gradients);
            const py::gil_scoped_release release;
            fi::score_matching_ref(mlp_weights<double>(weights), args);
        },
        py::arg("weights"), py::arg("rows"), py::arg("x"), py::arg("x_stride"), py::arg("target"),
        py::arg("target_stride"), py::arg("weight"), py::arg("modulation"), py::arg("conditions"),
        py::arg("gradients"));
}
