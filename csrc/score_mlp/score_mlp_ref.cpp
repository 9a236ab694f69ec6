#include <cmath>
#include <vector>

#include "score_mlp/score_mlp.h"

namespace fastimpute {
namespace {

template <typename T>
void affine(const T* w, const T* b, const T* in, std::int64_t outputs, std::int64_t inputs, T* out) {
    for (std::int64_t o = 0; o < outputs; ++o) {
        T sum = b[o];
        for (std::int64_t i = 0; i < inputs; ++i) sum += w[o * inputs + i] * in[i];
        out[o] = sum;
    }
}

// a <- SiLU(LN(a) (1 + gain) + shift)
template <typename T>
void activate(std::vector<T>& a, const T* gain, const T* shift) {
    const T count = static_cast<T>(a.size());
    T mean = 0, variance = 0;
    for (const T value : a) mean += value / count;
    for (const T value : a) variance += (value - mean) * (value - mean) / count;
    const T rstd = T(1) / std::sqrt(variance + static_cast<T>(kLayerNormEps));
    for (std::size_t i = 0; i < a.size(); ++i) {
        const T u = (a[i] - mean) * rstd * (T(1) + gain[i]) + shift[i];
        a[i] = u / (T(1) + std::exp(-u));
    }
}

}  // namespace

template <typename T>
void score_mlp_ref(const MlpWeights<T>& w, const ScoreMlpArgs<T>& args) {
    const std::int64_t hidden = w.hidden, dim = w.dim;
    std::vector<T> first(hidden), second(hidden);
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const T* x = args.x + row * args.x_stride;
        const T* modulation = args.modulation.of(row, hidden);
        T* score = args.score + row * args.score_stride;
        affine(w.w1, w.b1, x, hidden, dim, first.data());
        activate(first, modulation, modulation + hidden);
        affine(w.w2, w.b2, first.data(), hidden, hidden, second.data());
        activate(second, modulation + 2 * hidden, modulation + 3 * hidden);
        affine(w.w3, w.b3, second.data(), dim, hidden, score);
        for (std::int64_t i = 0; i < dim; ++i) {
            score[i] /= args.sigma[row];
            if (!w.precision) continue;
            for (std::int64_t j = 0; j < dim; ++j) score[i] -= w.precision[i * dim + j] * (x[j] - w.mean[j]);
        }
    }
}

template void score_mlp_ref<float>(const MlpWeights<float>&, const ScoreMlpArgs<float>&);
template void score_mlp_ref<double>(const MlpWeights<double>&, const ScoreMlpArgs<double>&);

}  // namespace fastimpute
