#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind_cuda.h"
#include "bind_unrolled.h"
#include "common/mlp_pack_cuda.h"
#include "unrolled_attention/unrolled_attention_cuda.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

// (decay, weight) of the preconditioner by gap; 0: none.
using LinksTuple = std::tuple<std::uintptr_t, std::uintptr_t>;

}  // namespace

void bind_unrolled_attention_cuda(py::module_& m) {
    m.def(
        "unrolled_attention_refusal",
        [](std::int64_t frames, std::int64_t channels) {
            return fi::cuda::unrolled_attention_refusal(frames, channels, fi::cuda::shared_limit());
        },
        py::arg("frames"), py::arg("channels"));
    m.def(
        "unrolled_attention",
        [](std::uintptr_t stream, const SequencesTuple& shape, const FramesTuple& data, const ProcessTuple& process,
           const RatesTuple& rates, const LinksTuple& links, std::uintptr_t score, std::uintptr_t conditional_mean) {
            const fi::cuda::UnrolledAttentionCuda call = {
                unrolled_attention_params<float>(shape, data, process, rates, 0.0, score, conditional_mean),
                at<const float>(std::get<0>(links)), at<const float>(std::get<1>(links))};
            const py::gil_scoped_release release;
            fi::cuda::unrolled_attention(call, stream);
        },
        py::arg("stream"), py::arg("shape"), py::arg("data"), py::arg("process"), py::arg("rates"), py::arg("links"),
        py::arg("score"), py::arg("conditional_mean"));
}
