// One group of windows, once for all instruction sets: included inside the namespace of one of them, after
// factor.inl.h.

namespace {

// Where a group's numbers lie in its scratch.
struct Work {
    double* matrix;
    double* inverse;
    double* tile_columns;
    double* centred;
    std::int64_t centred_stride;
    std::int64_t right;  // first column of the right-hand sides
};

[[gnu::always_inline]] inline Work carve(const GroupPlan& plan, std::int64_t dim, double* scratch) {
    Work work;
    work.matrix = scratch;
    work.inverse = work.matrix + plan.pivots * plan.stride;
    work.tile_columns = work.inverse + plan.pivots;
    work.centred = work.tile_columns + plan.pivots * GroupPlan::kTileColumns;
    work.centred_stride = (dim + GroupPlan::kPad - 1) / GroupPlan::kPad * GroupPlan::kPad;
    work.right = plan.pivots + plan.cross;
    return work;
}

// x - mean where observed, 0 where missing.
void centre(const GaussianConditional<float>& params, const WindowGroup& group, const Work& work) {
    for (std::int64_t w = 0; w < group.count; ++w) {
        double* centred = work.centred + w * work.centred_stride;
        const float* x = params.x + group.windows[w] * params.x_stride;
        for (std::int64_t i = 0; i < group.missing_count; ++i) centred[group.missing[i]] = 0;
        for (std::int64_t i = 0; i < group.observed_count; ++i) {
            const std::int64_t cell = group.observed[i];
            centred[cell] = static_cast<double>(x[cell]) - params.mean[cell];
        }
    }
}

void store_mean(const GaussianConditional<float>& params, std::int64_t window, std::int64_t cell, double value) {
    params.filled[window * params.filled_stride + cell] = static_cast<float>(params.mean[cell] + value);
}

void store_deviation(const GaussianConditional<float>& params, const WindowGroup& group, const double* variance) {
    for (std::int64_t i = 0; i < group.missing_count; ++i) {
        const float deviation = static_cast<float>(__builtin_sqrt(variance[i] > 0 ? variance[i] : 0));
        for (std::int64_t w = 0; w < group.count; ++w)
            params.deviation[group.windows[w] * params.deviation_stride + group.missing[i]] = deviation;
    }
}

// P_mm y = -P_mo (x_o - mu_o)
std::int64_t from_precision(const GaussianConditional<float>& params, const WindowGroup& group, const GroupPlan& plan,
                            const Work& work) {
    gather_rows(params.precision, params.dim, group.missing, group.missing_count, work.matrix, plan.stride, plan.pivots,
                0, plan.pivots);
    double* right = work.matrix + work.right;
    for (std::int64_t i = 0; i < plan.pivots; ++i)
        for (std::int64_t w = 0; w < plan.windows; ++w) right[i * plan.stride + w] = 0;
    dot_all(params.precision, params.dim, group.missing, group.missing_count, work.centred, work.centred_stride,
            group.count, right, plan.stride);
    const std::int64_t bad = factor(work.matrix, plan.stride, plan.pivots, work.right + plan.windows, work.inverse);
    if (bad >= 0) return bad;
    solve_up(work.matrix, plan.stride, work.inverse, plan.pivots, right, plan.stride, plan.windows);
    for (std::int64_t i = 0; i < group.missing_count; ++i)
        for (std::int64_t w = 0; w < group.count; ++w)
            store_mean(params, group.windows[w], group.missing[i], -right[i * plan.stride + w]);
    if (!plan.spread) return -1;
    double* variance = work.centred;  // the centred windows are done with
    inverse_tiles(work.matrix, plan.stride, work.inverse, plan.pivots, work.tile_columns, variance,
                  [](std::int64_t, std::int64_t, const double*, std::int64_t) {});
    store_deviation(params, group, variance);
    return -1;
}

// The mean S_mo S_oo^-1 (x_o - mu_o) alone.
std::int64_t mean_from_covariance(const GaussianConditional<float>& params, const WindowGroup& group,
                                  const GroupPlan& plan, const Work& work) {
    double* right = work.matrix + work.right;
    const std::int64_t bad = factor(work.matrix, plan.stride, plan.pivots, work.right + plan.windows, work.inverse);
    if (bad >= 0) return bad;
    solve_up(work.matrix, plan.stride, work.inverse, plan.pivots, right, plan.stride, plan.windows);
    for (std::int64_t w = 0; w < group.count; ++w) {
        double* weights = work.centred + w * work.centred_stride;
        for (std::int64_t i = 0; i < group.observed_count; ++i) weights[group.observed[i]] = right[i * plan.stride + w];
    }
    for (std::int64_t w = 0; w < group.count; ++w) {
        for (std::int64_t i = 0; i < group.missing_count; ++i) {
            double value;
            dot_rows<1, 1>(params.covariance, params.dim, group.missing + i, work.centred + w * work.centred_stride,
                           work.centred_stride, &value, 1);
            store_mean(params, group.windows[w], group.missing[i], value);
        }
    }
    return -1;
}

// Mean and spread: with B = U^-T S_om and z = U^-T (x_o - mu_o), the mean is B^T z and the variance S_mm - B^T B.
std::int64_t from_covariance(const GaussianConditional<float>& params, const WindowGroup& group, const GroupPlan& plan,
                             const Work& work) {
    gather_rows(params.covariance, params.dim, group.observed, group.observed_count, work.matrix, plan.stride,
                plan.pivots, 0, plan.pivots);
    for (std::int64_t i = 0; i < plan.pivots; ++i) {
        double* row = work.matrix + i * plan.stride;
        const bool real = i < group.observed_count;
        const double* from = real ? params.covariance + group.observed[i] * params.dim : nullptr;
        for (std::int64_t j = 0; j < plan.cross; ++j)
            row[plan.pivots + j] = real && j < group.missing_count ? from[group.missing[j]] : 0;
        for (std::int64_t w = 0; w < plan.windows; ++w)
            row[work.right + w] =
                real && w < group.count ? work.centred[w * work.centred_stride + group.observed[i]] : 0;
    }
    if (!plan.spread) return mean_from_covariance(params, group, plan, work);
    const std::int64_t bad = factor(work.matrix, plan.stride, plan.pivots, work.right + plan.windows, work.inverse);
    if (bad >= 0) return bad;
    double* variance = work.centred;
    for (std::int64_t j = 0; j < plan.cross; j += kLanes) {
        const double* column = work.matrix + plan.pivots + j;
        Vec square = {};
        for (std::int64_t p = 0; p < group.observed_count; ++p) {
            const Vec value = load(column + p * plan.stride);
            square += value * value;
        }
        store(variance + j, square);
    }
    for (std::int64_t i = 0; i < group.missing_count; ++i)
        variance[i] = params.covariance[group.missing[i] * (params.dim + 1)] - variance[i];
    store_deviation(params, group, variance);
    for (std::int64_t w = 0; w < group.count; ++w) {
        for (std::int64_t j = 0; j < plan.cross; j += kLanes) {
            const double* column = work.matrix + plan.pivots + j;
            Vec mean = {};
            for (std::int64_t p = 0; p < group.observed_count; ++p)
                mean += load(column + p * plan.stride) * splat(work.matrix[p * plan.stride + work.right + w]);
            for (int lane = 0; lane < kLanes && j + lane < group.missing_count; ++lane)
                store_mean(params, group.windows[w], group.missing[j + lane], mean[lane]);
        }
    }
    return -1;
}

}  // namespace

std::int64_t gaussian_conditional_group(const GaussianConditional<float>& params, const WindowGroup& group,
                                        const GroupPlan& plan, double* scratch) {
    const Work work = carve(plan, params.dim, scratch);
    centre(params, group, work);
    return plan.from_covariance ? from_covariance(params, group, plan, work)
                                : from_precision(params, group, plan, work);
}
