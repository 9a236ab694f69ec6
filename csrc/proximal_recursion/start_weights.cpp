#include <algorithm>
#include <cmath>

#include "proximal_recursion/proximal_recursion.h"

namespace fastimpute {

template <typename T>
void start_weights(const ProximalRecursionArgs<T>& args) {
    for (std::int64_t begin = 0; begin < args.patches(); begin += args.group) {
        const std::int64_t end = std::min(begin + args.group, args.patches());
        if (args.log_ref == nullptr) {
            std::fill(args.log_w + begin, args.log_w + end,
                      static_cast<T>(-std::log(static_cast<double>(end - begin))));
            continue;
        }
        const double highest = *std::max_element(args.log_ref + begin, args.log_ref + end);
        double sum = 0;
        for (std::int64_t i = begin; i < end; ++i) sum += std::exp(static_cast<double>(args.log_ref[i]) - highest);
        const double shift = highest + std::log(sum);
        for (std::int64_t i = begin; i < end; ++i) args.log_w[i] = static_cast<T>(args.log_ref[i] - shift);
    }
}

template void start_weights<float>(const ProximalRecursionArgs<float>&);
template void start_weights<double>(const ProximalRecursionArgs<double>&);

}  // namespace fastimpute
