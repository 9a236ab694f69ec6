#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>
#include <tuple>

#include "bind.h"
#include "bind_arguments.h"
#include "common/cpu_features.h"
#include "particle_step/particle_step.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

// (m, m_stride, v, v_stride, beta1, beta2, eps, correction1, correction2); m = 0: plain steps.
using MomentsTuple =
    std::tuple<std::uintptr_t, std::int64_t, std::uintptr_t, std::int64_t, double, double, double, double, double>;

template <typename Real>
fi::ParticleStep<Real> particle_step_params(std::int64_t rows, std::int64_t dim, std::uintptr_t x,
                                            std::int64_t x_stride, std::uintptr_t direction,
                                            std::int64_t direction_stride, std::uintptr_t mass, std::uintptr_t missing,
                                            std::int64_t missing_stride, std::uintptr_t x_new,
                                            std::int64_t x_new_stride, double eta, double drift,
                                            const MomentsTuple& moments, const NoiseTuple& noise) {
    const auto& [m, m_stride, v, v_stride, beta1, beta2, eps, correction1, correction2] = moments;
    return {rows,
            dim,
            at<const Real>(x),
            x_stride,
            at<const Real>(direction),
            direction_stride,
            at<const Real>(mass),
            at<const std::uint8_t>(missing),
            missing_stride,
            at<Real>(x_new),
            x_new_stride,
            static_cast<Real>(eta),
            static_cast<Real>(drift),
            {at<Real>(m), m_stride, at<Real>(v), v_stride, beta1, beta2, static_cast<Real>(eps),
             static_cast<Real>(correction1), static_cast<Real>(correction2)},
            noise_of(noise)};
}

}  // namespace

void bind_particle_step(py::module_& m) {
    m.def(
        "particle_step",
        [](std::string_view isa, int threads, std::int64_t rows, std::int64_t dim, std::uintptr_t x,
           std::int64_t x_stride, std::uintptr_t direction, std::int64_t direction_stride, std::uintptr_t mass,
           std::uintptr_t missing, std::int64_t missing_stride, std::uintptr_t x_new, std::int64_t x_new_stride,
           double eta, double drift, const MomentsTuple& moments, const NoiseTuple& noise) {
            const auto params =
                particle_step_params<float>(rows, dim, x, x_stride, direction, direction_stride, mass, missing,
                                            missing_stride, x_new, x_new_stride, eta, drift, moments, noise);
            const py::gil_scoped_release release;
            fi::particle_step(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("rows"), py::arg("dim"), py::arg("x"), py::arg("x_stride"),
        py::arg("direction"), py::arg("direction_stride"), py::arg("mass"), py::arg("missing"),
        py::arg("missing_stride"), py::arg("x_new"), py::arg("x_new_stride"), py::arg("eta"), py::arg("drift"),
        py::arg("moments"), py::arg("noise"));
    m.def(
        "particle_step_ref_f64",
        [](std::int64_t rows, std::int64_t dim, std::uintptr_t x, std::int64_t x_stride, std::uintptr_t direction,
           std::int64_t direction_stride, std::uintptr_t mass, std::uintptr_t missing, std::int64_t missing_stride,
           std::uintptr_t x_new, std::int64_t x_new_stride, double eta, double drift, const MomentsTuple& moments,
           const NoiseTuple& noise) {
            const auto params =
                particle_step_params<double>(rows, dim, x, x_stride, direction, direction_stride, mass, missing,
                                             missing_stride, x_new, x_new_stride, eta, drift, moments, noise);
            const py::gil_scoped_release release;
            fi::particle_step_ref_f64(params);
        },
        py::arg("rows"), py::arg("dim"), py::arg("x"), py::arg("x_stride"), py::arg("direction"),
        py::arg("direction_stride"), py::arg("mass"), py::arg("missing"), py::arg("missing_stride"), py::arg("x_new"),
        py::arg("x_new_stride"), py::arg("eta"), py::arg("drift"), py::arg("moments"), py::arg("noise"));
}
