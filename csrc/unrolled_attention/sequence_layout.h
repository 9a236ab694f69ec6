#pragma once

#include <cstdint>

#include "common/device.cuh"

// How the CUDA kernel of unrolled_attention lays sequences out over lanes, warps and shared memory.
namespace fastimpute::cuda {

// A line is one channel (or mode) of a sequence along its frames. A lane has the same frames of so many lines, all of
// one sequence.
inline constexpr int kLines = 4;

// kGroups lanes share their lines, kFrames neighbouring frames each.
template <int kGroupsOfLine, int kFramesOfLane>
struct SequenceShape {
    static constexpr int kGroups = kGroupsOfLine;
    static constexpr int kFrames = kFramesOfLane;
    static constexpr int kTeams = kWarp / kGroups;      // lanes with the same frames in a warp
    static constexpr int kWarpLines = kLines * kTeams;  // lines of a warp
    static constexpr int kSpan = kGroups * kFrames;     // frames of a line
    // Floats between groups of the operand: one frame more keeps banks apart.
    static constexpr int kStep = kWarpLines * (kFrames + 1);
    static constexpr int kOperand = kGroups * kStep;          // floats that a warp multiplies
    static constexpr int kCells = kLines * kFrames;           // of a lane
    static constexpr int kParked = 3 * kCells * kWarp;        // floats of the outer iteration's vectors of a warp
    static constexpr int kLinks = (2 * kFrames + 2) * kWarp;  // floats that tie the frames seen of a warp's lanes
    static constexpr int kVariances = 2 * kWarpLines;         // floats: variances and their reciprocals
    static constexpr int kWarpFloats = kOperand + kParked + kLinks + kVariances;
    static constexpr int kTable = 2 * kSpan;  // floats of the lag table, lags of both signs
};

inline constexpr int kMostFrames = 256;
inline constexpr int kMostSequenceWarps = 8;

struct SequenceLayout {
    int channels;   // of a sequence, padded to a power of two
    int warps;      // of a block: 1 where they hold whole sequences, else as many as one sequence takes
    int sequences;  // of a block
    int shared_bytes;
};

template <class Shape>
constexpr SequenceLayout layout_of(std::int64_t channels) {
    int padded = kLines;
    while (padded < channels) padded *= 2;
    const int warps = padded > Shape::kWarpLines ? padded / Shape::kWarpLines : 1;
    const int floats = Shape::kTable + warps * Shape::kWarpFloats + 2 * kMostSequenceWarps;
    return {padded, warps, warps * Shape::kWarpLines / padded, floats * 4};
}

// Calls body.template operator()<Shape>() with the smallest shape that holds so many frames, up to kMostFrames.
template <typename Body>
auto with_sequence_shape(std::int64_t frames, const Body& body) {
    if (frames <= 16) return body.template operator()<SequenceShape<8, 2>>();
    if (frames <= 32) return body.template operator()<SequenceShape<8, 4>>();
    if (frames <= 48) return body.template operator()<SequenceShape<8, 6>>();
    if (frames <= 64) return body.template operator()<SequenceShape<16, 4>>();
    if (frames <= 96) return body.template operator()<SequenceShape<16, 6>>();
    if (frames <= 128) return body.template operator()<SequenceShape<32, 4>>();
    if (frames <= 192) return body.template operator()<SequenceShape<32, 6>>();
    return body.template operator()<SequenceShape<32, 8>>();
}

}  // namespace fastimpute::cuda
