#include "bind_cuda.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>

#include "bind_arguments.h"
#include "bind_mlp.h"
#include "bind_recursion.h"
#include "common/driver.h"
#include "common/mlp_pack_cuda.h"
#include "energy_mlp/energy_body_cuda.h"
#include "energy_mlp/energy_mlp_cuda.h"
#include "particle_step/particle_step_cuda.h"
#include "proximal_recursion/proximal_recursion_cuda.h"
#include "score_mlp/score_mlp_cuda.h"
#include "spt_weights/spt_weights_cuda.h"

// The module `_cuda`: kernels for the current CUDA device. Addresses are the device's, `stream` is a cudaStream_t as an
// integer; calls return when the work is queued.

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

// (m, m_stride, v, v_stride, beta1, beta2, eps, correction1, correction2); m = 0: plain steps.
using MomentsTuple =
    std::tuple<std::uintptr_t, std::int64_t, std::uintptr_t, std::int64_t, double, double, double, double, double>;

void bind_spt_weights(py::module_& m) {
    m.def(
        "spt_weights",
        [](std::uintptr_t stream, std::int64_t rows, std::int64_t group, std::uintptr_t log_w, std::uintptr_t log_p,
           std::uintptr_t score_sq, std::uintptr_t log_ref, std::uintptr_t log_w_new, std::uintptr_t mass, double gamma,
           double eta_w, double tau, double bound, bool robust) {
            const fi::SptWeights<float> params = {rows,
                                                  group,
                                                  at<const float>(log_w),
                                                  at<const float>(log_p),
                                                  at<const float>(score_sq),
                                                  at<const float>(log_ref),
                                                  at<float>(log_w_new),
                                                  at<float>(mass),
                                                  static_cast<float>(gamma),
                                                  static_cast<float>(eta_w),
                                                  static_cast<float>(tau),
                                                  static_cast<float>(bound),
                                                  robust};
            const py::gil_scoped_release release;
            fi::cuda::spt_weights(params, stream);
        },
        py::arg("stream"), py::arg("rows"), py::arg("group"), py::arg("log_w"), py::arg("log_p"), py::arg("score_sq"),
        py::arg("log_ref"), py::arg("log_w_new"), py::arg("mass"), py::arg("gamma"), py::arg("eta_w"), py::arg("tau"),
        py::arg("bound"), py::arg("robust"));
}

void bind_particle_step(py::module_& m) {
    m.def(
        "particle_step",
        [](std::uintptr_t stream, std::int64_t rows, std::int64_t dim, std::uintptr_t x, std::int64_t x_stride,
           std::uintptr_t direction, std::int64_t direction_stride, std::uintptr_t mass, std::uintptr_t missing,
           std::int64_t missing_stride, std::uintptr_t x_new, std::int64_t x_new_stride, double eta, double drift,
           const MomentsTuple& moments, const NoiseTuple& noise) {
            const auto& [first, first_stride, second, second_stride, beta1, beta2, eps, correction1, correction2] =
                moments;
            const fi::ParticleStep<float> params = {
                rows,
                dim,
                at<const float>(x),
                x_stride,
                at<const float>(direction),
                direction_stride,
                at<const float>(mass),
                at<const std::uint8_t>(missing),
                missing_stride,
                at<float>(x_new),
                x_new_stride,
                static_cast<float>(eta),
                static_cast<float>(drift),
                {at<float>(first), first_stride, at<float>(second), second_stride, beta1, beta2,
                 static_cast<float>(eps), static_cast<float>(correction1), static_cast<float>(correction2)},
                noise_of(noise)};
            const py::gil_scoped_release release;
            fi::cuda::particle_step(params, stream);
        },
        py::arg("stream"), py::arg("rows"), py::arg("dim"), py::arg("x"), py::arg("x_stride"), py::arg("direction"),
        py::arg("direction_stride"), py::arg("mass"), py::arg("missing"), py::arg("missing_stride"), py::arg("x_new"),
        py::arg("x_new_stride"), py::arg("eta"), py::arg("drift"), py::arg("moments"), py::arg("noise"));
}

