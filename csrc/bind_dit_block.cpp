#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <tuple>
#include <vector>

#include "bind.h"
#include "bind_arguments.h"
#include "common/cpu_features.h"
#include "dit_block/dit_block.h"
#include "dit_block/dit_pack.h"
#include "dit_block_gradient/dit_block_gradient.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

// (hidden, heads, inner)
using SizesTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
// w_qkv, b_qkv, w_proj, b_proj, w_up, b_up, w_down, b_down
using Weights = std::array<std::uintptr_t, 8>;
// (address, rows)
using SharedTuple = std::tuple<std::uintptr_t, std::int64_t>;
// (address, rows, stride, head stride, key stride); address 0: none
using BiasTuple = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
// (address, rows, tokens)
using MemoryTuple = std::tuple<std::uintptr_t, std::int64_t, std::int64_t>;

template <typename Real>
fi::DitWeights<Real> dit_weights(const SizesTuple& sizes, const Weights& w) {
    const auto& [hidden, heads, inner] = sizes;
    return {hidden,
            heads,
            inner,
            at<const Real>(w[0]),
            at<const Real>(w[1]),
            at<const Real>(w[2]),
            at<const Real>(w[3]),
            at<const Real>(w[4]),
            at<const Real>(w[5]),
            at<const Real>(w[6]),
            at<const Real>(w[7])};
}

template <typename Real>
fi::DitBlockArgs<Real> dit_block_args(std::int64_t sequences, std::int64_t tokens, std::uintptr_t x,
                                      const SharedTuple& modulation, const BiasTuple& bias, std::uintptr_t absent,
                                      const MemoryTuple& memory, std::uintptr_t out) {
    const auto& [bias_values, bias_rows, bias_stride, bias_head_stride, bias_key_stride] = bias;
    return {sequences,
            tokens,
            at<const Real>(x),
            at<const Real>(std::get<0>(modulation)),
            std::get<1>(modulation),
            at<const Real>(bias_values),
            bias_rows,
            bias_stride,
            bias_head_stride,
            bias_key_stride,
            at<const std::uint8_t>(absent),
            at<const Real>(std::get<0>(memory)),
            std::get<1>(memory),
            std::get<2>(memory),
            at<Real>(out)};
}

// x, modulation, w_qkv, b_qkv, ... b_down, bias, memory
using Gradients = std::array<std::uintptr_t, 12>;

fi::DitBlockGradients<float> dit_block_gradients(const Gradients& g) {
    return {at<float>(g[0]), at<float>(g[1]), at<float>(g[2]), at<float>(g[3]), at<float>(g[4]),  at<float>(g[5]),
            at<float>(g[6]), at<float>(g[7]), at<float>(g[8]), at<float>(g[9]), at<float>(g[10]), at<float>(g[11])};
}

bool holds(const fi::DitPack& pack, const Weights& addresses) {
    std::vector<const float*> values;
    for (const std::uintptr_t address : addresses) values.push_back(at<const float>(address));
    return pack.holds(values);
}

}  // namespace

void bind_dit_block(py::module_& m) {
    py::class_<fi::DitPack>(m, "DitPack")
        .def(py::init([](std::string_view isa, std::string_view precision, const SizesTuple& sizes, const Weights& w) {
                 const py::gil_scoped_release release;
                 return fi::DitPack(fi::isa_from_name(isa), precision_from_name("DitPack", precision),
                                    dit_weights<float>(sizes, w));
             }),
             py::arg("isa"), py::arg("precision"), py::arg("sizes"), py::arg("weights"))
        .def("holds", &holds, py::arg("addresses"));
    m.def(
        "dit_block",
        [](const fi::DitPack& pack, int threads, std::int64_t sequences, std::int64_t tokens, std::uintptr_t x,
           const SharedTuple& modulation, const BiasTuple& bias, std::uintptr_t absent, const MemoryTuple& memory,
           std::uintptr_t out) {
            const auto args = dit_block_args<float>(sequences, tokens, x, modulation, bias, absent, memory, out);
            const py::gil_scoped_release release;
            fi::dit_block(pack, threads, args);
        },
        py::arg("pack"), py::arg("threads"), py::arg("sequences"), py::arg("tokens"), py::arg("x"),
        py::arg("modulation"), py::arg("bias"), py::arg("absent"), py::arg("memory"), py::arg("out"));
    m.def(
        "dit_block_ref_f64",
        [](const SizesTuple& sizes, const Weights& weights, std::int64_t sequences, std::int64_t tokens,
           std::uintptr_t x, const SharedTuple& modulation, const BiasTuple& bias, std::uintptr_t absent,
           const MemoryTuple& memory, std::uintptr_t out) {
            const auto args = dit_block_args<double>(sequences, tokens, x, modulation, bias, absent, memory, out);
            const py::gil_scoped_release release;
            fi::dit_block_ref(dit_weights<double>(sizes, weights), args);
        },
        py::arg("sizes"), py::arg("weights"), py::arg("sequences"), py::arg("tokens"), py::arg("x"),
        py::arg("modulation"), py::arg("bias"), py::arg("absent"), py::arg("memory"), py::arg("out"));
    m.def(
        "dit_block_gradient",
        [](std::string_view isa, int threads, const SizesTuple& sizes, const Weights& weights, std::int64_t sequences,
           std::int64_t tokens, std::uintptr_t x, const SharedTuple& modulation, const BiasTuple& bias,
           std::uintptr_t absent, const MemoryTuple& memory, std::uintptr_t out_gradient, const Gradients& gradients) {
            const auto args = dit_block_args<float>(sequences, tokens, x, modulation, bias, absent, memory, 0);
            const py::gil_scoped_release release;
            fi::dit_block_gradient(fi::isa_from_name(isa), dit_weights<float>(sizes, weights), threads, args,
                                   at<const float>(out_gradient), dit_block_gradients(gradients));
        },
        py::arg("isa"), py::arg("threads"), py::arg("sizes"), py::arg("weights"), py::arg("sequences"),
        py::arg("tokens"), py::arg("x"), py::arg("modulation"), py::arg("bias"), py::arg("absent"), py::arg("memory"),
        py::arg("out_gradient"), py::arg("gradients"));
}
