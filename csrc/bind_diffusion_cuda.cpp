#include <pybind11/stl.h>

#include "ball_quantile/ball_quantile_cuda.h"
#include "bind_cuda.h"
#include "bind_diffusion.h"
#include "diffusion_step/diffusion_step_cuda.h"

namespace py = pybind11;
namespace fi = fastimpute;

void bind_diffusion(py::module_& m) {
    m.def(
        "diffusion_step",
        [](std::uintptr_t stream, const std::array<std::int64_t, 3>& sizes, const RowsTuple& v,
           const RowsTuple& denoised, const RowsTuple& previous, const RowsTuple& missing, const RowsTuple& v_new,
           const std::array<double, 4>& coefficients, const NoiseTuple& noise) {
            const auto params =
                diffusion_step_params<float>(sizes, v, denoised, previous, missing, v_new, coefficients, noise);
            const py::gil_scoped_release release;
            fi::cuda::diffusion_step(params, stream);
        },
        py::arg("stream"), py::arg("sizes"), py::arg("v"), py::arg("denoised"), py::arg("previous"), py::arg("missing"),
        py::arg("v_new"), py::arg("coefficients"), py::arg("noise"));
    m.def("samples_refusal", &fi::cuda::samples_refusal, py::arg("samples"));
    m.def(
        "ball_quantile",
        [](std::uintptr_t stream, const std::array<std::int64_t, 3>& sizes, const SamplesTuple& x,
           const RowsTuple& missing, std::int64_t rank, const RowsTuple& centre, std::uintptr_t radius) {
            const auto params = ball_quantile_params<float>(sizes, x, missing, rank, centre, radius);
            const py::gil_scoped_release release;
            fi::cuda::ball_quantile(params, stream);
        },
        py::arg("stream"), py::arg("sizes"), py::arg("x"), py::arg("missing"), py::arg("rank"), py::arg("centre"),
        py::arg("radius"));
}
