#include "proximal_recursion/overlap_average.h"

#include <algorithm>

namespace fastimpute {

OverlapAverage::OverlapAverage(const ProximalRecursionArgs<float>& args)
    : args_(args), sum_(static_cast<std::size_t>(args.window * args.sensors)), weight_(sum_.size()) {}

void OverlapAverage::add(std::int64_t patch, const float* x, float mass) {
    const std::int64_t start = args_.starts[patch / args_.sets];
    write_rows(start);
    const std::int64_t* columns = args_.columns + patch % args_.sets * args_.width;
    for (std::int64_t l = 0; l < args_.window; ++l) {
        const std::int64_t ring = (start + l) % args_.window * args_.sensors;
        double* sum = sum_.data() + ring;
        double* weight = weight_.data() + ring;
        const float* values = x + l * args_.width;
        for (std::int64_t j = 0; j < args_.width; ++j) {
            sum[columns[j]] += static_cast<double>(mass) * static_cast<double>(values[j]);
            weight[columns[j]] += static_cast<double>(mass);
        }
    }
}

void OverlapAverage::finish() { write_rows(args_.steps); }

void OverlapAverage::write_rows(std::int64_t end) {
    for (; written_ < end; ++written_) {
        const float* series = args_.series + written_ * args_.series_stride;
        const std::uint8_t* missing = args_.missing + written_ * args_.missing_stride;
        float* out = args_.out + written_ * args_.out_stride;
        double* sum = sum_.data() + written_ % args_.window * args_.sensors;
        double* weight = weight_.data() + written_ % args_.window * args_.sensors;
        for (std::int64_t j = 0; j < args_.sensors; ++j) {
            out[j] = missing[j] && weight[j] > 0 ? static_cast<float>(sum[j] / weight[j]) : series[j];
        }
        std::fill(sum, sum + args_.sensors, 0.0);
        std::fill(weight, weight + args_.sensors, 0.0);
    }
}

}  // namespace fastimpute
