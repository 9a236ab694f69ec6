#include "common/errors.h"

#include <sstream>
#include <stdexcept>

namespace fastimpute {

void throw_invalid(std::string_view op, std::string_view argument, std::string_view expected, std::string_view got) {
    std::ostringstream message;
    message << op << ": " << argument << " must be " << expected << ", got " << got;
    throw std::invalid_argument(message.str());
}

void throw_invalid(std::string_view op, std::string_view argument, std::string_view expected, long long got) {
    throw_invalid(op, argument, expected, std::string_view(std::to_string(got)));
}

void throw_invalid(std::string_view op, std::string_view argument, std::string_view expected, double got) {
    std::ostringstream text;
    text << got;
    throw_invalid(op, argument, expected, std::string_view(text.str()));
}

}  // namespace fastimpute
