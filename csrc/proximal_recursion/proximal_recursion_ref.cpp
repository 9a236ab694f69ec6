#include <algorithm>
#include <cmath>
#include <vector>

#include "energy_mlp/energy_mlp.h"
#include "particle_step/particle_step.h"
#include "proximal_recursion/proximal_recursion.h"
#include "score_mlp/score_mlp.h"
#include "spt_weights/spt_weights.h"

namespace fastimpute {
namespace {

// All windows at once.
struct Windows {
    explicit Windows(const ProximalRecursionArgs<double>& args)
        : n(args.patches()),
          d(args.dim()),
          x(n * d),
          direction(n * d),
          hvp(n * d),
          moment1(n * d),
          moment2(n * d),
          log_p(n),
          score_sq(n),
          mass(n),
          sigma(n, args.sigma),
          missing(n * d),
          index(n),
          keys(n * (args.width + 1)) {
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t start = args.starts[i / args.sets];
            const std::int64_t* columns = args.columns + i % args.sets * args.width;
            for (std::int64_t c = 0; c < d; ++c) {
                const std::int64_t row = start + c / args.width, column = columns[c % args.width];
                x[i * d + c] = args.series[row * args.series_stride + column];
                missing[i * d + c] = args.missing[row * args.missing_stride + column];
            }
            index[i] = args.modulation_index ? args.modulation_index[i / args.sets] : 0;
            keys[i * (args.width + 1)] = start;
            std::copy(columns, columns + args.width, keys.begin() + i * (args.width + 1) + 1);
            const double size = static_cast<double>(std::min(args.group, n - i / args.group * args.group));
            mass[i] = std::exp(args.log_w[i]) * size;
        }
    }

    std::int64_t n, d;
    std::vector<double> x, direction, hvp, moment1, moment2, log_p, score_sq, mass, sigma;
    std::vector<std::uint8_t> missing;
    std::vector<std::int64_t> index, keys;
};

void evaluate(const MlpWeights<double>& weights, Head head, const ProximalRecursionArgs<double>& args, Windows& w) {
    const Modulation<double> modulation{args.modulation, args.modulation_rows, w.index.data()};
    if (head == Head::kDirect) {
        score_mlp_ref<double>(weights, {w.n, w.x.data(), w.d, w.sigma.data(), modulation, w.direction.data(), w.d});
    } else {
        energy_mlp_ref<double>(weights, {w.n, w.x.data(), w.d, modulation, nullptr, 0, args.gamma > 0, w.log_p.data(),
                                         w.direction.data(), w.d, w.hvp.data(), w.d});
    }
    for (std::int64_t i = 0; i < w.n; ++i) {
        w.score_sq[i] = 0;
        for (std::int64_t c = i * w.d; c < (i + 1) * w.d; ++c) w.score_sq[i] += w.direction[c] * w.direction[c];
        if (head == Head::kDirect) w.log_p[i] = -args.sigma * args.sigma / 2 * w.score_sq[i];
        if (args.gamma == 0) continue;
        for (std::int64_t c = i * w.d; c < (i + 1) * w.d; ++c) w.direction[c] -= args.gamma * w.hvp[c];
    }
}

void update_weights(const ProximalRecursionArgs<double>& args, Windows& w) {
    SptWeights<double> params;
    params.rows = w.n;
    params.group = args.group;
    params.log_w = params.log_w_new = args.log_w;
    params.log_p = w.log_p.data();
    params.score_sq = w.score_sq.data();
    params.log_ref = args.log_ref;
    params.mass = w.mass.data();
    params.gamma = args.gamma;
    params.eta_w = args.eta_w;
    params.tau = args.tau;
    params.bound = args.bound;
    params.robust = args.robust;
    spt_weights_ref_f64(params);
}

void step(const ProximalRecursionArgs<double>& args, std::int64_t iteration, Windows& w) {
    ParticleStep<double> params;
    params.rows = w.n;
    params.dim = w.d;
    params.x = params.x_new = w.x.data();
    params.direction = w.direction.data();
    params.mass = w.mass.data();
    params.missing = w.missing.data();
    params.x_stride = params.direction_stride = params.missing_stride = params.x_new_stride = w.d;
    params.eta = args.eta;
    if (args.adam) {
        const auto taken = static_cast<double>(iteration + 1);
        params.moments = {w.moment1.data(),
                          w.d,
                          w.moment2.data(),
                          w.d,
                          args.beta1,
                          args.beta2,
                          args.adam_eps,
                          1 - std::pow(args.beta1, taken),
                          1 - std::pow(args.beta2, taken)};
    }
    if (args.dissipation) {
        params.drift = 1;
        params.noise = {args.seed,  w.keys.data(), args.width + 1,
                        args.width, args.sample,   static_cast<std::uint32_t>(iteration)};
    }
    particle_step_ref_f64(params);
}

void average(const ProximalRecursionArgs<double>& args, const Windows& w) {
    std::vector<double> sum(args.steps * args.sensors), weight(args.steps * args.sensors);
    for (std::int64_t i = 0; i < w.n; ++i) {
        for (std::int64_t c = 0; c < w.d; ++c) {
            const std::int64_t row = args.starts[i / args.sets] + c / args.width;
            const std::int64_t cell = row * args.sensors + args.columns[i % args.sets * args.width + c % args.width];
            sum[cell] += w.mass[i] * w.x[i * w.d + c];
            weight[cell] += w.mass[i];
        }
    }
    for (std::int64_t row = 0; row < args.steps; ++row) {
        for (std::int64_t j = 0; j < args.sensors; ++j) {
            const std::int64_t cell = row * args.sensors + j;
            const bool moved = args.missing[row * args.missing_stride + j] && weight[cell] > 0;
            args.out[row * args.out_stride + j] =
                moved ? sum[cell] / weight[cell] : args.series[row * args.series_stride + j];
        }
    }
}

}  // namespace

void proximal_recursion_ref_f64(const MlpWeights<double>& weights, Head head,
                                const ProximalRecursionArgs<double>& args) {
    check_recursion(args, head, weights.dim);
    start_weights(args);
    Windows windows(args);
    for (std::int64_t iteration = 0; iteration < args.iterations; ++iteration) {
        evaluate(weights, head, args, windows);
        if (args.eta_w > 0) update_weights(args, windows);
        step(args, iteration, windows);
    }
    average(args, windows);
}

}  // namespace fastimpute
