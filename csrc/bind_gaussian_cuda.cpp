#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind_cuda.h"
#include "bind_gaussian.h"
#include "gaussian_conditional/gaussian_conditional_cuda.h"
#include "gaussian_whitening/gaussian_whitening_cuda.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

template <typename Real>
void bind_conditional(py::module_& m, const char* name) {
    m.def(
        name,
        [](std::uintptr_t stream, std::uintptr_t status, std::uintptr_t scratch, std::int64_t scratch_bytes,
           std::int64_t rows, std::int64_t dim, std::uintptr_t x, std::int64_t x_stride, std::uintptr_t missing,
           std::int64_t missing_stride, std::uintptr_t mean, std::uintptr_t covariance, std::uintptr_t precision,
           std::uintptr_t filled, std::int64_t filled_stride, std::uintptr_t deviation, std::int64_t deviation_stride) {
            const fi::cuda::GaussianConditionalCuda<Real> call = {
                gaussian_conditional_params<Real>(rows, dim, x, x_stride, missing, missing_stride, mean, covariance,
                                                  precision, filled, filled_stride, deviation, deviation_stride),
                at<std::int32_t>(status), at<void>(scratch), scratch_bytes};
            const py::gil_scoped_release release;
            fi::cuda::gaussian_conditional(call, stream);
        },
        py::arg("stream"), py::arg("status"), py::arg("scratch"), py::arg("scratch_bytes"), py::arg("rows"),
        py::arg("dim"), py::arg("x"), py::arg("x_stride"), py::arg("missing"), py::arg("missing_stride"),
        py::arg("mean"), py::arg("covariance"), py::arg("precision"), py::arg("filled"), py::arg("filled_stride"),
        py::arg("deviation"), py::arg("deviation_stride"));
}

template <typename Real>
void bind_whitening(py::module_& m, const char* name) {
    m.def(
        name,
        [](std::uintptr_t stream, std::uintptr_t status, std::uintptr_t scratch, std::int64_t scratch_bytes,
           const WindowsTuple& sizes, const RowsTuple& x, const RowsTuple& missing, const RowsTuple& mean,
           std::uintptr_t precision, const WhiteningOutputs& outputs) {
            const fi::cuda::GaussianWhiteningCuda<Real> call = {
                gaussian_whitening_params<Real>(sizes, x, missing, mean, precision, outputs), at<std::int32_t>(status),
                at<void>(scratch), scratch_bytes};
            const py::gil_scoped_release release;
            fi::cuda::gaussian_whitening(call, stream);
        },
        py::arg("stream"), py::arg("status"), py::arg("scratch"), py::arg("scratch_bytes"), py::arg("sizes"),
        py::arg("x"), py::arg("missing"), py::arg("mean"), py::arg("precision"), py::arg("outputs"));
}

}  // namespace

void bind_gaussian_cuda(py::module_& m) {
    m.def("gaussian_conditional_scratch", &fi::cuda::gaussian_conditional_scratch, py::arg("rows"), py::arg("dim"),
          py::arg("covariance"), py::arg("precision"));
    bind_conditional<float>(m, "gaussian_conditional");
    bind_conditional<double>(m, "gaussian_conditional_f64");
    m.def("gaussian_whitening_scratch", &fi::cuda::gaussian_whitening_scratch, py::arg("rows"), py::arg("dim"),
          py::arg("most"));
    bind_whitening<float>(m, "gaussian_whitening");
    bind_whitening<double>(m, "gaussian_whitening_f64");
}
