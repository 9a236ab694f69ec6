#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>

#include "bind.h"
#include "bind_mlp.h"
#include "bind_recursion.h"
#include "common/mlp_pack.h"

namespace py = pybind11;
namespace fi = fastimpute;

void bind_proximal_recursion(py::module_& m) {
    m.def(
        "proximal_recursion",
        [](const fi::MlpPack& pack, int threads, const SeriesTuple& series, const PatchesTuple& patches,
           const ConditionTuple& condition, std::int64_t iterations, double eta, const SptTuple& spt,
           const AdamTuple& adam, const DissipationTuple& dissipation) {
            const auto args =
                recursion_args<float>(series, patches, condition, iterations, eta, spt, adam, dissipation);
            const py::gil_scoped_release release;
            fi::proximal_recursion(pack, threads, args);
        },
        py::arg("pack"), py::arg("threads"), py::arg("series"), py::arg("patches"), py::arg("condition"),
        py::arg("iterations"), py::arg("eta"), py::arg("spt"), py::arg("adam"), py::arg("dissipation"));
    m.def(
        "proximal_recursion_ref_f64",
        [](const WeightsTuple& weights, std::string_view head, const SeriesTuple& series, const PatchesTuple& patches,
           const ConditionTuple& condition, std::int64_t iterations, double eta, const SptTuple& spt,
           const AdamTuple& adam, const DissipationTuple& dissipation) {
            const auto args =
                recursion_args<double>(series, patches, condition, iterations, eta, spt, adam, dissipation);
            const py::gil_scoped_release release;
            fi::proximal_recursion_ref_f64(mlp_weights<double>(weights), head_from_name(head), args);
        },
        py::arg("weights"), py::arg("head"), py::arg("series"), py::arg("patches"), py::arg("condition"),
        py::arg("iterations"), py::arg("eta"), py::arg("spt"), py::arg("adam"), py::arg("dissipation"));
}
