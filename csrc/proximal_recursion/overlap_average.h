#pragma once

#include <cstdint>
#include <vector>

#include "proximal_recursion/proximal_recursion.h"

namespace fastimpute {

// Weighted average of overlapping patches back into the series. Patches come in ascending order of their starts, so a
// ring of `window` rows of sums is enough: a row is final once a patch starts behind it. Always summed in the order of
// the patches, in double.
class OverlapAverage {
  public:
    explicit OverlapAverage(const ProximalRecursionArgs<float>& args);

    void add(std::int64_t patch, const float* x, float mass);
    // Writes the rows that are left.
    void finish();

  private:
    void write_rows(std::int64_t end);

    const ProximalRecursionArgs<float>& args_;
    std::int64_t written_ = 0;          // rows of the output that are final
    std::vector<double> sum_, weight_;  // (window, sensors); row r of the series is row r % window
};

}  // namespace fastimpute
