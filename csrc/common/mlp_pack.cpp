#include "common/mlp_pack.h"

#include <bit>
#include <cstring>
#include <string>

#include "common/errors.h"
#include "common/mlp_kernels.h"

namespace fastimpute {
namespace {

constexpr std::string_view kOp = "MlpPack";

// Round to nearest, ties to even; NaN stays NaN.
std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
    return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

std::int64_t round_up_to(std::int64_t value, std::int64_t step) { return (value + step - 1) / step * step; }

// Minus its mean over the outputs (rows), per input.
std::vector<float> centred(const float* w, std::int64_t outputs, std::int64_t inputs) {
    std::vector<double> mean(static_cast<std::size_t>(inputs));
    for (std::int64_t o = 0; o < outputs; ++o) {
        for (std::int64_t i = 0; i < inputs; ++i) mean[i] += w[o * inputs + i];
    }
    std::vector<float> result(static_cast<std::size_t>(outputs * inputs));
    for (std::int64_t o = 0; o < outputs; ++o) {
        for (std::int64_t i = 0; i < inputs; ++i) {
            result[o * inputs + i] = static_cast<float>(w[o * inputs + i] - mean[i] / static_cast<double>(outputs));
        }
    }
    return result;
}

// w w^T, (outputs, outputs).
std::vector<float> gram(const std::vector<float>& w, std::int64_t outputs, std::int64_t inputs) {
    std::vector<float> result(static_cast<std::size_t>(outputs * outputs));
    for (std::int64_t i = 0; i < outputs; ++i) {
        for (std::int64_t j = 0; j <= i; ++j) {
            // Eight sums: more accurate than one, and the compiler may use vectors.
            double sum[8] = {};
            for (std::int64_t k = 0; k < inputs; ++k) {
                sum[k % 8] += static_cast<double>(w[i * inputs + k]) * w[j * inputs + k];
            }
            const double total = ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
            result[i * outputs + j] = result[j * outputs + i] = static_cast<float>(total);
        }
    }
    return result;
}

void require(const void* pointer, std::string_view name) {
    if (pointer == nullptr) throw_invalid(kOp, name, "an address", std::string_view("null"));
}

}  // namespace

MlpPack::MlpPack(Isa isa, Precision precision, Head head, const MlpWeights<float>& weights)
    : isa_(isa), precision_(precision), head_(head) {
    if (weights.hidden < 1) throw_invalid(kOp, "hidden", "at least 1", static_cast<long long>(weights.hidden));
    if (weights.dim < 1) throw_invalid(kOp, "dim", "at least 1", static_cast<long long>(weights.dim));
    require(weights.w1, "w1");
    require(weights.b1, "b1");
    require(weights.w2, "w2");
    require(weights.b2, "b2");
    require(weights.w3, "w3");
    require(weights.b3, "b3");
    if ((weights.precision == nullptr) != (weights.mean == nullptr)) {
        throw_invalid(kOp, "mean", "given exactly when precision_matrix is",
                      std::string_view(weights.mean ? "mean alone" : "precision_matrix alone"));
    }
    if (!isa_usable(isa)) throw_invalid(kOp, "isa", "usable on this machine", isa_name(isa));
    if (isa == Isa::kRef) {
        if (precision == Precision::kBf16)
            throw_invalid(kOp, "precision", "fp32 for isa \"ref\"", std::string_view("bf16"));
    } else {
        kernels_ = find_mlp_kernels(isa, precision);
        if (weights.hidden % 32 != 0 || weights.hidden > kMaxHidden) {
            throw_invalid(kOp, "hidden", "a multiple of 32 up to 1024 for the vector kernels",
                          static_cast<long long>(weights.hidden));
        }
    }
    keep_weights(weights);
    if (kernels_) pack();
}

const float* MlpPack::keep_vector(const float* values, std::int64_t size, std::int64_t padded) {
    storage_.emplace_back(static_cast<std::size_t>(padded) * sizeof(float));
    auto* kept = reinterpret_cast<float*>(storage_.back().data());
    std::memcpy(kept, values, static_cast<std::size_t>(size) * sizeof(float));
    return kept;
}

void MlpPack::keep_weights(const MlpWeights<float>& weights) {
    const std::int64_t hidden = weights.hidden, dim = weights.dim;
    const auto keep = [this](const float* values, std::int64_t size) {
        return values ? keep_vector(values, size, size) : nullptr;
    };
    const bool direct = head_ == Head::kDirect;
    weights_ = {hidden,
                dim,
                keep(weights.w1, hidden * dim),
                keep(weights.b1, hidden),
                keep(weights.w2, hidden * hidden),
                keep(weights.b2, hidden),
                keep(weights.w3, direct ? dim * hidden : hidden),
                keep(weights.b3, direct ? dim : 1),
                keep(weights.precision, dim * dim),
                keep(weights.mean, dim)};
}

PackedMatrix MlpPack::pack_matrix(const float* b, std::int64_t inputs, std::int64_t outputs, std::int64_t input_stride,
                                  std::int64_t output_stride, PackLayout layout) {
    const std::int64_t step = layout.inputs_per_step;
    const std::int64_t rows = round_up_to(inputs, step);
    const std::int64_t vectors = round_up_to(outputs, layout.lanes) / layout.lanes;
    const std::int64_t element = step == 2 ? sizeof(std::uint16_t) : sizeof(float);
    storage_.emplace_back(static_cast<std::size_t>(rows * vectors * layout.lanes * element));
    std::byte* data = storage_.back().data();
    for (std::int64_t vector = 0; vector < vectors;) {
        const std::int64_t left = vectors - vector;
        const std::int64_t in_panel = left == 1 ? 1 : (vectors % 2 == 1 && left == layout.odd_panel) ? left : 2;
        const std::int64_t width = in_panel * layout.lanes, first = vector * layout.lanes;
        for (std::int64_t i = 0; i < inputs; ++i) {
            for (std::int64_t o = 0; o < width && first + o < outputs; ++o) {
                const float value = b[i * input_stride + (first + o) * output_stride];
                const std::int64_t at = first * rows + (i / step * width + o) * step + i % step;
                if (step == 2) {
                    reinterpret_cast<std::uint16_t*>(data)[at] = to_bf16(value);
                } else {
                    reinterpret_cast<float*>(data)[at] = value;
                }
            }
        }
        vector += in_panel;
    }
    return {data, inputs, outputs};
}

void MlpPack::pack() {
    const std::int64_t hidden = weights_.hidden, dim = weights_.dim;
    const PackLayout layout = kernels_->layout;
    const PackLayout exact{layout.lanes, layout.odd_panel, 1};
    const std::vector<float> w1 = centred(weights_.w1, hidden, dim), w2 = centred(weights_.w2, hidden, hidden);
    const std::vector<float> b1 = centred(weights_.b1, hidden, 1), b2 = centred(weights_.b2, hidden, 1);
    const bool energy = head_ == Head::kEnergy;

    packed_.hidden = hidden;
    packed_.dim = dim;
    packed_.w1 = pack_matrix(w1.data(), dim, hidden, 1, dim, layout);
    packed_.w2 = pack_matrix(w2.data(), hidden, hidden, 1, hidden, layout);
    if (energy) {
        packed_.w2_back = pack_matrix(w2.data(), hidden, hidden, hidden, 1, layout);
        packed_.w1_back = pack_matrix(w1.data(), hidden, dim, dim, 1, layout);
        if (dim > hidden && weights_.precision == nullptr) {
            const std::vector<float> product = gram(w1, hidden, dim);
            packed_.gram = pack_matrix(product.data(), hidden, hidden, hidden, 1, layout);
        }
    } else {
        packed_.w3_direct = pack_matrix(weights_.w3, hidden, dim, 1, hidden, layout);
    }
    if (weights_.precision) {
        std::vector<float> pull(static_cast<std::size_t>(dim * dim));
        for (std::size_t i = 0; i < pull.size(); ++i) pull[i] = -weights_.precision[i];
        packed_.pull = pack_matrix(pull.data(), dim, dim, dim, 1, exact);
    }
    packed_.b1 = keep_vector(b1.data(), hidden, hidden);
    packed_.b2 = keep_vector(b2.data(), hidden, hidden);
    packed_.w3 = energy ? weights_.w3 : nullptr;
    packed_.b3 = energy ? weights_.b3 : keep_vector(weights_.b3, dim, round_up_to(dim, 3 * layout.lanes));
    packed_.mean = weights_.mean;
}

}  // namespace fastimpute