void bind_networks(py::module_& m) {
    m.def(
        "mlp_pack_bytes",
        [](std::string_view head, std::int64_t dim) { return fi::cuda::mlp_pack_bytes(head_from_name(head), dim); },
        py::arg("head"), py::arg("dim"));
    m.def(
        "mlp_refusal",
        [](std::string_view head, std::int64_t hidden, std::int64_t dim) {
            return fi::cuda::mlp_refusal(head_from_name(head), hidden, dim, fi::cuda::shared_limit());
        },
        py::arg("head"), py::arg("hidden"), py::arg("dim"));
    m.def(
        "pack_mlp",
        [](std::string_view head, std::int64_t hidden, std::int64_t dim, std::uintptr_t w1, std::uintptr_t b1,
           std::uintptr_t w2, std::uintptr_t b2, std::uintptr_t w3, std::uintptr_t b3, std::uintptr_t out) {
            const fi::MlpWeights<float> weights = mlp_weights<float>({hidden, dim, w1, b1, w2, b2, w3, b3, 0, 0});
            const py::gil_scoped_release release;
            fi::cuda::pack_mlp(head_from_name(head), weights, at<void>(out));
        },
        py::arg("head"), py::arg("hidden"), py::arg("dim"), py::arg("w1"), py::arg("b1"), py::arg("w2"), py::arg("b2"),
        py::arg("w3"), py::arg("b3"), py::arg("out"));
}

void bind_score_mlp(py::module_& m) {
    m.def(
        "score_mlp",
        [](std::uintptr_t stream, std::int64_t dim, std::uintptr_t pack, std::uintptr_t precision_matrix,
           std::uintptr_t mean, std::int64_t rows, std::uintptr_t x, std::int64_t x_stride, std::uintptr_t sigma,
           std::uintptr_t modulation, std::int64_t modulation_rows, std::uintptr_t modulation_index,
           std::uintptr_t score, std::int64_t score_stride) {
            const fi::cuda::ScoreMlpCuda call = {
                {rows,
                 at<const float>(x),
                 x_stride,
                 at<const float>(sigma),
                 {at<const float>(modulation), modulation_rows, at<const std::int64_t>(modulation_index)},
                 at<float>(score),
                 score_stride},
                dim,
                at<const void>(pack),
                at<const float>(precision_matrix),
                at<const float>(mean)};
            const py::gil_scoped_release release;
            fi::cuda::score_mlp(call, stream);
        },
        py::arg("stream"), py::arg("dim"), py::arg("pack"), py::arg("precision_matrix"), py::arg("mean"),
        py::arg("rows"), py::arg("x"), py::arg("x_stride"), py::arg("sigma"), py::arg("modulation"),
        py::arg("modulation_rows"), py::arg("modulation_index"), py::arg("score"), py::arg("score_stride"));
}

void bind_energy_mlp(py::module_& m) {
    m.def("energy_scratch_bytes", &fi::cuda::energy_scratch_bytes, py::arg("want_hvp"));
    m.def(
        "energy_body",
        [](std::int64_t dim, bool gaussian, bool want_hvp) {
            const py::gil_scoped_release release;
            return fi::cuda::energy_body(dim, gaussian, want_hvp) == fi::cuda::EnergyBody::kGroups ? "wgmma"
                                                                                                   : "mma.sync";
        },
        py::arg("dim"), py::arg("gaussian"), py::arg("want_hvp"));
    m.def("permit_wgmma", &fi::cuda::permit_groups, py::arg("permitted"));
    m.def(
        "energy_mlp",
        [](std::uintptr_t stream, std::int64_t dim, std::uintptr_t pack, std::uintptr_t precision_matrix,
           std::uintptr_t mean, std::uintptr_t scratch, std::int64_t scratch_bytes, std::int64_t rows, std::uintptr_t x,
           std::int64_t x_stride, std::uintptr_t modulation, std::int64_t modulation_rows,
           std::uintptr_t modulation_index, std::uintptr_t vector, std::int64_t vector_stride, bool want_hvp,
           std::uintptr_t log_p, std::uintptr_t score, std::int64_t score_stride, std::uintptr_t hvp,
           std::int64_t hvp_stride) {
            const fi::cuda::EnergyMlpCuda call = {
                {rows,
                 at<const float>(x),
                 x_stride,
                 {at<const float>(modulation), modulation_rows, at<const std::int64_t>(modulation_index)},
                 at<const float>(vector),
                 vector_stride,
                 want_hvp,
                 at<float>(log_p),
                 at<float>(score),
                 score_stride,
                 at<float>(hvp),
                 hvp_stride},
                dim,
                at<const void>(pack),
                at<const float>(precision_matrix),
                at<const float>(mean),
                at<void>(scratch),
                scratch_bytes};
            const py::gil_scoped_release release;
            fi::cuda::energy_mlp(call, stream);
        },
        py::arg("stream"), py::arg("dim"), py::arg("pack"), py::arg("precision_matrix"), py::arg("mean"),
        py::arg("scratch"), py::arg("scratch_bytes"), py::arg("rows"), py::arg("x"), py::arg("x_stride"),
        py::arg("modulation"), py::arg("modulation_rows"), py::arg("modulation_index"), py::arg("vector"),
        py::arg("vector_stride"), py::arg("want_hvp"), py::arg("log_p"), py::arg("score"), py::arg("score_stride"),
        py::arg("hvp"), py::arg("hvp_stride"));
}

