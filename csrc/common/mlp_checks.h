#pragma once

#include <cstdint>
#include <string_view>

#include "common/mlp.h"

namespace fastimpute {

// What the network ops check of their arguments; each throws std::invalid_argument naming op and argument.
void check_rows(std::string_view op, std::int64_t rows);
void check_matrix(std::string_view op, std::string_view name, const void* data, std::int64_t rows, std::int64_t stride,
                  std::int64_t columns);
// Also that every index is in range.
void check_modulation(std::string_view op, const Modulation<float>& modulation, std::int64_t rows);

}  // namespace fastimpute
