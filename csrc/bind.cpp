#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/cpu_features.h"
#include "particle_step/particle_step.h"
#include "spt_weights/spt_weights.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

// Tensors come in as addresses; zero stands for an absent one.
template <typename T>
T* at(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

void bind_cpu(py::module_& m) {
    m.def("cpu_features", [] {
        const fi::CpuFeatures& found = fi::cpu_features();
        py::dict features;
        features["avx2"] = found.avx2;
        features["avx512"] = found.avx512;
        features["avx512bf16"] = found.avx512bf16;
        return features;
    });
    m.def("isas", [] {
        std::vector<std::string> names;
        for (const fi::Isa isa : fi::usable_isas()) names.emplace_back(fi::isa_name(isa));
        return names;
    });
}

template <typename Real>
fi::SptWeights<Real> spt_weights_params(std::int64_t rows, std::int64_t group, std::uintptr_t log_w,
                                        std::uintptr_t log_p, std::uintptr_t score_sq, std::uintptr_t log_ref,
                                        std::uintptr_t log_w_new, std::uintptr_t mass, double gamma, double eta_w,
                                        double tau, double bound, bool robust) {
    return {rows,
            group,
            at<const Real>(log_w),
            at<const Real>(log_p),
            at<const Real>(score_sq),
            at<const Real>(log_ref),
            at<Real>(log_w_new),
            at<Real>(mass),
            static_cast<Real>(gamma),
            static_cast<Real>(eta_w),
            static_cast<Real>(tau),
            static_cast<Real>(bound),
            robust};
}

void bind_spt_weights(py::module_& m) {
    m.def(
        "spt_weights",
        [](std::string_view isa, int threads, std::int64_t rows, std::int64_t group, std::uintptr_t log_w,
           std::uintptr_t log_p, std::uintptr_t score_sq, std::uintptr_t log_ref, std::uintptr_t log_w_new,
           std::uintptr_t mass, double gamma, double eta_w, double tau, double bound, bool robust) {
            const auto params = spt_weights_params<float>(rows, group, log_w, log_p, score_sq, log_ref, log_w_new, mass,
                                                          gamma, eta_w, tau, bound, robust);
            const py::gil_scoped_release release;
            fi::spt_weights(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("rows"), py::arg("group"), py::arg("log_w"), py::arg("log_p"),
        py::arg("score_sq"), py::arg("log_ref"), py::arg("log_w_new"), py::arg("mass"), py::arg("gamma"),
        py::arg("eta_w"), py::arg("tau"), py::arg("bound"), py::arg("robust"));
    m.def(
        "spt_weights_ref_f64",
        [](std::int64_t rows, std::int64_t group, std::uintptr_t log_w, std::uintptr_t log_p, std::uintptr_t score_sq,
           std::uintptr_t log_ref, std::uintptr_t log_w_new, std::uintptr_t mass, double gamma, double eta_w,
           double tau, double bound, bool robust) {
            const auto params = spt_weights_params<double>(rows, group, log_w, log_p, score_sq, log_ref, log_w_new,
                                                           mass, gamma, eta_w, tau, bound, robust);
            const py::gil_scoped_release release;
            fi::spt_weights_ref_f64(params);
        },
        py::arg("rows"), py::arg("group"), py::arg("log_w"), py::arg("log_p"), py::arg("score_sq"), py::arg("log_ref"),
        py::arg("log_w_new"), py::arg("mass"), py::arg("gamma"), py::arg("eta_w"), py::arg("tau"), py::arg("bound"),
        py::arg("robust"));
}

// (m, m_stride, v, v_stride, beta1, beta2, eps, correction1, correction2); m = 0: plain steps.
using MomentsTuple =
    std::tuple<std::uintptr_t, std::int64_t, std::uintptr_t, std::int64_t, double, double, double, double, double>;
// (seed, keys, keys_stride, sensors, sample, step); keys = 0: no noise.
using NoiseTuple = std::tuple<std::uint64_t, std::uintptr_t, std::int64_t, std::int64_t, std::uint32_t, std::uint32_t>;

template <typename Real>
fi::ParticleStep<Real> particle_step_params(std::int64_t rows, std::int64_t dim, std::uintptr_t x,
                                            std::int64_t x_stride, std::uintptr_t direction,
                                            std::int64_t direction_stride, std::uintptr_t mass, std::uintptr_t missing,
                                            std::int64_t missing_stride, std::uintptr_t x_new,
                                            std::int64_t x_new_stride, double eta, double drift,
                                            const MomentsTuple& moments, const NoiseTuple& noise) {
    const auto& [m, m_stride, v, v_stride, beta1, beta2, eps, correction1, correction2] = moments;
    const auto& [seed, keys, keys_stride, sensors, sample, step] = noise;
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
            {at<Real>(m), m_stride, at<Real>(v), v_stride, static_cast<Real>(beta1), static_cast<Real>(beta2),
             static_cast<Real>(eps), static_cast<Real>(correction1), static_cast<Real>(correction2)},
            {seed, at<const std::int64_t>(keys), keys_stride, sensors, sample, step}};
}

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

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() = "Compiled kernels of fastimpute: raw addresses in, no torch.";
    bind_cpu(m);
    bind_spt_weights(m);
    bind_particle_step(m);
}
