#pragma once

#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>
#include <tuple>

#include "bind_arguments.h"
#include "common/errors.h"
#include "common/mlp.h"

// How the networks of `energy_mlp` and `score_mlp` come in, for all that run or train one.

// (hidden, dim, w1, b1, w2, b2, w3, b3, precision_matrix, mean)
using WeightsTuple = std::tuple<std::int64_t, std::int64_t, std::uintptr_t, std::uintptr_t, std::uintptr_t,
                                std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t, std::uintptr_t>;

template <typename Real>
fastimpute::MlpWeights<Real> mlp_weights(const WeightsTuple& weights) {
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

inline fastimpute::Head head_from_name(std::string_view name) {
    if (name == "energy") return fastimpute::Head::kEnergy;
    if (name == "direct") return fastimpute::Head::kDirect;
    fastimpute::throw_invalid("MlpPack", "head", "\"energy\" or \"direct\"", name);
}
