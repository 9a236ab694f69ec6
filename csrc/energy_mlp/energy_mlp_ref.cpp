#include <cmath>
#include <vector>

#include "energy_mlp/energy_mlp.h"

namespace fastimpute {
namespace {

// One AdaLN + SiLU layer at one point: everything its derivatives need.
template <typename T>
struct Layer {
    explicit Layer(std::int64_t width) : normed(width), out(width), slope(width), curvature(width) {}

    T rstd = 0;
    std::vector<T> normed;     // LN(a)
    std::vector<T> out;        // h
    std::vector<T> slope;      // dh / d normed
    std::vector<T> curvature;  // d2h / d normed2
};

template <typename T>
void affine(const T* w, const T* b, const T* in, std::int64_t outputs, std::int64_t inputs, T* out) {
    for (std::int64_t o = 0; o < outputs; ++o) {
        T sum = b ? b[o] : T(0);
        for (std::int64_t i = 0; i < inputs; ++i) sum += w[o * inputs + i] * in[i];
        out[o] = sum;
    }
}

template <typename T>
void affine_transposed(const T* w, const T* in, std::int64_t outputs, std::int64_t inputs, T* out) {
    for (std::int64_t i = 0; i < inputs; ++i) out[i] = T(0);
    for (std::int64_t o = 0; o < outputs; ++o) {
        for (std::int64_t i = 0; i < inputs; ++i) out[i] += w[o * inputs + i] * in[o];
    }
}

template <typename T>
T mean_product(const std::vector<T>& a, const std::vector<T>& b) {
    T sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum / static_cast<T>(a.size());
}

template <typename T>
void forward(const std::vector<T>& a, const T* gain, const T* shift, Layer<T>& layer) {
    const std::size_t width = a.size();
    T mean = 0, variance = 0;
    for (const T value : a) mean += value;
    mean /= static_cast<T>(width);
    for (const T value : a) variance += (value - mean) * (value - mean);
    variance /= static_cast<T>(width);
    layer.rstd = T(1) / std::sqrt(variance + static_cast<T>(kLayerNormEps));
    for (std::size_t i = 0; i < width; ++i) {
        const T normed = (a[i] - mean) * layer.rstd;
        const T g = T(1) + gain[i];
        const T u = normed * g + shift[i];
        const T sigmoid = T(1) / (T(1) + std::exp(-u));
        layer.normed[i] = normed;
        layer.out[i] = u * sigmoid;
        layer.slope[i] = g * sigmoid * (T(1) + u * (T(1) - sigmoid));
        layer.curvature[i] = g * g * sigmoid * (T(1) - sigmoid) * (T(2) + u * (T(1) - T(2) * sigmoid));
    }
}

// Gradient at `a` from the gradient at LN(a): rstd (g - mean(g) - normed mean(g normed)).
template <typename T>
void norm_backward(const Layer<T>& layer, const std::vector<T>& grad, std::vector<T>& out) {
    T mean = 0;
    for (const T value : grad) mean += value;
    mean /= static_cast<T>(grad.size());
    const T along = mean_product(grad, layer.normed);
    for (std::size_t i = 0; i < grad.size(); ++i) out[i] = layer.rstd * (grad[i] - mean - layer.normed[i] * along);
}

// Tangent of norm_backward, and of LN itself through `normed_tangent`.
template <typename T>
struct NormTangent {
    T rstd = 0;
    std::vector<T> normed;
};

template <typename T>
NormTangent<T> norm_tangent(const Layer<T>& layer, const std::vector<T>& a_tangent) {
    NormTangent<T> tangent{0, std::vector<T>(a_tangent.size())};
    // LN's Jacobian is symmetric.
    norm_backward(layer, a_tangent, tangent.normed);
    tangent.rstd = -layer.rstd * layer.rstd * mean_product(layer.normed, a_tangent);
    return tangent;
}

template <typename T>
std::vector<T> norm_backward_tangent(const Layer<T>& layer, const NormTangent<T>& tangent, const std::vector<T>& grad,
                                     const std::vector<T>& grad_tangent) {
    const std::size_t width = grad.size();
    const T count = static_cast<T>(width);
    T mean = 0, mean_tangent = 0;
    for (std::size_t i = 0; i < width; ++i) {
        mean += grad[i] / count;
        mean_tangent += grad_tangent[i] / count;
    }
    const T along = mean_product(grad, layer.normed);
    const T along_tangent = mean_product(grad_tangent, layer.normed) + mean_product(grad, tangent.normed);
    std::vector<T> out(width);
    for (std::size_t i = 0; i < width; ++i) {
        out[i] =
            tangent.rstd * (grad[i] - mean - layer.normed[i] * along) +
            layer.rstd * (grad_tangent[i] - mean_tangent - tangent.normed[i] * along - layer.normed[i] * along_tangent);
    }
    return out;
}

template <typename T>
class EnergyRow {
  public:
    explicit EnergyRow(const MlpWeights<T>& w)
        : w_(w),
          first_(w.hidden),
          second_(w.hidden),
          a_(w.hidden),
          grad1_(w.hidden),
          grad2_(w.hidden),
          da1_(w.hidden),
          da2_(w.hidden),
          centred_(w.dim),
          pulled_(w.dim) {}

