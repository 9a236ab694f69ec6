#pragma once

#include <cstdint>

namespace fastimpute {

// Plain data shared by the network kernels. Matrices are row-major and dense, weights laid out like torch.nn.Linear:
// (outputs, inputs). No member owns memory.

enum class Precision { kFp32 = 0, kBf16 = 1 };
enum class Head { kEnergy = 0, kDirect = 1 };

inline constexpr double kLayerNormEps = 1e-5;

// a1 = w1 x + b1, h1 = SiLU(LN(a1) (1 + gain1) + shift1), a2 = w2 h1 + b2, h2 = SiLU(LN(a2) (1 + gain2) + shift2);
// energy head: log p = w3 . h2 + b3, direct head: out = w3 h2 + b3.
// With `precision` the energy gains -1/2 (x - mean)^T precision (x - mean).
template <typename T>
struct MlpWeights {
    std::int64_t hidden;
    std::int64_t dim;
    const T* w1;         // (hidden, dim)
    const T* b1;         // (hidden)
    const T* w2;         // (hidden, hidden)
    const T* b2;         // (hidden)
    const T* w3;         // energy: (hidden); direct: (dim, hidden)
    const T* b3;         // energy: (1); direct: (dim)
    const T* precision;  // (dim, dim), symmetric; null: no Gaussian part
    const T* mean;       // (dim), null exactly when precision is
};

// Rows of (4, hidden): gain1, shift1, gain2, shift2.
template <typename T>
struct Modulation {
    const T* values;  // (rows, 4, hidden)
    std::int64_t rows;
    const std::int64_t* index;  // (particles), each in [0, rows); null: all particles share row 0

    [[gnu::always_inline]] const T* of(std::int64_t particle, std::int64_t hidden) const {
        return values + (index ? index[particle] : 0) * 4 * hidden;
    }
};

}  // namespace fastimpute
