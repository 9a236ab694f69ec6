#include "bind_mlp.h"

#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "bind.h"
#include "bind_arguments.h"
#include "common/cpu_features.h"
#include "common/mlp_pack.h"
#include "energy_mlp/energy_mlp.h"
#include "score_mlp/score_mlp.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

// Whether the pack was made from these values, bit for bit; absent tensors are not compared.
bool holds(const fi::MlpPack& pack, const std::array<std::uintptr_t, 6>& addresses) {
    const fi::MlpWeights<float>& kept = pack.weights();
    const bool direct = pack.head() == fi::Head::kDirect;
    const std::int64_t hidden = kept.hidden;
    const std::array<const float*, 6> values = {kept.w1, kept.b1, kept.w2, kept.b2, kept.w3, kept.b3};
    const std::array<std::int64_t, 6> sizes = {
        hidden * kept.dim, hidden, hidden * hidden, hidden, direct ? kept.dim * hidden : hidden, direct ? kept.dim : 1};
    for (std::size_t i = 0; i < values.size(); ++i) {
        const auto bytes = static_cast<std::size_t>(sizes[i]) * sizeof(float);
        if (addresses[i] != 0 && std::memcmp(values[i], at<const float>(addresses[i]), bytes) != 0) return false;
    }
    return true;
}

template <typename Real>
fi::EnergyMlpArgs<Real> energy_mlp_args(std::int64_t rows, std::uintptr_t x, std::int64_t x_stride,
                                        std::uintptr_t modulation, std::int64_t modulation_rows,
                                        std::uintptr_t modulation_index, std::uintptr_t vector,
                                        std::int64_t vector_stride, bool want_hvp, std::uintptr_t log_p,
                                        std::uintptr_t score, std::int64_t score_stride, std::uintptr_t hvp,
                                        std::int64_t hvp_stride) {
    return {rows,
            at<const Real>(x),
            x_stride,
            {at<const Real>(modulation), modulation_rows, at<const std::int64_t>(modulation_index)},
            at<const Real>(vector),
            vector_stride,
            want_hvp,
            at<Real>(log_p),
            at<Real>(score),
            score_stride,
            at<Real>(hvp),
            hvp_stride};
}

template <typename Real>
fi::ScoreMlpArgs<Real> score_mlp_args(std::int64_t rows, std::uintptr_t x, std::int64_t x_stride, std::uintptr_t sigma,
                                      std::uintptr_t modulation, std::int64_t modulation_rows,
                                      std::uintptr_t modulation_index, std::uintptr_t score,
                                      std::int64_t score_stride) {
    return {rows,
            at<const Real>(x),
            x_stride,
            at<const Real>(sigma),
            {at<const Real>(modulation), modulation_rows, at<const std::int64_t>(modulation_index)},
            at<Real>(score),
            score_stride};
}

}  // namespace

void bind_mlp_pack(py::module_& m) {
    py::class_<fi::MlpPack>(m, "MlpPack")
        .def(py::init([](std::string_view isa, std::string_view precision, std::string_view head, std::int64_t hidden,
                         std::int64_t dim, std::uintptr_t w1, std::uintptr_t b1, std::uintptr_t w2, std::uintptr_t b2,
                         std::uintptr_t w3, std::uintptr_t b3, std::uintptr_t precision_matrix, std::uintptr_t mean) {
                 const auto weights = mlp_weights<float>({hidden, dim, w1, b1, w2, b2, w3, b3, precision_matrix, mean});
                 const py::gil_scoped_release release;
                 return fi::MlpPack(fi::isa_from_name(isa), precision_from_name("MlpPack", precision),
                                    head_from_name(head), weights);
             }),
             py::arg("isa"), py::arg("precision"), py::arg("head"), py::arg("hidden"), py::arg("dim"), py::arg("w1"),
             py::arg("b1"), py::arg("w2"), py::arg("b2"), py::arg("w3"), py::arg("b3"), py::arg("precision_matrix"),
             py::arg("mean"))
        .def("holds", &holds, py::arg("addresses"))
        .def_property_readonly("isa", [](const fi::MlpPack& pack) { return std::string(fi::isa_name(pack.isa())); })
        .def_property_readonly("hidden", &fi::MlpPack::hidden)
        .def_property_readonly("dim", &fi::MlpPack::dim);
}

