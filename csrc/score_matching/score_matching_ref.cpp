#include <algorithm>
#include <cmath>
#include <vector>

#include "score_matching/score_matching.h"

namespace fastimpute {
namespace {

// out = w in + b
template <typename T>
void affine(const T* w, const T* b, const T* in, std::int64_t outputs, std::int64_t inputs, T* out) {
    for (std::int64_t o = 0; o < outputs; ++o) {
        T sum = b[o];
        for (std::int64_t i = 0; i < inputs; ++i) sum += w[o * inputs + i] * in[i];
        out[o] = sum;
    }
}

// Adds the gradients by w and b, and returns the one by `in`, from the one by the output.
template <typename T>
std::vector<T> affine_back(const T* w, const T* in, const std::vector<T>& gradient, std::int64_t inputs, T* w_gradient,
                           T* b_gradient) {
    std::vector<T> back(static_cast<std::size_t>(inputs));
    for (std::size_t o = 0; o < gradient.size(); ++o) {
        b_gradient[o] += gradient[o];
        for (std::int64_t i = 0; i < inputs; ++i) {
            const std::size_t at = o * static_cast<std::size_t>(inputs) + static_cast<std::size_t>(i);
            w_gradient[at] += gradient[o] * in[i];
            back[i] += gradient[o] * w[at];
        }
    }
    return back;
}

// One layer at one row: a -> h = SiLU(LN(a) (1 + gain) + shift), and back.
template <typename T>
struct Layer {
    std::vector<T> a, normed, slope, h;
    T rstd = 0;

    explicit Layer(std::int64_t hidden) : a(hidden), normed(hidden), slope(hidden), h(hidden) {}

    void forward(const T* gain, const T* shift) {
        const T count = static_cast<T>(a.size());
        T mean = 0, variance = 0;
        for (const T value : a) mean += value / count;
        for (const T value : a) variance += (value - mean) * (value - mean) / count;
        rstd = T(1) / std::sqrt(variance + static_cast<T>(kLayerNormEps));
        for (std::size_t i = 0; i < a.size(); ++i) {
            normed[i] = (a[i] - mean) * rstd;
            const T u = normed[i] * (T(1) + gain[i]) + shift[i];
            const T sigmoid = T(1) / (T(1) + std::exp(-u));
            h[i] = u * sigmoid;
            slope[i] = sigmoid * (T(1) + u * (T(1) - sigmoid));
        }
    }

    // The gradient by a from the one by h; adds those by gain and shift.
    std::vector<T> backward(const std::vector<T>& gradient, const T* gain, T* gain_gradient, T* shift_gradient) const {
        const T count = static_cast<T>(a.size());
        std::vector<T> back(a.size());
        T mean = 0, projection = 0;
        for (std::size_t i = 0; i < a.size(); ++i) {
            const T inner = gradient[i] * slope[i];
            gain_gradient[i] += inner * normed[i];
            shift_gradient[i] += inner;
            back[i] = inner * (T(1) + gain[i]);
            mean += back[i] / count;
            projection += back[i] * normed[i] / count;
        }
        for (std::size_t i = 0; i < a.size(); ++i) back[i] = rstd * (back[i] - mean - normed[i] * projection);
        return back;
    }
};

template <typename T>
void clear(const ScoreMatchingArgs<T>& args, std::int64_t hidden, std::int64_t dim) {
    const MlpGradients<T>& g = args.gradients;
    std::fill_n(g.w1, hidden * dim, T(0));
    std::fill_n(g.b1, hidden, T(0));
    std::fill_n(g.w2, hidden * hidden, T(0));
    std::fill_n(g.b2, hidden, T(0));
    std::fill_n(g.w3, dim * hidden, T(0));
    std::fill_n(g.b3, dim, T(0));
    std::fill_n(g.modulation, args.conditions * 4 * hidden, T(0));
}

}  // namespace

template <typename T>
void score_matching_ref(const MlpWeights<T>& w, const ScoreMatchingArgs<T>& args) {
    const std::int64_t hidden = w.hidden, dim = w.dim;
    const MlpGradients<T>& g = args.gradients;
    clear(args, hidden, dim);
    const T cells = static_cast<T>(args.rows) * static_cast<T>(dim);
    Layer<T> first(hidden), second(hidden);
    std::vector<T> out(dim);
    double loss = 0;
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const T* x = args.x + row * args.x_stride;
        const T* target = args.target + row * args.target_stride;
        const T weight = args.weight ? args.weight[row] : T(1);
        const std::int64_t at = row / args.run_length() * 4 * hidden;
        const T* modulation = args.modulation + at;
        T* modulation_gradient = g.modulation + at;
        affine(w.w1, w.b1, x, hidden, dim, first.a.data());
        first.forward(modulation, modulation + hidden);
        affine(w.w2, w.b2, first.h.data(), hidden, hidden, second.a.data());
        second.forward(modulation + 2 * hidden, modulation + 3 * hidden);
        affine(w.w3, w.b3, second.h.data(), dim, hidden, out.data());
        for (std::int64_t i = 0; i < dim; ++i) {
            const T residual = out[i] - target[i];
            loss += static_cast<double>(weight * residual * residual) / static_cast<double>(cells);
            out[i] = 2 * weight * residual / cells;
        }
        std::vector<T> back = affine_back(w.w3, second.h.data(), out, hidden, g.w3, g.b3);
        back = second.backward(back, modulation + 2 * hidden, modulation_gradient + 2 * hidden,
                               modulation_gradient + 3 * hidden);
        back = affine_back(w.w2, first.h.data(), back, hidden, g.w2, g.b2);
        back = first.backward(back, modulation, modulation_gradient, modulation_gradient + hidden);
        affine_back(w.w1, x, back, dim, g.w1, g.b1);
    }
    *args.loss = static_cast<T>(loss);
}

template void score_matching_ref<float>(const MlpWeights<float>&, const ScoreMatchingArgs<float>&);
template void score_matching_ref<double>(const MlpWeights<double>&, const ScoreMatchingArgs<double>&);

}  // namespace fastimpute
