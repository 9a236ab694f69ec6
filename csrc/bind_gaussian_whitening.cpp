#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>

#include "bind.h"
#include "bind_gaussian.h"
#include "common/cpu_features.h"

namespace py = pybind11;
namespace fi = fastimpute;

void bind_gaussian_whitening(py::module_& m) {
    m.def(
        "gaussian_whitening",
        [](std::string_view isa, int threads, const WindowsTuple& sizes, const RowsTuple& x, const RowsTuple& missing,
           const RowsTuple& mean, std::uintptr_t precision, const WhiteningOutputs& outputs) {
            const auto params = gaussian_whitening_params<float>(sizes, x, missing, mean, precision, outputs);
            const py::gil_scoped_release release;
            fi::gaussian_whitening(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("sizes"), py::arg("x"), py::arg("missing"), py::arg("mean"),
        py::arg("precision"), py::arg("outputs"));
    m.def(
        "gaussian_whitening_ref_f64",
        [](const WindowsTuple& sizes, const RowsTuple& x, const RowsTuple& missing, const RowsTuple& mean,
           std::uintptr_t precision, const WhiteningOutputs& outputs) {
            const auto params = gaussian_whitening_params<double>(sizes, x, missing, mean, precision, outputs);
            const py::gil_scoped_release release;
            fi::gaussian_whitening_ref_f64(params);
        },
        py::arg("sizes"), py::arg("x"), py::arg("missing"), py::arg("mean"), py::arg("precision"), py::arg("outputs"));
}
