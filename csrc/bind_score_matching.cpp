#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <tuple>

#include "bind.h"
#include "bind_arguments.h"
#include "bind_mlp.h"
#include "common/cpu_features.h"
#include "score_matching/score_matching.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

// (loss, w1, b1, w2, b2, w3, b3, modulation)
using GradientsTuple = std::tuple<std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t,
                                  std::uintptr_t, std::uintptr_t, std::uintptr_t>;

template <typename Real>
fi::ScoreMatchingArgs<Real> score_matching_args(std::int64_t rows, std::uintptr_t x, std::int64_t x_stride,
                                                std::uintptr_t target, std::int64_t target_stride,
                                                std::uintptr_t weight, std::uintptr_t modulation,
                                                std::int64_t conditions, const GradientsTuple& gradients) {
    const auto& [loss, w1, b1, w2, b2, w3, b3, by_modulation] = gradients;
    return {
        rows,
        at<const Real>(x),
        x_stride,
        at<const Real>(target),
        target_stride,
        at<const Real>(weight),
        at<const Real>(modulation),
        conditions,
        at<Real>(loss),
        {at<Real>(w1), at<Real>(b1), at<Real>(w2), at<Real>(b2), at<Real>(w3), at<Real>(b3), at<Real>(by_modulation)}};
}

// (x, g, h1, h2, d1, d2, loss, straddle), see `ScoreMatchingChunk`
using BuffersTuple = std::tuple<std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t,
                                std::uintptr_t, std::uintptr_t, std::uintptr_t>;
// (a, a_stride, a_columns, b, b_stride, b_columns, out, sums)
using ProductTuple = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::uintptr_t, std::int64_t, std::int64_t,
                                std::uintptr_t, std::uintptr_t>;

fi::ScoreMatchingChunk chunk_of(const BuffersTuple& buffers) {
    const auto& [x, g, h1, h2, d1, d2, loss, straddle] = buffers;
    fi::ScoreMatchingChunk chunk{};
    chunk.x = at<float>(x);
    chunk.g = at<float>(g);
    chunk.h[0] = at<float>(h1);
    chunk.h[1] = at<float>(h2);
    chunk.d[0] = at<float>(d1);
    chunk.d[1] = at<float>(d2);
    chunk.loss = at<double>(loss);
    chunk.straddle = at<float>(straddle);
    return chunk;
}

fi::OuterProduct product_of(const ProductTuple& product) {
    const auto& [a, a_stride, a_columns, b, b_stride, b_columns, out, sums] = product;
    return {at<const float>(a), a_stride,  a_columns,      at<const float>(b),
            b_stride,           b_columns, at<float>(out), at<float>(sums)};
}

// A step that several processes share.
void bind_shared(py::module_& m) {
    m.def(
        "score_matching_layout",
        [](std::string_view isa, std::int64_t hidden, std::int64_t dim) {
            const auto layout = fi::score_matching_layout(fi::isa_from_name(isa), hidden, dim);
            return std::make_tuple(layout.slice_rows, layout.stride, layout.dim_stride);
        },
        py::arg("isa"), py::arg("hidden"), py::arg("dim"));
    m.def(
        "score_matching_slices",
        [](std::string_view isa, int threads, const WeightsTuple& weights, std::int64_t rows, std::uintptr_t x,
           std::int64_t x_stride, std::uintptr_t target, std::int64_t target_stride, std::uintptr_t weight,
           std::uintptr_t modulation, std::int64_t conditions, const GradientsTuple& gradients,
           const BuffersTuple& buffers, std::int64_t first, std::int64_t last) {
            const auto args = score_matching_args<float>(rows, x, x_stride, target, target_stride, weight, modulation,
                                                         conditions, gradients);
            const py::gil_scoped_release release;
            fi::score_matching_slices(fi::isa_from_name(isa), mlp_weights<float>(weights), threads, args,
                                      chunk_of(buffers), {first, last});
        },
        py::arg("isa"), py::arg("threads"), py::arg("weights"), py::arg("rows"), py::arg("x"), py::arg("x_stride"),
        py::arg("target"), py::arg("target_stride"), py::arg("weight"), py::arg("modulation"), py::arg("conditions"),
        py::arg("gradients"), py::arg("buffers"), py::arg("first"), py::arg("last"));
    m.def(
        "score_matching_products",
        [](std::string_view isa, int threads, std::int64_t rows, const std::array<ProductTuple, 3>& products) {
            const py::gil_scoped_release release;
            fi::score_matching_products(fi::isa_from_name(isa), threads, rows,
                                        {product_of(products[0]), product_of(products[1]), product_of(products[2])});
        },
        py::arg("isa"), py::arg("threads"), py::arg("rows"), py::arg("products"));
}

}  // namespace

void bind_score_matching(py::module_& m) {
    m.def(
        "score_matching",
        [](std::string_view isa, int threads, const WeightsTuple& weights, std::int64_t rows, std::uintptr_t x,
           std::int64_t x_stride, std::uintptr_t target, std::int64_t target_stride, std::uintptr_t weight,
           std::uintptr_t modulation, std::int64_t conditions, const GradientsTuple& gradients) {
            const auto args = score_matching_args<float>(rows, x, x_stride, target, target_stride, weight, modulation,
                                                         conditions, gradients);
            const py::gil_scoped_release release;
            fi::score_matching(fi::isa_from_name(isa), mlp_weights<float>(weights), threads, args);
        },
        py::arg("isa"), py::arg("threads"), py::arg("weights"), py::arg("rows"), py::arg("x"), py::arg("x_stride"),
        py::arg("target"), py::arg("target_stride"), py::arg("weight"), py::arg("modulation"), py::arg("conditions"),
        py::arg("gradients"));
    m.def(
        "score_matching_ref_f64",
        [](const WeightsTuple& weights, std::int64_t rows, std::uintptr_t x, std::int64_t x_stride,
           std::uintptr_t target, std::int64_t target_stride, std::uintptr_t weight, std::uintptr_t modulation,
           std::int64_t conditions, const GradientsTuple& gradients) {
            const auto args = score_matching_args<double>(rows, x, x_stride, target, target_stride, weight, modulation,
                                                          conditions, gradients);
            const py::gil_scoped_release release;
            fi::score_matching_ref(mlp_weights<double>(weights), args);
        },
        py::arg("weights"), py::arg("rows"), py::arg("x"), py::arg("x_stride"), py::arg("target"),
        py::arg("target_stride"), py::arg("weight"), py::arg("modulation"), py::arg("conditions"),
        py::arg("gradients"));
    bind_shared(m);
}
