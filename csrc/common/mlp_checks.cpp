#include "common/mlp_checks.h"

#include <string>

#include "common/errors.h"

namespace fastimpute {

void check_rows(std::string_view op, std::int64_t rows) {
    if (rows < 0) throw_invalid(op, "rows", "at least 0", static_cast<long long>(rows));
}

void check_matrix(std::string_view op, std::string_view name, const void* data, std::int64_t rows, std::int64_t stride,
                  std::int64_t columns) {
    if (rows == 0) return;
    if (data == nullptr) throw_invalid(op, name, "an address", std::string_view("null"));
    if (rows > 1 && stride < columns) {
        throw_invalid(op, std::string(name) + "_stride", "at least " + std::to_string(columns),
                      static_cast<long long>(stride));
    }
}

void check_modulation(std::string_view op, const Modulation<float>& modulation, std::int64_t rows) {
    if (rows == 0) return;
    if (modulation.values == nullptr) throw_invalid(op, "modulation", "an address", std::string_view("null"));
    if (modulation.rows < 1)
        throw_invalid(op, "modulation_rows", "at least 1", static_cast<long long>(modulation.rows));
    if (modulation.index == nullptr) {
        if (modulation.rows != 1) {
            throw_invalid(op, "modulation_rows", "1 without modulation_index", static_cast<long long>(modulation.rows));
        }
        return;
    }
    for (std::int64_t i = 0; i < rows; ++i) {
        if (modulation.index[i] < 0 || modulation.index[i] >= modulation.rows) {
            throw_invalid(op, "modulation_index", "in [0, " + std::to_string(modulation.rows) + ")",
                          static_cast<long long>(modulation.index[i]));
        }
    }
}

}  // namespace fastimpute
