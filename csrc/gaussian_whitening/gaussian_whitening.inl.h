// One window, once for all instruction sets: included inside the namespace of one of them, after common/factor.inl.h.

namespace {

typedef float FloatVec __attribute__((vector_size(kLanes * 4)));

// Where a window's numbers lie in its scratch.
struct Work {
    double* matrix;
    std::int64_t stride;
    std::int64_t pivots;
    double* inverse;  // reciprocal pivots
    double* tile_columns;
    double* variance;
    double* right;
    double* centred;
};

[[gnu::always_inline]] inline Work carve(const WhiteningPlan& plan, double* scratch) {
    Work work;
    work.matrix = scratch;
    work.stride = plan.stride;
    work.pivots = plan.pivots;
    work.inverse = work.matrix + plan.pivots * plan.stride;
    work.tile_columns = work.inverse + plan.pivots;
    work.variance = work.tile_columns + plan.pivots * WhiteningPlan::kTileColumns;
    work.right = work.variance + plan.pivots;
    work.centred = work.right + plan.pivots;
    return work;
}

void store_floats(float* target, const double* source, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        const FloatVec value = __builtin_convertvector(load(source + i), FloatVec);
        std::memcpy(target + i, &value, sizeof(value));
    }
    for (; i < count; ++i) target[i] = static_cast<float>(source[i]);
}

// The block P_mm and the right-hand side -P_mo (x_o - mu_o), four rows of the precision at a time.
void gather(const GaussianWhitening<float>& params, const GapWindow& window, const Work& work) {
    const float* x = params.x + window.row * params.x_stride;
    const double* mean = params.mean + window.row * params.mean_stride;
    const std::uint8_t* missing = params.missing + window.row * params.missing_stride;
    for (std::int64_t i = 0; i < params.dim; ++i)
        work.centred[i] = missing[i] ? 0 : mean[i] - static_cast<double>(x[i]);
    for (std::int64_t i = 0; i < work.pivots; i += 4) {
        const std::int64_t left = window.count - i;
        for (std::int64_t r = 0; r < 4; ++r) work.right[i + r] = 0;
        if (left > 0)
            dot_all(params.precision, params.dim, window.cells + i, left < 4 ? left : 4, work.centred, params.dim, 1,
                    work.right + i, 1);
        gather_rows(params.precision, params.dim, window.cells, window.count, work.matrix, work.stride, work.pivots, i,
                    i + 4);
    }
}

// right <- (U^T U)^-1 right
void solve_right(const Work& work) {
    double* right = work.right;
    for (std::int64_t first = 0; first < work.pivots; first += kLanes) {
        const double* rows = work.matrix + first * work.stride;
        for (int r = 0; r < kLanes; ++r) {
            double value = right[first + r];
            for (int q = 0; q < r; ++q) value -= rows[q * work.stride + first + r] * right[first + q];
            right[first + r] = value * work.inverse[first + r];
        }
        for (std::int64_t j = first + kLanes; j < work.pivots; j += kLanes) {
            Vec value = load(right + j);
#pragma GCC unroll 8
            for (int r = 0; r < kLanes; ++r) value -= splat(right[first + r]) * load(rows + r * work.stride + j);
            store(right + j, value);
        }
    }
    for (std::int64_t first = work.pivots - kLanes; first >= 0; first -= kLanes) {
        const double* rows = work.matrix + first * work.stride;
        Vec sum[kLanes] = {};
        for (std::int64_t j = first + kLanes; j < work.pivots; j += kLanes) {
            const Vec value = load(right + j);
#pragma GCC unroll 8
            for (int r = 0; r < kLanes; ++r) sum[r] += value * load(rows + r * work.stride + j);
        }
        for (int r = kLanes - 1; r >= 0; --r) {
            double value = right[first + r] - sum_of(sum[r]);
            for (int q = r + 1; q < kLanes; ++q) value -= rows[r * work.stride + first + q] * right[first + q];
            right[first + r] = value * work.inverse[first + r];
        }
    }
}

void zero_beyond_diagonal(float* matrix, std::int64_t size, std::int64_t rows) {
    for (std::int64_t i = 0; i < rows; ++i)
        std::memset(matrix + i * size + i + 1, 0, static_cast<std::size_t>(size - i - 1) * sizeof(float));
}

// Rows of L, the columns of U, a square of one vector at a time.
void store_factor(const GaussianWhitening<float>& params, const GapWindow& window, const Work& work) {
    float* target = params.factor + window.row * params.most * params.most;
    zero_beyond_diagonal(target, params.most, window.count);
    for (std::int64_t first = 0; first < window.count; first += kLanes) {
        const std::int64_t rows = window.count - first < kLanes ? window.count - first : kLanes;
        for (std::int64_t column = 0; column < first; column += kLanes) {
            const double* square = work.matrix + column * work.stride + first;
            for (std::int64_t r = 0; r < rows; ++r) {
                float* row = target + (first + r) * params.most + column;
#pragma GCC unroll 8
                for (int c = 0; c < kLanes; ++c) row[c] = static_cast<float>(square[c * work.stride + r]);
            }
        }
        for (std::int64_t i = first; i < first + rows; ++i) {
            float* row = target + i * params.most;
            for (std::int64_t j = first; j <= i; ++j) row[j] = static_cast<float>(work.matrix[j * work.stride + i]);
        }
    }
}

// L^-1 = U^-T and the deviations.
void store_inverse(const GaussianWhitening<float>& params, const GapWindow& window, const Work& work) {
    float* target = params.inverse + window.row * params.most * params.most;
    zero_beyond_diagonal(target, params.most, window.count);
    const auto store_rows = [&](std::int64_t begin, std::int64_t first, const double* block, std::int64_t columns) {
        const std::int64_t rows = window.count - first < kLanes ? window.count - first : kLanes;
        const std::int64_t width = window.count - begin < columns ? window.count - begin : columns;
        for (std::int64_t r = 0; r < rows; ++r)
            store_floats(target + (first + r) * params.most + begin, block + r * columns, width);
    };
    inverse_tiles(work.matrix, work.stride, work.inverse, work.pivots, work.tile_columns, work.variance, store_rows);
    float* deviation = params.deviation + window.row * params.dim;
    for (std::int64_t i = 0; i < window.count; ++i)
        deviation[window.cells[i]] = static_cast<float>(__builtin_sqrt(work.variance[i]));
}

}  // namespace

std::int64_t gaussian_whitening_window(const GaussianWhitening<float>& params, const GapWindow& window,
                                       double* scratch) {
    const Work work = carve(WhiteningPlan::of(window.count), scratch);
    gather(params, window, work);
    const std::int64_t bad = factor(work.matrix, work.stride, work.pivots, work.pivots, work.inverse);
    if (bad >= 0) return bad;
    solve_right(work);
    const double* mean = params.mean + window.row * params.mean_stride;
    for (std::int64_t i = 0; i < window.count; ++i)
        params.filled[window.row * params.dim + window.cells[i]] =
            static_cast<float>(mean[window.cells[i]] + work.right[i]);
    store_factor(params, window, work);
    store_inverse(params, window, work);
    return -1;
}
