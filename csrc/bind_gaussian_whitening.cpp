#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <tuple>

#include "bind.h"
#include "bind_arguments.h"
#include "common/cpu_features.h"
#include "gaussian_whitening/gaussian_whitening.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

// (rows, dim, most)
using SizesTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
// (address, row stride)
using RowsTuple = std::tuple<std::uintptr_t, std::int64_t>;
// filled, deviation, cells, real, factor, inverse
using Outputs = std::array<std::uintptr_t, 6>;

template <typename Real>
fi::GaussianWhitening<Real> params_of(const SizesTuple& sizes, const RowsTuple& x, const RowsTuple& missing,
                                      const RowsTuple& mean, std::uintptr_t precision, const Outputs& out) {
    const auto& [rows, dim, most] = sizes;
    return {rows,
            dim,
            most,
            at<const Real>(std::get<0>(x)),
            std::get<1>(x),
            at<const std::uint8_t>(std::get<0>(missing)),
            std::get<1>(missing),
            at<const double>(std::get<0>(mean)),
            std::get<1>(mean),
            at<const double>(precision),
            at<Real>(out[0]),
            at<Real>(out[1]),
            at<std::int64_t>(out[2]),
            at<std::uint8_t>(out[3]),
            at<Real>(out[4]),
            at<Real>(out[5])};
}

}  // namespace

void bind_gaussian_whitening(py::module_& m) {
    m.def(
        "gaussian_whitening",
        [](std::string_view isa, int threads, const SizesTuple& sizes, const RowsTuple& x, const RowsTuple& missing,
           const RowsTuple& mean, std::uintptr_t precision, const Outputs& outputs) {
            const auto params = params_of<float>(sizes, x, missing, mean, precision, outputs);
            const py::gil_scoped_release release;
            fi::gaussian_whitening(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("sizes"), py::arg("x"), py::arg("missing"), py::arg("mean"),
        py::arg("precision"), py::arg("outputs"));
    m.def(
        "gaussian_whitening_ref_f64",
        [](const SizesTuple& sizes, const RowsTuple& x, const RowsTuple& missing, const RowsTuple& mean,
           std::uintptr_t precision, const Outputs& outputs) {
            const auto params = params_of<double>(sizes, x, missing, mean, precision, outputs);
            const py::gil_scoped_release release;
            fi::gaussian_whitening_ref_f64(params);
        },
        py::arg("sizes"), py::arg("x"), py::arg("missing"), py::arg("mean"), py::arg("precision"), py::arg("outputs"));
}
