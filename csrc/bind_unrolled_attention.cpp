#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>

#include "bind.h"
#include "bind_unrolled.h"
#include "common/cpu_features.h"

namespace py = pybind11;
namespace fi = fastimpute;

void bind_unrolled_attention(py::module_& m) {
    m.def(
        "unrolled_attention",
        [](std::string_view isa, int threads, const SequencesTuple& shape, const FramesTuple& data,
           const ProcessTuple& process, const RatesTuple& rates, double length, std::uintptr_t score,
           std::uintptr_t conditional_mean) {
            const auto params =
                unrolled_attention_params<float>(shape, data, process, rates, length, score, conditional_mean);
            const py::gil_scoped_release release;
            fi::unrolled_attention(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("shape"), py::arg("data"), py::arg("process"), py::arg("rates"),
        py::arg("length"), py::arg("score"), py::arg("conditional_mean"));
    m.def(
        "unrolled_attention_ref_f64",
        [](const SequencesTuple& shape, const FramesTuple& data, const ProcessTuple& process, const RatesTuple& rates,
           double length, std::uintptr_t score, std::uintptr_t conditional_mean) {
            const auto params =
                unrolled_attention_params<double>(shape, data, process, rates, length, score, conditional_mean);
            const py::gil_scoped_release release;
            fi::unrolled_attention_ref_f64(params);
        },
        py::arg("shape"), py::arg("data"), py::arg("process"), py::arg("rates"), py::arg("length"), py::arg("score"),
        py::arg("conditional_mean"));
}
