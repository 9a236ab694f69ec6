#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "bind_diffusion.h"
#include "bind_dit_block.h"
#include "bind_gaussian_whitening.h"
#include "bind_unrolled_attention.h"
#include "common/cpu_features.h"
#include "common/errors.h"
#include "common/mlp_pack.h"
#include "common/peak.h"
#include "energy_mlp/energy_mlp.h"
#include "gaussian_conditional/gaussian_conditional.h"
#include "particle_step/particle_step.h"
#include "proximal_recursion/proximal_recursion.h"
#include "score_matching/score_matching.h"
#include "score_mlp/score_mlp.h"
#include "spt_weights/spt_weights.h"

namespace py = pybind11;
namespace fi = fastimpute;

namespace {

// Tensors come in as addresses; zero stands for an absent one.
template <typename T>
T* at(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

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

template <typename Real>
fi::SptWeights<Real> spt_weights_params(std::int64_t rows, std::int64_t group, std::uintptr_t log_w,
                                        std::uintptr_t log_p, std::uintptr_t score_sq, std::uintptr_t log_ref,
                                        std::uintptr_t log_w_new, std::uintptr_t mass, double gamma, double eta_w,
                                        double tau, double bound, bool robust) {
    return {rows,
            group,
            at<const Real>(log_w),
            at<const Real>(log_p),
            at<const Real>(score_sq),
            at<const Real>(log_ref),
            at<Real>(log_w_new),
            at<Real>(mass),
            static_cast<Real>(gamma),
            static_cast<Real>(eta_w),
            static_cast<Real>(tau),
            static_cast<Real>(bound),
            robust};
}

void bind_spt_weights(py::module_& m) {
    m.def(
        "spt_weights",
        [](std::string_view isa, int threads, std::int64_t rows, std::int64_t group, std::uintptr_t log_w,
           std::uintptr_t log_p, std::uintptr_t score_sq, std::uintptr_t log_ref, std::uintptr_t log_w_new,
           std::uintptr_t mass, double gamma, double eta_w, double tau, double bound, bool robust) {
            const auto params = spt_weights_params<float>(rows, group, log_w, log_p, score_sq, log_ref, log_w_new, mass,
                                                          gamma, eta_w, tau, bound, robust);
            const py::gil_scoped_release release;
            fi::spt_weights(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("rows"), py::arg("group"), py::arg("log_w"), py::arg("log_p"),
        py::arg("score_sq"), py::arg("log_ref"), py::arg("log_w_new"), py::arg("mass"), py::arg("gamma"),
        py::arg("eta_w"), py::arg("tau"), py::arg("bound"), py::arg("robust"));
    m.def(
        "spt_weights_ref_f64",
        [](std::int64_t rows, std::int64_t group, std::uintptr_t log_w, std::uintptr_t log_p, std::uintptr_t score_sq,
           std::uintptr_t log_ref, std::uintptr_t log_w_new, std::uintptr_t mass, double gamma, double eta_w,
           double tau, double bound, bool robust) {
            const auto params = spt_weights_params<double>(rows, group, log_w, log_p, score_sq, log_ref, log_w_new,
                                                           mass, gamma, eta_w, tau, bound, robust);
            const py::gil_scoped_release release;
            fi::spt_weights_ref_f64(params);
        },
        py::arg("rows"), py::arg("group"), py::arg("log_w"), py::arg("log_p"), py::arg("score_sq"), py::arg("log_ref"),
        py::arg("log_w_new"), py::arg("mass"), py::arg("gamma"), py::arg("eta_w"), py::arg("tau"), py::arg("bound"),
        py::arg("robust"));
}

// (m, m_stride, v, v_stride, beta1, beta2, eps, correction1, correction2); m = 0: plain steps.
using MomentsTuple =
    std::tuple<std::uintptr_t, std::int64_t, std::uintptr_t, std::int64_t, double, double, double, double, double>;
// (seed, keys, keys_stride, sensors, sample, step); keys = 0: no noise.
using NoiseTuple = std::tuple<std::uint64_t, std::uintptr_t, std::int64_t, std::int64_t, std::uint32_t, std::uint32_t>;

template <typename Real>
fi::ParticleStep<Real> particle_step_params(std::int64_t rows, std::int64_t dim, std::uintptr_t x,
                                            std::int64_t x_stride, std::uintptr_t direction,
                                            std::int64_t direction_stride, std::uintptr_t mass, std::uintptr_t missing,
                                            std::int64_t missing_stride, std::uintptr_t x_new,
                                            std::int64_t x_new_stride, double eta, double drift,
                                            const MomentsTuple& moments, const NoiseTuple& noise) {
    const auto& [m, m_stride, v, v_stride, beta1, beta2, eps, correction1, correction2] = moments;
    const auto& [seed, keys, keys_stride, sensors, sample, step] = noise;
    return {rows,
            dim,
            at<const Real>(x),
            x_stride,
            at<const Real>(direction),
            direction_stride,
            at<const Real>(mass),
            at<const std::uint8_t>(missing),
            missing_stride,
            at<Real>(x_new),
            x_new_stride,
            static_cast<Real>(eta),
            static_cast<Real>(drift),
            {at<Real>(m), m_stride, at<Real>(v), v_stride, beta1, beta2, static_cast<Real>(eps),
             static_cast<Real>(correction1), static_cast<Real>(correction2)},
            {seed, at<const std::int64_t>(keys), keys_stride, sensors, sample, step}};
}

void bind_particle_step(py::module_& m) {
    m.def(
        "particle_step",
        [](std::string_view isa, int threads, std::int64_t rows, std::int64_t dim, std::uintptr_t x,
           std::int64_t x_stride, std::uintptr_t direction, std::int64_t direction_stride, std::uintptr_t mass,
           std::uintptr_t missing, std::int64_t missing_stride, std::uintptr_t x_new, std::int64_t x_new_stride,
           double eta, double drift, const MomentsTuple& moments, const NoiseTuple& noise) {
            const auto params =
                particle_step_params<float>(rows, dim, x, x_stride, direction, direction_stride, mass, missing,
                                            missing_stride, x_new, x_new_stride, eta, drift, moments, noise);
            const py::gil_scoped_release release;
            fi::particle_step(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("rows"), py::arg("dim"), py::arg("x"), py::arg("x_stride"),
        py::arg("direction"), py::arg("direction_stride"), py::arg("mass"), py::arg("missing"),
        py::arg("missing_stride"), py::arg("x_new"), py::arg("x_new_stride"), py::arg("eta"), py::arg("drift"),
        py::arg("moments"), py::arg("noise"));
    m.def(
        "particle_step_ref_f64",
        [](std::int64_t rows, std::int64_t dim, std::uintptr_t x, std::int64_t x_stride, std::uintptr_t direction,
           std::int64_t direction_stride, std::uintptr_t mass, std::uintptr_t missing, std::int64_t missing_stride,
           std::uintptr_t x_new, std::int64_t x_new_stride, double eta, double drift, const MomentsTuple& moments,
           const NoiseTuple& noise) {
            const auto params =
                particle_step_params<double>(rows, dim, x, x_stride, direction, direction_stride, mass, missing,
                                             missing_stride, x_new, x_new_stride, eta, drift, moments, noise);
            const py::gil_scoped_release release;
            fi::particle_step_ref_f64(params);
        },
        py::arg("rows"), py::arg("dim"), py::arg("x"), py::arg("x_stride"), py::arg("direction"),
        py::arg("direction_stride"), py::arg("mass"), py::arg("missing"), py::arg("missing_stride"), py::arg("x_new"),
        py::arg("x_new_stride"), py::arg("eta"), py::arg("drift"), py::arg("moments"), py::arg("noise"));
}

template <typename Real>
fi::GaussianConditional<Real> gaussian_conditional_params(std::int64_t rows, std::int64_t dim, std::uintptr_t x,
                                                          std::int64_t x_stride, std::uintptr_t missing,
                                                          std::int64_t missing_stride, std::uintptr_t mean,
                                                          std::uintptr_t covariance, std::uintptr_t precision,
                                                          std::uintptr_t filled, std::int64_t filled_stride,
                                                          std::uintptr_t deviation, std::int64_t deviation_stride) {
    return {rows,
            dim,
            at<const Real>(x),
            x_stride,
            at<const std::uint8_t>(missing),
            missing_stride,
            at<const double>(mean),
            at<const double>(covariance),
            at<const double>(precision),
            at<Real>(filled),
            filled_stride,
            at<Real>(deviation),
            deviation_stride};
}

void bind_gaussian_conditional(py::module_& m) {
    m.def(
        "gaussian_conditional",
        [](std::string_view isa, int threads, std::int64_t rows, std::int64_t dim, std::uintptr_t x,
           std::int64_t x_stride, std::uintptr_t missing, std::int64_t missing_stride, std::uintptr_t mean,
           std::uintptr_t covariance, std::uintptr_t precision, std::uintptr_t filled, std::int64_t filled_stride,
           std::uintptr_t deviation, std::int64_t deviation_stride) {
            const auto params =
                gaussian_conditional_params<float>(rows, dim, x, x_stride, missing, missing_stride, mean, covariance,
                                                   precision, filled, filled_stride, deviation, deviation_stride);
            const py::gil_scoped_release release;
            fi::gaussian_conditional(fi::isa_from_name(isa), params, threads);
        },
        py::arg("isa"), py::arg("threads"), py::arg("rows"), py::arg("dim"), py::arg("x"), py::arg("x_stride"),
        py::arg("missing"), py::arg("missing_stride"), py::arg("mean"), py::arg("covariance"), py::arg("precision"),
        py::arg("filled"), py::arg("filled_stride"), py::arg("deviation"), py::arg("deviation_stride"));
    m.def(
        "gaussian_conditional_ref_f64",
        [](std::int64_t rows, std::int64_t dim, std::uintptr_t x, std::int64_t x_stride, std::uintptr_t missing,
           std::int64_t missing_stride, std::uintptr_t mean, std::uintptr_t covariance, std::uintptr_t precision,
           std::uintptr_t filled, std::int64_t filled_stride, std::uintptr_t deviation, std::int64_t deviation_stride) {
            const auto params =
                gaussian_conditional_params<double>(rows, dim, x, x_stride, missing, missing_stride, mean, covariance,
                                                    precision, filled, filled_stride, deviation, deviation_stride);
            const py::gil_scoped_release release;
            fi::gaussian_conditional_ref_f64(params);
        },
        py::arg("rows"), py::arg("dim"), py::arg("x"), py::arg("x_stride"), py::arg("missing"),
        py::arg("missing_stride"), py::arg("mean"), py::arg("covariance"), py::arg("precision"), py::arg("filled"),
        py::arg("filled_stride"), py::arg("deviation"), py::arg("deviation_stride"));
}

fi::Precision precision_from_name(std::string_view name) {
    if (name == "fp32") return fi::Precision::kFp32;
    if (name == "bf16") return fi::Precision::kBf16;
    fi::throw_invalid("MlpPack", "precision", "\"fp32\" or \"bf16\"", name);
}

void bind_peak(py::module_& m) {
    m.def(
        "spin_peak",
        [](std::string_view isa, std::string_view precision, std::int64_t steps) {
            const py::gil_scoped_release release;
            return fi::spin_peak(fi::isa_from_name(isa), precision_from_name(precision), steps);
        },
        py::arg("isa"), py::arg("precision"), py::arg("steps"));
}

fi::Head head_from_name(std::string_view name) {
    if (name == "energy") return fi::Head::kEnergy;
    if (name == "direct") return fi::Head::kDirect;
    fi::throw_invalid("MlpPack", "head", "\"energy\" or \"direct\"", name);
}

// (hidden, dim, w1, b1, w2, b2, w3, b3, precision_matrix, mean)
using WeightsTuple = std::tuple<std::int64_t, std::int64_t, std::uintptr_t, std::uintptr_t, std::uintptr_t,
                                std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t>;

template <typename Real>
fi::MlpWeights<Real> mlp_weights(const WeightsTuple& weights) {
    const auto& [hidden, dim, w1, b1, w2, b2, w3, b3, precision_matrix, mean] = weights;
    return {hidden,
            dim,
            at<const Real>(w1),
            at<const Real>(b1),
            at<const Real>(w2),
            at<const Real>(b2),
            at<const Real>(w3),
            at<const Real>(b3),
            at<const Real>(precision_matrix),
            at<const Real>(mean)};
}

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

void bind_mlp_pack(py::module_& m) {
    py::class_<fi::MlpPack>(m, "MlpPack")
        .def(py::init([](std::string_view isa, std::string_view precision, std::string_view head, std::int64_t hidden,
                         std::int64_t dim, std::uintptr_t w1, std::uintptr_t b1, std::uintptr_t w2, std::uintptr_t b2,
                         std::uintptr_t w3, std::uintptr_t b3, std::uintptr_t precision_matrix, std::uintptr_t mean) {
                 const auto weights = mlp_weights<float>({hidden, dim, w1, b1, w2, b2, w3, b3, precision_matrix, mean});
                 const py::gil_scoped_release release;
                 return fi::MlpPack(fi::isa_from_name(isa), precision_from_name(precision), head_from_name(head),
                                    weights);
             }),
             py::arg("isa"), py::arg("precision"), py::arg("head"), py::arg("hidden"), py::arg("dim"), py::arg("w1"),
             py::arg("b1"), py::arg("w2"), py::arg("b2"), py::arg("w3"), py::arg("b3"), py::arg("precision_matrix"),
             py::arg("mean"))
        .def("holds", &holds, py::arg("addresses"))
        .def_property_readonly("isa", [](const fi::MlpPack& pack) { return std::string(fi::isa_name(pack.isa())); })
        .def_property_readonly("hidden", &fi::MlpPack::hidden)
        .def_property_readonly("dim", &fi::MlpPack::dim);
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
}

// (steps, sensors, series, series_stride, missing, missing_stride, out, out_stride)
using SeriesTuple = std::tuple<std::int64_t, std::int64_t, std::uintptr_t, std::int64_t, std::uintptr_t, std::int64_t,
                               std::uintptr_t, std::int64_t>;
// (windows, starts, window, sets, width, columns)
using PatchesTuple = std::tuple<std::int64_t, std::uintptr_t, std::int64_t, std::int64_t, std::int64_t, std::uintptr_t>;
// (modulation, modulation_rows, modulation_index, sigma)
using ConditionTuple = std::tuple<std::uintptr_t, std::int64_t, std::uintptr_t, double>;
// (group, log_ref, gamma, eta_w, tau, bound, robust, log_w)
using SptTuple = std::tuple<std::int64_t, std::uintptr_t, double, double, double, double, bool, std::uintptr_t>;
// (beta1, beta2, eps); None: plain steps.
using AdamTuple = std::optional<std::tuple<double, double, double>>;
// (seed, sample); None: no dissipation.
using DissipationTuple = std::optional<std::tuple<std::uint64_t, std::uint32_t>>;

template <typename Real>
fi::ProximalRecursionArgs<Real> recursion_args(const SeriesTuple& series_tuple, const PatchesTuple& patches,
                                               const ConditionTuple& condition, std::int64_t iterations, double eta,
                                               const SptTuple& spt, const AdamTuple& adam,
                                               const DissipationTuple& dissipation) {
    const auto& [steps, sensors, series, series_stride, missing, missing_stride, out, out_stride] = series_tuple;
    const auto& [windows, starts, window, sets, width, columns] = patches;
    const auto& [modulation, modulation_rows, modulation_index, sigma] = condition;
    const auto& [group, log_ref, gamma, eta_w, tau, bound, robust, log_w] = spt;
    const auto [beta1, beta2, adam_eps] = adam.value_or(std::tuple(0.0, 0.0, 0.0));
    const auto [seed, sample] = dissipation.value_or(std::tuple(std::uint64_t{0}, std::uint32_t{0}));
    return {steps,
            sensors,
            at<const Real>(series),
            series_stride,
            at<const std::uint8_t>(missing),
            missing_stride,
            windows,
            at<const std::int64_t>(starts),
            window,
            sets,
            width,
            at<const std::int64_t>(columns),
            at<const Real>(modulation),
            modulation_rows,
            at<const std::int64_t>(modulation_index),
            static_cast<Real>(sigma),
            iterations,
            static_cast<Real>(eta),
            static_cast<Real>(gamma),
            static_cast<Real>(eta_w),
            static_cast<Real>(tau),
            static_cast<Real>(bound),
            group,
            at<const Real>(log_ref),
            robust,
            adam.has_value(),
            static_cast<Real>(beta1),
            static_cast<Real>(beta2),
            static_cast<Real>(adam_eps),
            dissipation.has_value(),
            seed,
            sample,
            at<Real>(out),
            out_stride,
            at<Real>(log_w)};
}

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
