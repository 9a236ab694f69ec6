#pragma once

#include <cstdint>

#include "common/mlp.h"

namespace fastimpute {

class MlpPack;

// The inner loop of SPIRIT (arXiv 2602.01182) on a series of `steps` rows and `sensors` columns. Patch s * sets + g is
// window starts[s] of the sensors columns[g], flattened x[l * width + j] = series[starts[s] + l, columns[g, j]].
// `iterations` times: score (and Hessian-vector product for gamma > 0), spt_weights within groups of `group`
// consecutive patches, particle_step with
//     T_x = s - gamma H s,  T_w from log p (direct head: -sigma^2 / 2 |s|^2).
// Then every missing cell becomes the average of the patches that cover it, weighted by their mass B w; observed cells
// and cells that no patch covers keep their bits. All strides in elements.
template <typename T>
struct ProximalRecursionArgs {
    std::int64_t steps;
    std::int64_t sensors;
    const T* series;  // (steps, sensors), finite
    std::int64_t series_stride;
    const std::uint8_t* missing;  // (steps, sensors), 0 or 1
    std::int64_t missing_stride;

    std::int64_t windows;
    const std::int64_t* starts;  // (windows), ascending, each in [0, steps - window]
    std::int64_t window;         // rows of a window
    std::int64_t sets;
    std::int64_t width;
    const std::int64_t* columns;  // (sets, width), no sensor twice in a set

    const T* modulation;  // (modulation_rows, 4, hidden)
    std::int64_t modulation_rows;
    const std::int64_t* modulation_index;  // (windows); null: row 0 for all
    T sigma;                               // noise level, used by the direct head

    std::int64_t iterations;
    T eta;
    T gamma;  // 0 for the direct head
    T eta_w;  // 0: weights stay at the reference
    T tau;
    T bound;
    std::int64_t group;
    const T* log_ref;  // (windows * sets); null: uniform
    bool robust;

    bool adam;
    T beta1;
    T beta2;
    T adam_eps;

    bool dissipation;  // drift -eta x and noise sqrt(2 eta) N(0, 1), keyed by (seed, start, sensor, sample, iteration)
    std::uint64_t seed;
    std::uint32_t sample;

    T* out;  // (steps, sensors); may be `series` itself
    std::int64_t out_stride;
    T* log_w;  // (windows * sets)

    constexpr std::int64_t patches() const { return windows * sets; }
    constexpr std::int64_t dim() const { return window * width; }
};

// Throws std::invalid_argument naming the argument. The windows are never materialised: memory beside the output is a
// ring of `window` rows of sums, and particles of a bounded number of groups (16 MB, at least one group; a worker needs
// 9 bytes, 17 with Adam, per value of its group). Patches without a missing cell are skipped when eta_w is 0. Same bits
// for any `threads`.
void proximal_recursion(const MlpPack& pack, int threads, const ProximalRecursionArgs<float>& args);

// The scalar oracle: all windows at once, sums in order.
void proximal_recursion_ref_f64(const MlpWeights<double>& weights, Head head,
                                const ProximalRecursionArgs<double>& args);

// Log weights before the first iteration: log_ref, or uniform, normalised within groups; into args.log_w.
template <typename T>
void start_weights(const ProximalRecursionArgs<T>& args);

// Throws std::invalid_argument naming the argument; the second reads no address.
template <typename T>
void check_recursion(const ProximalRecursionArgs<T>& args, Head head, std::int64_t dim);
template <typename T>
void check_recursion_sizes(const ProximalRecursionArgs<T>& args, Head head, std::int64_t dim);

}  // namespace fastimpute
