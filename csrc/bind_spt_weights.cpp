#include <cstdint>
#include <string_view>

#include "bind.h"
#include "bind_arguments.h"
#include "common/cpu_features.h"
#include "spt_weights/spt_weights.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

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

}  // namespace

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
