#include <cstdint>
#include <string_view>

#include "bind.h"
#include "bind_gaussian.h"
#include "common/cpu_features.h"

namespace py = pybind11;
namespace fi = fastimpute;

void bind_gaussian_conditional(py::module_& m) {
    m.def(
        "gaussian_conditional",
        [](std::string_view isa, int threads, std::int64_t rows, std::int64_t dim, std::uintptr_t x,
           std::int64_t x_stride, std::uintptr_t missing, std::int64_t missing_stride, std::uintptr_t mean,
           std::uintptr_t covariance, std::uintptr_t precision, std::uintptr_t filled, std::int64_t filled_stride,
           std::uintptr_t deviation, std::int64_t deviation_stride) {
            const auto params =
                gaussian_conditional_params<float>(rows, dim, x, x_stride, missing, missing_stride, mean, covariance,
                                                   precision, filled, filled_stride, deviation, deviation_stride);
            const py::gil_scoped_release release;
            fi::gaussian_conditional(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("rows"), py::arg("dim"), py::arg("x"), py::arg("x_stride"),
        py::arg("missing"), py::arg("missing_stride"), py::arg("mean"), py::arg("covariance"), py::arg("precision"),
        py::arg("filled"), py::arg("filled_stride"), py::arg("deviation"), py::arg("deviation_stride"));
    m.def(
        "gaussian_conditional_ref_f64",
        [](std::int64_t rows, std::int64_t dim, std::uintptr_t x, std::int64_t x_stride, std::uintptr_t missing,
           std::int64_t missing_stride, std::uintptr_t mean, std::uintptr_t covariance, std::uintptr_t precision,
           std::uintptr_t filled, std::int64_t filled_stride, std::uintptr_t deviation, std::int64_t deviation_stride) {
            const auto params =
                gaussian_conditional_params<double>(rows, dim, x, x_stride, missing, missing_stride, mean, covariance,
                                                    precision, filled, filled_stride, deviation, deviation_stride);
            const py::gil_scoped_release release;
            fi::gaussian_conditional_ref_f64(params);
        },
        py::arg("rows"), py::arg("dim"), py::arg("x"), py::arg("x_stride"), py::arg("missing"),
        py::arg("missing_stride"), py::arg("mean"), py::arg("covariance"), py::arg("precision"), py::arg("filled"),
        py::arg("filled_stride"), py::arg("deviation"), py::arg("deviation_stride"));
}
