#include "bind_diffusion.h"

#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <tuple>

#include "bind.h"
#include "common/cpu_features.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

void bind_diffusion_step(py::module_& m) {
    m.def(
        "diffusion_step",
        [](std::string_view isa, int threads, const std::array<std::int64_t, 3>& sizes, const RowsTuple& v,
           const RowsTuple& denoised, const RowsTuple& previous, const RowsTuple& missing, const RowsTuple& v_new,
           const std::array<double, 4>& coefficients, const NoiseTuple& noise) {
            const auto params =
                diffusion_step_params<float>(sizes, v, denoised, previous, missing, v_new, coefficients, noise);
            const py::gil_scoped_release release;
            fi::diffusion_step(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("sizes"), py::arg("v"), py::arg("denoised"), py::arg("previous"),
        py::arg("missing"), py::arg("v_new"), py::arg("coefficients"), py::arg("noise"));
    m.def(
        "diffusion_step_ref_f64",
        [](const std::array<std::int64_t, 3>& sizes, const RowsTuple& v, const RowsTuple& denoised,
           const RowsTuple& previous, const RowsTuple& missing, const RowsTuple& v_new,
           const std::array<double, 4>& coefficients, const NoiseTuple& noise) {
            const auto params =
                diffusion_step_params<double>(sizes, v, denoised, previous, missing, v_new, coefficients, noise);
            const py::gil_scoped_release release;
            fi::diffusion_step_ref_f64(params);
        },
        py::arg("sizes"), py::arg("v"), py::arg("denoised"), py::arg("previous"), py::arg("missing"), py::arg("v_new"),
        py::arg("coefficients"), py::arg("noise"));
}

void bind_ball_quantile(py::module_& m) {
    m.def(
        "ball_quantile",
        [](std::string_view isa, int threads, const std::array<std::int64_t, 3>& sizes, const SamplesTuple& x,
           const RowsTuple& missing, std::int64_t rank, const RowsTuple& centre, std::uintptr_t radius) {
            const auto params = ball_quantile_params<float>(sizes, x, missing, rank, centre, radius);
            const py::gil_scoped_release release;
            fi::ball_quantile(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("sizes"), py::arg("x"), py::arg("missing"), py::arg("rank"),
        py::arg("centre"), py::arg("radius"));
    m.def(
        "ball_quantile_ref_f64",
        [](const std::array<std::int64_t, 3>& sizes, const SamplesTuple& x, const RowsTuple& missing, std::int64_t rank,
           const RowsTuple& centre, std::uintptr_t radius) {
            const auto params = ball_quantile_params<double>(sizes, x, missing, rank, centre, radius);
            const py::gil_scoped_release release;
            fi::ball_quantile_ref_f64(params);
        },
        py::arg("sizes"), py::arg("x"), py::arg("missing"), py::arg("rank"), py::arg("centre"), py::arg("radius"));
}

}  // namespace

void bind_diffusion(py::module_& m) {
    bind_diffusion_step(m);
    bind_ball_quantile(m);
}
