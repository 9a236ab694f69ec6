#include <string>

#include "common/errors.h"
#include "proximal_recursion/proximal_recursion.h"

namespace fastimpute {
namespace {

constexpr std::string_view kOp = "proximal_recursion";

void check_least(std::string_view name, std::int64_t value, std::int64_t least) {
    if (value < least) throw_invalid(kOp, name, "at least " + std::to_string(least), static_cast<long long>(value));
}

void check_address(std::string_view name, const void* data) {
    if (data == nullptr) throw_invalid(kOp, name, "an address", std::string_view("null"));
}

void check_in(std::string_view name, const std::int64_t* values, std::int64_t count, std::int64_t end) {
    for (std::int64_t i = 0; i < count; ++i) {
        if (values[i] < 0 || values[i] >= end) {
            throw_invalid(kOp, name, "in [0, " + std::to_string(end) + ")", static_cast<long long>(values[i]));
        }
    }
}

template <typename T>
void check_tables(const ProximalRecursionArgs<T>& args) {
    check_in("starts", args.starts, args.windows, args.steps - args.window + 1);
    for (std::int64_t s = 1; s < args.windows; ++s) {
        if (args.starts[s] < args.starts[s - 1]) {
            throw_invalid(kOp, "starts", "ascending",
                          std::to_string(args.starts[s - 1]) + " before " + std::to_string(args.starts[s]));
        }
    }
    check_in("columns", args.columns, args.sets * args.width, args.sensors);
    if (args.modulation_index) check_in("modulation_index", args.modulation_index, args.windows, args.modulation_rows);
}

template <typename T>
void check_patches(const ProximalRecursionArgs<T>& args) {
    check_address("starts", args.starts);
    check_address("columns", args.columns);
    check_address("log_w", args.log_w);
    check_address("modulation", args.modulation);
    if (args.modulation_index == nullptr && args.modulation_rows != 1) {
        throw_invalid(kOp, "modulation_rows", "1 without modulation_index",
                      static_cast<long long>(args.modulation_rows));
    }
}

template <typename T>
void check_steps(const ProximalRecursionArgs<T>& args, Head head) {
    const auto number = [](T value) { return static_cast<double>(value); };
    check_least("iterations", args.iterations, 0);
    check_least("group", args.group, 1);
    if (!(args.eta >= 0)) throw_invalid(kOp, "eta", "at least 0", number(args.eta));
    if (!(args.gamma >= 0)) throw_invalid(kOp, "gamma", "at least 0", number(args.gamma));
    if (!(args.eta_w >= 0)) throw_invalid(kOp, "eta_w", "at least 0", number(args.eta_w));
    if (!(args.tau >= 0 && args.tau <= 1)) throw_invalid(kOp, "tau", "in [0, 1]", number(args.tau));
    if (!(args.bound > 0)) throw_invalid(kOp, "bound", "positive", number(args.bound));
    if (head == Head::kDirect) {
        if (args.gamma != 0) throw_invalid(kOp, "gamma", "0 for the direct head", number(args.gamma));
        if (!(args.sigma > 0)) throw_invalid(kOp, "sigma", "positive", number(args.sigma));
    }
    if (args.sample >= (1u << 12)) throw_invalid(kOp, "sample", "below 4096", static_cast<long long>(args.sample));
    if (args.dissipation && args.window >= (1 << 20)) {
        throw_invalid(kOp, "window", "shorter than 2^20", static_cast<long long>(args.window));
    }
}

}  // namespace

template <typename T>
void check_recursion_sizes(const ProximalRecursionArgs<T>& args, Head head, std::int64_t dim) {
    check_least("steps", args.steps, 0);
    check_least("sensors", args.sensors, 0);
    check_least("windows", args.windows, 0);
    check_least("sets", args.sets, 0);
    check_least("window", args.window, 1);
    check_least("width", args.width, 1);
    if (args.steps > 0 && args.sensors > 0) {
        check_address("series", args.series);
        check_address("missing", args.missing);
        check_address("out", args.out);
    }
    check_least("series_stride", args.series_stride, args.sensors);
    check_least("missing_stride", args.missing_stride, args.sensors);
    check_least("out_stride", args.out_stride, args.sensors);
    if (args.dim() != dim) {
        throw_invalid(kOp, "window * width", "the network's dim " + std::to_string(dim),
                      static_cast<long long>(args.dim()));
    }
    check_steps(args, head);
    if (args.patches() > 0) check_patches(args);
}

template <typename T>
void check_recursion(const ProximalRecursionArgs<T>& args, Head head, std::int64_t dim) {
    check_recursion_sizes(args, head, dim);
    if (args.patches() > 0) check_tables(args);
}

template void check_recursion_sizes<float>(const ProximalRecursionArgs<float>&, Head, std::int64_t);
template void check_recursion_sizes<double>(const ProximalRecursionArgs<double>&, Head, std::int64_t);
template void check_recursion<float>(const ProximalRecursionArgs<float>&, Head, std::int64_t);
template void check_recursion<double>(const ProximalRecursionArgs<double>&, Head, std::int64_t);

}  // namespace fastimpute
