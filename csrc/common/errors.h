#pragma once

#include <string>
#include <string_view>

namespace fastimpute {

// Throws std::invalid_argument "<op>: <argument> must be <expected>, got <got>" (ValueError in Python).
[[noreturn]] void throw_invalid(std::string_view op, std::string_view argument, std::string_view expected,
                                std::string_view got);
[[noreturn]] void throw_invalid(std::string_view op, std::string_view argument, std::string_view expected,
                                long long got);
[[noreturn]] void throw_invalid(std::string_view op, std::string_view argument, std::string_view expected, double got);

}  // namespace fastimpute