void bind_energy_mlp(py::module_& m) {
    m.def(
        "energy_mlp",
        [](const fi::MlpPack& pack, int threads, std::int64_t rows, std::uintptr_t x, std::int64_t x_stride,
           std::uintptr_t modulation, std::int64_t modulation_rows, std::uintptr_t modulation_index,
           std::uintptr_t vector, std::int64_t vector_stride, bool want_hvp, std::uintptr_t log_p, std::uintptr_t score,
           std::int64_t score_stride, std::uintptr_t hvp, std::int64_t hvp_stride) {
            const auto args =
                energy_mlp_args<float>(rows, x, x_stride, modulation, modulation_rows, modulation_index, vector,
                                       vector_stride, want_hvp, log_p, score, score_stride, hvp, hvp_stride);
            const py::gil_scoped_release release;
            fi::energy_mlp(pack, threads, args);
        },
        py::arg("pack"), py::arg("threads"), py::arg("rows"), py::arg("x"), py::arg("x_stride"), py::arg("modulation"),
        py::arg("modulation_rows"), py::arg("modulation_index"), py::arg("vector"), py::arg("vector_stride"),
        py::arg("want_hvp"), py::arg("log_p"), py::arg("score"), py::arg("score_stride"), py::arg("hvp"),
        py::arg("hvp_stride"));
    m.def(
        "energy_mlp_ref_f64",
        [](const WeightsTuple& weights, std::int64_t rows, std::uintptr_t x, std::int64_t x_stride,
           std::uintptr_t modulation, std::int64_t modulation_rows, std::uintptr_t modulation_index,
           std::uintptr_t vector, std::int64_t vector_stride, bool want_hvp, std::uintptr_t log_p, std::uintptr_t score,
           std::int64_t score_stride, std::uintptr_t hvp, std::int64_t hvp_stride) {
            const auto args =
                energy_mlp_args<double>(rows, x, x_stride, modulation, modulation_rows, modulation_index, vector,
                                        vector_stride, want_hvp, log_p, score, score_stride, hvp, hvp_stride);
            const py::gil_scoped_release release;
            fi::energy_mlp_ref(mlp_weights<double>(weights), args);
        },
        py::arg("weights"), py::arg("rows"), py::arg("x"), py::arg("x_stride"), py::arg("modulation"),
        py::arg("modulation_rows"), py::arg("modulation_index"), py::arg("vector"), py::arg("vector_stride"),
        py::arg("want_hvp"), py::arg("log_p"), py::arg("score"), py::arg("score_stride"), py::arg("hvp"),
        py::arg("hvp_stride"));
}

void bind_score_mlp(py::module_& m) {
    m.def(
        "score_mlp",
        [](const fi::MlpPack& pack, int threads, std::int64_t rows, std::uintptr_t x, std::int64_t x_stride,
           std::uintptr_t sigma, std::uintptr_t modulation, std::int64_t modulation_rows,
           std::uintptr_t modulation_index, std::uintptr_t score, std::int64_t score_stride) {
            const auto args = score_mlp_args<float>(rows, x, x_stride, sigma, modulation, modulation_rows,
                                                    modulation_index, score, score_stride);
            const py::gil_scoped_release release;
            fi::score_mlp(pack, threads, args);
        },
        py::arg("pack"), py::arg("threads"), py::arg("rows"), py::arg("x"), py::arg("x_stride"), py::arg("sigma"),
        py::arg("modulation"), py::arg("modulation_rows"), py::arg("modulation_index"), py::arg("score"),
        py::arg("score_stride"));
    m.def(
        "score_mlp_ref_f64",
        [](const WeightsTuple& weights, std::int64_t rows, std::uintptr_t x, std::int64_t x_stride,
           std::uintptr_t sigma, std::uintptr_t modulation, std::int64_t modulation_rows,
           std::uintptr_t modulation_index, std::uintptr_t score, std::int64_t score_stride) {
            const auto args = score_mlp_args<double>(rows, x, x_stride, sigma, modulation, modulation_rows,
                                                     modulation_index, score, score_stride);
            const py::gil_scoped_release release;
            fi::score_mlp_ref(mlp_weights<double>(weights), args);
        },
        py::arg("weights"), py::arg("rows"), py::arg("x"), py::arg("x_stride"), py::arg("sigma"), py::arg("modulation"),
        py::arg("modulation_rows"), py::arg("modulation_index"), py::arg("score"), py::arg("score_stride"));
}
