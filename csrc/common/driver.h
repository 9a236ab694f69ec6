#pragma once

#include <optional>
#include <string>

namespace fastimpute::cuda {

// Why no kernel can run here, or none.
std::optional<std::string> why_unusable();

}  // namespace fastimpute::cuda
