#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <tuple>

#include "ball_quantile/ball_quantile.h"
#include "bind.h"
#include "bind_arguments.h"
#include "common/cpu_features.h"
#include "diffusion_step/diffusion_step.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

// An array and the distance of its rows in elements.
using RowsTuple = std::tuple<std::uintptr_t, std::int64_t>;

// sizes: samples, windows, dim; coefficients: state, clean, earlier, spread.
template <typename Real>
fi::DiffusionStep<Real> diffusion_step_params(const std::array<std::int64_t, 3>& sizes, const RowsTuple& v,
                                              const RowsTuple& denoised, const RowsTuple& previous,
                                              const RowsTuple& missing, const RowsTuple& v_new,
                                              const std::array<double, 4>& coefficients, const NoiseTuple& noise) {
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

// sizes: samples, windows, dim; x: address, distance of samples, distance of windows.
template <typename Real>
fi::BallQuantile<Real> ball_quantile_params(const std::array<std::int64_t, 3>& sizes,
                                            const std::tuple<std::uintptr_t, std::int64_t, std::int64_t>& x,
                                            const RowsTuple& missing, std::int64_t rank, const RowsTuple& centre,
                                            std::uintptr_t radius) {
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

void bind_ball_quantile(py::module_& m) {
    m.def(
        "ball_quantile",
        [](std::string_view isa, int threads, const std::array<std::int64_t, 3>& sizes,
           const std::tuple<std::uintptr_t, std::int64_t, std::int64_t>& x, const RowsTuple& missing, std::int64_t rank,
           const RowsTuple& centre, std::uintptr_t radius) {
            const auto params = ball_quantile_params<float>(sizes, x, missing, rank, centre, radius);
            const py::gil_scoped_release release;
            fi::ball_quantile(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("sizes"), py::arg("x"), py::arg("missing"), py::arg("rank"),
        py::arg("centre"), py::arg("radius"));
    m.def(
        "ball_quantile_ref_f64",
        [](const std::array<std::int64_t, 3>& sizes, const std::tuple<std::uintptr_t, std::int64_t, std::int64_t>& x,
           const RowsTuple& missing, std::int64_t rank, const RowsTuple& centre, std::uintptr_t radius) {
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
