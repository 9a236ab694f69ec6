#include "dit_block/dit_pack.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "common/errors.h"
#include "dit_block/dit_checks.h"

namespace fastimpute {
namespace {

constexpr std::string_view kOp = "DitPack";

// Round to nearest, ties to even; NaN stays NaN.
std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
    return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// The eight arrays with their sizes, in the order of the arguments.
std::array<std::pair<const float*, std::int64_t>, 8> arrays(const DitWeights<float>& w) {
    const std::int64_t hidden = w.hidden, inner = w.inner;
    return {{{w.qkv, 3 * hidden * hidden},
             {w.b_qkv, 3 * hidden},
             {w.proj, hidden * hidden},
             {w.b_proj, hidden},
             {w.up, inner * hidden},
             {w.b_up, inner},
             {w.down, hidden * inner},
             {w.b_down, hidden}}};
}

}  // namespace

DitPack::DitPack(Isa isa, Precision precision, const DitWeights<float>& weights) : isa_(isa), weights_(weights) {
    check_dit_weights(kOp, weights);
    if (!isa_usable(isa)) throw_invalid(kOp, "isa", "usable on this machine", isa_name(isa));
    if (isa != Isa::kRef) {
        kernels_ = find_dit_kernels(isa, precision);
        check_dit_vector_sizes(kOp, weights);
    } else if (precision == Precision::kBf16) {
        throw_invalid(kOp, "precision", "fp32 for isa \"ref\"", std::string_view("bf16"));
    }
    const auto given = arrays(weights);
    const std::array<const float**, 8> kept = {&weights_.qkv, &weights_.b_qkv, &weights_.proj, &weights_.b_proj,
                                               &weights_.up,  &weights_.b_up,  &weights_.down, &weights_.b_down};
    for (std::size_t i = 0; i < given.size(); ++i) *kept[i] = keep(given[i].first, given[i].second);
    if (kernels_) pack();
}

bool DitPack::holds(const std::vector<const float*>& values) const {
    const auto kept = arrays(weights_);
    for (std::size_t i = 0; i < kept.size() && i < values.size(); ++i) {
        const auto bytes = static_cast<std::size_t>(kept[i].second) * sizeof(float);
        if (values[i] != nullptr && std::memcmp(kept[i].first, values[i], bytes) != 0) return false;
    }
    return true;
}

const float* DitPack::keep(const float* values, std::int64_t count, float scale) {
    storage_.emplace_back(static_cast<std::size_t>(count) * sizeof(float));
    auto* kept = reinterpret_cast<float*>(storage_.back().data());
    for (std::int64_t i = 0; i < count; ++i) kept[i] = values[i] * scale;
    return kept;
}

RowTiles DitPack::tiles(const float* weights, std::int64_t outputs, std::int64_t inputs, float scale) {
    const std::int64_t rows = kernels_->tile_rows, step = kernels_->inputs_per_step;
    const auto element = step == 2 ? sizeof(std::uint16_t) : sizeof(float);
    storage_.emplace_back(static_cast<std::size_t>(outputs * inputs) * element);
    std::byte* data = storage_.back().data();
    for (std::int64_t o = 0; o < outputs; ++o) {
        for (std::int64_t i = 0; i < inputs; ++i) {
            const float value = weights[o * inputs + i] * scale;
            const std::int64_t at = o / rows * rows * inputs + (i / step * rows + o % rows) * step + i % step;
            if (step == 2) {
                reinterpret_cast<std::uint16_t*>(data)[at] = to_bf16(value);
            } else {
                reinterpret_cast<float*>(data)[at] = value;
            }
        }
    }
    return {data, inputs, outputs};
}

void DitPack::pack() {
    const std::int64_t hidden = weights_.hidden, inner = weights_.inner;
    const double head = static_cast<double>(hidden / weights_.heads);
    const auto scale = static_cast<float>(1.4426950408889634 / std::sqrt(head));
    packed_.hidden = hidden;
    packed_.heads = weights_.heads;
    packed_.inner = inner;
    packed_.query = tiles(weights_.qkv, hidden, hidden, scale);
    packed_.key = tiles(weights_.qkv + hidden * hidden, hidden, hidden);
    packed_.value = tiles(weights_.qkv + 2 * hidden * hidden, hidden, hidden);
    packed_.proj = tiles(weights_.proj, hidden, hidden);
    packed_.up = tiles(weights_.up, inner, hidden);
    packed_.down = tiles(weights_.down, hidden, inner);
    packed_.b_query = keep(weights_.b_qkv, hidden, scale);
    packed_.b_key = weights_.b_qkv + hidden;
    packed_.b_value = weights_.b_qkv + 2 * hidden;
    packed_.b_proj = weights_.b_proj;
    packed_.b_up = weights_.b_up;
    packed_.b_down = weights_.b_down;
}

}  // namespace fastimpute
