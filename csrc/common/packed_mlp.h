#pragma once

#include <cstdint>

namespace fastimpute {

// What the kernels read: plain data, no library code, so that it may be included under any instruction set's flags.

// B of C = A B, cut into panels of columns; a panel holds its rows (inputs) one after another, so the kernel streams
// it.
struct PackedMatrix {
    const void* data;
    std::int64_t inputs;
    std::int64_t outputs;
};

// W1, W2 and their biases are centred over their outputs: LayerNorm then needs no mean, in no direction.
struct PackedMlp {
    std::int64_t hidden;
    std::int64_t dim;
    PackedMatrix w1;         // dim -> hidden
    PackedMatrix w2;         // hidden -> hidden
    PackedMatrix w2_back;    // hidden -> hidden, transposed
    PackedMatrix w1_back;    // hidden -> dim, transposed
    PackedMatrix gram;       // w1 w1^T; data null unless dim > hidden and there is no Gaussian part
    PackedMatrix w3_direct;  // hidden -> dim, direct head only
    PackedMatrix w3_back;    // dim -> hidden, transposed; training only
    PackedMatrix pull;       // minus the precision matrix, always float32; data null without the Gaussian part
    const float* b1;
    const float* b2;
    const float* w3;  // energy head: (hidden)
    const float* b3;  // energy: (1); direct: (dim), padded with zeros to full panels
    const float* mean;
};

// How an instruction set wants its panels.
struct PackLayout {
    int lanes;            // float32 values in a vector
    int odd_panel;        // vectors in the last panel when their number is odd (and not one); the others have two
    int inputs_per_step;  // 2: pairs of inputs interleaved as bfloat16
};

inline constexpr std::int64_t kMaxHidden = 1024;

static constexpr std::int64_t round_up(std::int64_t value, std::int64_t step) {
    return (value + step - 1) / step * step;
}

// Row stride of a buffer of `width` values: never a multiple of 128 bytes times a power of two, so that the rows of a
// tile fall into different cache sets.
static constexpr std::int64_t buffer_stride(std::int64_t width) { return round_up(width, 32) + 16; }

}  // namespace fastimpute