void bind_proximal_recursion(py::module_& m) {
    const auto call_of = [](std::string_view head, const SeriesTuple& series, const PatchesTuple& patches,
                            const ConditionTuple& condition, std::int64_t iterations, double eta, const SptTuple& spt,
                            const AdamTuple& adam, const DissipationTuple& dissipation) {
        return fi::cuda::RecursionCuda{
            recursion_args<float>(series, patches, condition, iterations, eta, spt, adam, dissipation),
            head_from_name(head),
            1,
            nullptr,
            nullptr,
            nullptr,
            nullptr,
            0};
    };
    m.def("group_refusal", &fi::cuda::group_refusal, py::arg("group"));
    m.def(
        "recursion_scratch_bytes",
        [=](std::string_view head, const SeriesTuple& series, const PatchesTuple& patches,
            const ConditionTuple& condition, std::int64_t iterations, double eta, const SptTuple& spt,
            const AdamTuple& adam, const DissipationTuple& dissipation) {
            return fi::cuda::recursion_scratch_bytes(
                call_of(head, series, patches, condition, iterations, eta, spt, adam, dissipation));
        },
        py::arg("head"), py::arg("series"), py::arg("patches"), py::arg("condition"), py::arg("iterations"),
        py::arg("eta"), py::arg("spt"), py::arg("adam"), py::arg("dissipation"));
    m.def(
        "proximal_recursion",
        [=](std::uintptr_t stream, std::uintptr_t pack, std::uintptr_t precision_matrix, std::uintptr_t mean,
            std::uintptr_t scratch, std::int64_t scratch_bytes, std::int64_t cover, std::string_view head,
            const SeriesTuple& series, const PatchesTuple& patches, const ConditionTuple& condition,
            std::int64_t iterations, double eta, const SptTuple& spt, const AdamTuple& adam,
            const DissipationTuple& dissipation) {
            fi::cuda::RecursionCuda call =
                call_of(head, series, patches, condition, iterations, eta, spt, adam, dissipation);
            call.cover = cover;
            call.pack = at<const void>(pack);
            call.precision = at<const float>(precision_matrix);
            call.mean = at<const float>(mean);
            call.scratch = at<void>(scratch);
            call.scratch_bytes = scratch_bytes;
            const py::gil_scoped_release release;
            fi::cuda::proximal_recursion(call, stream);
        },
        py::arg("stream"), py::arg("pack"), py::arg("precision_matrix"), py::arg("mean"), py::arg("scratch"),
        py::arg("scratch_bytes"), py::arg("cover"), py::arg("head"), py::arg("series"), py::arg("patches"),
        py::arg("condition"), py::arg("iterations"), py::arg("eta"), py::arg("spt"), py::arg("adam"),
        py::arg("dissipation"));
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "CUDA kernels of fastimpute: raw device addresses in, no torch.";
    m.def("why_unusable", &fi::cuda::why_unusable);
    bind_spt_weights(m);
    bind_particle_step(m);
    bind_networks(m);
    bind_energy_mlp(m);
    bind_score_mlp(m);
    bind_proximal_recursion(m);
    bind_diffusion(m);
    bind_unrolled_attention_cuda(m);
    bind_gaussian_cuda(m);
}