    T value_and_score(const T* x, const T* modulation, T* score) {
        const std::int64_t width = w_.hidden;
        affine(w_.w1, w_.b1, x, width, w_.dim, a_.data());
        forward(a_, modulation, modulation + width, first_);
        affine(w_.w2, w_.b2, first_.out.data(), width, width, a_.data());
        forward(a_, modulation + 2 * width, modulation + 3 * width, second_);
        T log_p = w_.b3[0];
        for (std::int64_t i = 0; i < width; ++i) {
            log_p += w_.w3[i] * second_.out[i];
            grad2_[i] = w_.w3[i] * second_.slope[i];
        }
        norm_backward(second_, grad2_, da2_);
        dh1_.resize(width);
        affine_transposed(w_.w2, da2_.data(), width, width, dh1_.data());
        for (std::int64_t i = 0; i < width; ++i) grad1_[i] = dh1_[i] * first_.slope[i];
        norm_backward(first_, grad1_, da1_);
        affine_transposed(w_.w1, da1_.data(), width, w_.dim, score);
        if (w_.precision) {
            for (std::int64_t i = 0; i < w_.dim; ++i) centred_[i] = x[i] - w_.mean[i];
            log_p += T(-0.5) * subtract_precision(centred_.data(), score);
        }
        return log_p;
    }

    // At the point value_and_score was last called for.
    void hessian_vector(const T* v, T* hvp) {
        const std::int64_t width = w_.hidden;
        affine(w_.w1, static_cast<const T*>(nullptr), v, width, w_.dim, a_.data());
        const NormTangent<T> tangent1 = norm_tangent(first_, a_);
        std::vector<T> out_tangent(width), grad_tangent(width), dh1_tangent(width);
        for (std::int64_t i = 0; i < width; ++i) out_tangent[i] = first_.slope[i] * tangent1.normed[i];
        affine(w_.w2, static_cast<const T*>(nullptr), out_tangent.data(), width, width, a_.data());
        const NormTangent<T> tangent2 = norm_tangent(second_, a_);
        for (std::int64_t i = 0; i < width; ++i) {
            grad_tangent[i] = w_.w3[i] * second_.curvature[i] * tangent2.normed[i];
        }
        const std::vector<T> da2_tangent = norm_backward_tangent(second_, tangent2, grad2_, grad_tangent);
        affine_transposed(w_.w2, da2_tangent.data(), width, width, dh1_tangent.data());
        for (std::int64_t i = 0; i < width; ++i) {
            grad_tangent[i] = dh1_tangent[i] * first_.slope[i] + dh1_[i] * first_.curvature[i] * tangent1.normed[i];
        }
        const std::vector<T> da1_tangent = norm_backward_tangent(first_, tangent1, grad1_, grad_tangent);
        affine_transposed(w_.w1, da1_tangent.data(), width, w_.dim, hvp);
        if (w_.precision) subtract_precision(v, hvp);
    }

  private:
    // out -= precision in; returns in^T precision in.
    T subtract_precision(const T* in, T* out) {
        affine(w_.precision, static_cast<const T*>(nullptr), in, w_.dim, w_.dim, pulled_.data());
        T square = 0;
        for (std::int64_t i = 0; i < w_.dim; ++i) {
            square += in[i] * pulled_[i];
            out[i] -= pulled_[i];
        }
        return square;
    }

    MlpWeights<T> w_;
    Layer<T> first_, second_;
    std::vector<T> a_, grad1_, grad2_, da1_, da2_, dh1_, centred_, pulled_;
};

}  // namespace

template <typename T>
void energy_mlp_ref(const MlpWeights<T>& weights, const EnergyMlpArgs<T>& args) {
    EnergyRow<T> row(weights);
    for (std::int64_t i = 0; i < args.rows; ++i) {
        T* score = args.score + i * args.score_stride;
        args.log_p[i] = row.value_and_score(args.x + i * args.x_stride, args.modulation.of(i, weights.hidden), score);
        if (args.want_hvp) {
            row.hessian_vector(args.vector ? args.vector + i * args.vector_stride : score,
                               args.hvp + i * args.hvp_stride);
        }
    }
}

template void energy_mlp_ref<float>(const MlpWeights<float>&, const EnergyMlpArgs<float>&);
template void energy_mlp_ref<double>(const MlpWeights<double>&, const EnergyMlpArgs<double>&);

}  // namespace fastimpute
