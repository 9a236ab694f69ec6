#include <algorithm>
#include <cmath>
#include <vector>

#include "common/mlp.h"
#include "dit_block/dit_block.h"

namespace fastimpute {
namespace {

template <typename T>
using Rows = std::vector<T>;

// out (count, outputs) = in (count, inputs) w^T + b
template <typename T>
Rows<T> affine(const Rows<T>& in, const T* w, const T* b, std::int64_t outputs, std::int64_t inputs) {
    const std::int64_t count = static_cast<std::int64_t>(in.size()) / inputs;
    Rows<T> out(count * outputs);
    for (std::int64_t row = 0; row < count; ++row) {
        for (std::int64_t o = 0; o < outputs; ++o) {
            T sum = b[o];
            for (std::int64_t i = 0; i < inputs; ++i) sum += w[o * inputs + i] * in[row * inputs + i];
            out[row * outputs + o] = sum;
        }
    }
    return out;
}

// LN(x) (1 + gain) + shift
template <typename T>
Rows<T> modulated(const Rows<T>& x, const T* gain, const T* shift, std::int64_t hidden) {
    Rows<T> out(x.size());
    for (std::size_t start = 0; start < x.size(); start += hidden) {
        T mean = 0, variance = 0;
        for (std::int64_t j = 0; j < hidden; ++j) mean += x[start + j] / static_cast<T>(hidden);
        for (std::int64_t j = 0; j < hidden; ++j) {
            variance += (x[start + j] - mean) * (x[start + j] - mean) / static_cast<T>(hidden);
        }
        const T rstd = T(1) / std::sqrt(variance + static_cast<T>(kLayerNormEps));
        for (std::int64_t j = 0; j < hidden; ++j) {
            out[start + j] = (x[start + j] - mean) * rstd * (T(1) + gain[j]) + shift[j];
        }
    }
    return out;
}

template <typename T>
T gelu(T u) {
    const T inner = static_cast<T>(0.7978845608028654) * (u + static_cast<T>(0.044715) * u * u * u);
    return u * static_cast<T>(0.5) * (T(1) + std::tanh(inner));
}

template <typename T>
T dot(const T* a, const T* b, std::int64_t count) {
    T sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

// One sequence's attention: keys and values of its own tokens, then of the memory.
template <typename T>
class Attention {
  public:
    Attention(const DitWeights<T>& weights, const DitBlockArgs<T>& args, std::int64_t sequence, const Rows<T>& qkv)
        : hidden_(weights.hidden),
          heads_(weights.heads),
          size_(weights.hidden / weights.heads),
          args_(args),
          qkv_(qkv),
          absent_(args.absent ? args.absent + sequence * args.tokens : nullptr),
          bias_(args.bias ? args.bias + sequence % args.bias_rows * args.bias_stride : nullptr),
          memory_(args.memory_tokens
                      ? args.memory + sequence % args.memory_rows * args.memory_tokens * 2 * weights.hidden
                      : nullptr) {}

    Rows<T> run() const {
        Rows<T> out(args_.tokens * hidden_);
        for (std::int64_t head = 0; head < heads_; ++head) {
            for (std::int64_t query = 0; query < args_.tokens; ++query) attend(head, query, out);
        }
        return out;
    }

  private:
    void attend(std::int64_t head, std::int64_t query, Rows<T>& out) const {
        const std::int64_t keys = args_.tokens + args_.memory_tokens;
        Rows<T> scores(keys);
        T most = 0, sum = 0;
        bool any = false;
        for (std::int64_t key = 0; key < keys; ++key) {
            if (hidden_key(key)) continue;
            scores[key] = dot(qkv_.data() + query * 3 * hidden_ + head * size_, key_row(key) + head * size_, size_) /
                          std::sqrt(static_cast<T>(size_));
            if (bias_) scores[key] += bias_[head * args_.bias_head_stride + key * args_.bias_key_stride + query];
            most = any ? std::max(most, scores[key]) : scores[key];
            any = true;
        }
        for (std::int64_t key = 0; key < keys; ++key) {
            scores[key] = hidden_key(key) ? T(0) : std::exp(scores[key] - most);
            sum += scores[key];
        }
        for (std::int64_t key = 0; key < keys; ++key) {
            if (hidden_key(key)) continue;
            for (std::int64_t j = 0; j < size_; ++j) {
                const std::int64_t at = head * size_ + j;
                out[query * hidden_ + at] += scores[key] / sum * value_row(key)[at];
            }
        }
    }

    bool hidden_key(std::int64_t key) const { return absent_ && key < args_.tokens && absent_[key]; }
    const T* key_row(std::int64_t key) const {
        if (key < args_.tokens) return qkv_.data() + key * 3 * hidden_ + hidden_;
        return memory_ + (key - args_.tokens) * 2 * hidden_;
    }
    const T* value_row(std::int64_t key) const { return key_row(key) + hidden_; }

    std::int64_t hidden_, heads_, size_;
    const DitBlockArgs<T>& args_;
    const Rows<T>& qkv_;
    const std::uint8_t* absent_;
    const T* bias_;
    const T* memory_;
};

template <typename T>
void add_gated(Rows<T>& x, const T* gate, const Rows<T>& change, std::int64_t hidden) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += gate[i % hidden] * change[i];
}

}  // namespace

template <typename T>
void dit_block_ref(const DitWeights<T>& w, const DitBlockArgs<T>& args) {
    const std::int64_t hidden = w.hidden, size = args.tokens * hidden;
    for (std::int64_t i = 0; i < args.sequences; ++i) {
        const T* modulation = args.modulation + i % args.modulation_rows * 6 * hidden;
        Rows<T> x(args.x + i * size, args.x + (i + 1) * size);
        const Rows<T> qkv =
            affine(modulated(x, modulation, modulation + hidden, hidden), w.qkv, w.b_qkv, 3 * hidden, hidden);
        const Rows<T> attended = Attention<T>(w, args, i, qkv).run();
        add_gated(x, modulation + 2 * hidden, affine(attended, w.proj, w.b_proj, hidden, hidden), hidden);
        modulation += 3 * hidden;
        Rows<T> inner = affine(modulated(x, modulation, modulation + hidden, hidden), w.up, w.b_up, w.inner, hidden);
        for (T& value : inner) value = gelu(value);
        add_gated(x, modulation + 2 * hidden, affine(inner, w.down, w.b_down, hidden, w.inner), hidden);
        std::copy(x.begin(), x.end(), args.out + i * size);
    }
}

template void dit_block_ref<float>(const DitWeights<float>&, const DitBlockArgs<float>&);
template void dit_block_ref<double>(const DitWeights<double>&, const DitBlockArgs<double>&);

}  // namespace fastimpute
