#pragma once

#include <cstdint>
#include <string_view>

#include "dit_block/dit_block.h"

namespace fastimpute {

// Each throws std::invalid_argument that names `op` and the argument.
void check_dit_address(std::string_view op, std::string_view name, const void* data);
void check_dit_weights(std::string_view op, const DitWeights<float>& weights);
// Widths that the vector kernels can serve.
void check_dit_vector_sizes(std::string_view op, const DitWeights<float>& weights);
// Whether there is anything to do.
bool check_dit_counts(std::string_view op, const DitBlockArgs<float>& args);
// What is read.
void check_dit_inputs(std::string_view op, const DitBlockArgs<float>& args);

}  // namespace fastimpute
