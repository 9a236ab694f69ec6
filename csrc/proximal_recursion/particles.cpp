#include "proximal_recursion/particles.h"

#include <algorithm>
#include <cmath>

#include "common/mlp_kernels.h"
#include "common/parallel_for.h"
#include "common/scratch.h"
#include "energy_mlp/energy_mlp.h"
#include "particle_step/particle_step.h"
#include "score_mlp/score_mlp.h"
#include "spt_weights/spt_weights.h"

namespace fastimpute {
namespace {

// Eight sums in turn: one chain of additions would be slower than the network on a short row.
float square_norm(const float* values, std::int64_t size) {
    float sum[8] = {};
    std::int64_t i = 0;
    for (; i + 8 <= size; i += 8) {
        for (int lane = 0; lane < 8; ++lane) sum[lane] += values[i + lane] * values[i + lane];
    }
    for (; i < size; ++i) sum[i % 8] += values[i] * values[i];
    return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

}  // namespace

bool has_missing(const ProximalRecursionArgs<float>& args, std::int64_t patch) {
    const std::int64_t* columns = args.columns + patch % args.sets * args.width;
    const std::uint8_t* row = args.missing + args.starts[patch / args.sets] * args.missing_stride;
    for (std::int64_t l = 0; l < args.window; ++l, row += args.missing_stride) {
        for (std::int64_t j = 0; j < args.width; ++j) {
            if (row[columns[j]]) return true;
        }
    }
    return false;
}

Particles::Particles(const MlpPack& pack, const ProximalRecursionArgs<float>& args, std::int64_t capacity)
    : pack_(pack), args_(args), dim_(args.dim()) {
    const auto rows = static_cast<std::size_t>(capacity);
    const std::size_t cells = rows * static_cast<std::size_t>(dim_);
    if (args.modulation_index) modulation_index_.resize(rows);
    if (args.dissipation) noise_keys_.resize(rows * static_cast<std::size_t>(args.width + 1));
    if (pack.head() == Head::kDirect) sigma_.assign(rows, args.sigma);
    log_p_.resize(rows);
    score_sq_.resize(rows);
    missing_.resize(cells);
    direction_ = AlignedBuffer<float>(cells);
    if (args.gamma > 0) hvp_ = AlignedBuffer<float>(cells);
    if (args.adam) {
        moment1_ = AlignedBuffer<float>(cells);
        moment2_ = AlignedBuffer<float>(cells);
    }
}

void Particles::run(const std::int64_t* patches, std::int64_t count, float* x, float* mass) {
    count_ = count;
    gather(patches, x);
    for (std::int64_t iteration = 0; iteration < args_.iterations; ++iteration) {
        evaluate(x);
        if (args_.eta_w > 0) update_weights(patches[0], mass);
        step(iteration, x, mass);
    }
}

void Particles::gather(const std::int64_t* patches, float* x) {
    for (std::int64_t i = 0; i < count_; ++i) {
        const std::int64_t window = patches[i] / args_.sets;
        const std::int64_t start = args_.starts[window];
        const std::int64_t* columns = args_.columns + patches[i] % args_.sets * args_.width;
        float* values = x + i * dim_;
        std::uint8_t* missing = missing_.data() + i * dim_;
        for (std::int64_t l = 0; l < args_.window; ++l) {
            const float* series_row = args_.series + (start + l) * args_.series_stride;
            const std::uint8_t* missing_row = args_.missing + (start + l) * args_.missing_stride;
            for (std::int64_t j = 0; j < args_.width; ++j) {
                *values++ = series_row[columns[j]];
                *missing++ = missing_row[columns[j]];
            }
        }
        if (args_.modulation_index) modulation_index_[i] = args_.modulation_index[window];
        if (args_.dissipation) {
            std::int64_t* key = noise_keys_.data() + i * (args_.width + 1);
            key[0] = start;
            std::copy(columns, columns + args_.width, key + 1);
        }
    }
    std::fill_n(moment1_.data(), args_.adam ? count_ * dim_ : 0, 0.0f);
    std::fill_n(moment2_.data(), args_.adam ? count_ * dim_ : 0, 0.0f);
}

// direction_ <- T_x; log_p_ and score_sq_ as the weights need them.
void Particles::evaluate(const float* x) {
    const bool direct = pack_.head() == Head::kDirect;
    if (direct) {
        evaluate_direct(x);
    } else {
        evaluate_energy(x);
    }
    if (args_.eta_w > 0 && (direct || args_.gamma > 0)) {
        for (std::int64_t i = 0; i < count_; ++i) score_sq_[i] = square_norm(direction_.data() + i * dim_, dim_);
        if (direct) {
            const float half = 0.5f * args_.sigma * args_.sigma;
            for (std::int64_t i = 0; i < count_; ++i) log_p_[i] = -half * score_sq_[i];
        }
    }
    if (args_.gamma > 0) {
        float* direction = direction_.data();
        const float* hvp = hvp_.data();
        for (std::int64_t i = 0; i < count_ * dim_; ++i) direction[i] -= args_.gamma * hvp[i];
    }
}

void Particles::evaluate_energy(const float* x) {
    const std::int64_t* index = args_.modulation_index ? modulation_index_.data() : nullptr;
    const bool want_hvp = args_.gamma > 0;
    const EnergyMlpArgs<float> args{count_,
                                    x,
                                    dim_,
                                    {args_.modulation, args_.modulation_rows, index},
                                    nullptr,
                                    0,
                                    want_hvp,
                                    log_p_.data(),
                                    direction_.data(),
                                    dim_,
                                    hvp_.data(),
                                    dim_};
    const MlpKernels* kernels = pack_.kernels();
    if (kernels == nullptr) {
        energy_mlp_ref(pack_.weights(), args);
        return;
    }
    const std::int64_t block = want_hvp ? kernels->block_rows_hvp : kernels->block_rows;
    const std::int64_t scratch = kernels->energy_scratch(pack_.packed(), std::min(block, count_), want_hvp);
    parallel_for(0, count_, block, threads_, [&](std::int64_t begin, std::int64_t end, int) {
        kernels->energy_block(pack_.packed(), args, begin, end, thread_scratch(scratch));
    });
}

void Particles::evaluate_direct(const float* x) {
    const std::int64_t* index = args_.modulation_index ? modulation_index_.data() : nullptr;
    const ScoreMlpArgs<float> args{
        count_, x, dim_, sigma_.data(), {args_.modulation, args_.modulation_rows, index}, direction_.data(), dim_};
    const MlpKernels* kernels = pack_.kernels();
    if (kernels == nullptr) {
        score_mlp_ref(pack_.weights(), args);
        return;
    }
    const std::int64_t block = kernels->block_rows;
    const std::int64_t scratch = kernels->score_scratch(pack_.packed(), std::min(block, count_));
    parallel_for(0, count_, block, threads_, [&](std::int64_t begin, std::int64_t end, int) {
        kernels->score_block(pack_.packed(), args, begin, end, thread_scratch(scratch));
    });
}

void Particles::update_weights(std::int64_t first_patch, float* mass) {
    SptWeights<float> params;
    params.rows = params.group = count_;
    params.log_w = params.log_w_new = args_.log_w + first_patch;
    params.log_p = log_p_.data();
    params.score_sq = score_sq_.data();
    params.log_ref = args_.log_ref ? args_.log_ref + first_patch : nullptr;
    params.mass = mass;
    params.gamma = args_.gamma;
    params.eta_w = args_.eta_w;
    params.tau = args_.tau;
    params.bound = args_.bound;
    params.robust = args_.robust;
    spt_weights_group(pack_.isa(), params, 0, count_);
}

void Particles::step(std::int64_t iteration, float* x, const float* mass) {
    ParticleStep<float> params;
    params.rows = count_;
    params.dim = dim_;
    params.x = params.x_new = x;
    params.direction = direction_.data();
    params.mass = mass;
    params.missing = missing_.data();
    params.x_stride = params.direction_stride = params.missing_stride = params.x_new_stride = dim_;
    params.eta = args_.eta;
    if (args_.adam) {
        const auto taken = static_cast<double>(iteration + 1);
        params.moments = {moment1_.data(),
                          dim_,
                          moment2_.data(),
                          dim_,
                          args_.beta1,
                          args_.beta2,
                          args_.adam_eps,
                          static_cast<float>(1 - std::pow(static_cast<double>(args_.beta1), taken)),
                          static_cast<float>(1 - std::pow(static_cast<double>(args_.beta2), taken))};
    }
    if (args_.dissipation) {
        params.drift = 1;
        params.noise = {args_.seed,  noise_keys_.data(), args_.width + 1,
                        args_.width, args_.sample,       static_cast<std::uint32_t>(iteration)};
    }
    particle_step_rows(pack_.isa(), params, 0, count_);
}

}  // namespace fastimpute
