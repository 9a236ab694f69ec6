#include "bind.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bind_arguments.h"
#include "common/cpu_features.h"
#include "common/peak.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

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

void bind_peak(py::module_& m) {
    m.def(
        "spin_peak",
        [](std::string_view isa, std::string_view precision, std::int64_t steps) {
            const py::gil_scoped_release release;
            return fi::spin_peak(fi::isa_from_name(isa), precision_from_name("spin_peak", precision), steps);
        },
        py::arg("isa"), py::arg("precision"), py::arg("steps"));
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() = "Compiled kernels of fastimpute: raw addresses in, no torch.";
    bind_cpu(m);
    bind_spt_weights(m);
    bind_particle_step(m);
    bind_diffusion(m);
    bind_gaussian_conditional(m);
    bind_gaussian_whitening(m);
    bind_peak(m);
    bind_mlp_pack(m);
    bind_energy_mlp(m);
    bind_score_mlp(m);
    bind_score_matching(m);
    bind_dit_block(m);
    bind_proximal_recursion(m);
    bind_unrolled_attention(m);
}
