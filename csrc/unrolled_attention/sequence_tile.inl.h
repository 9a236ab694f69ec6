#pragma once

#include <cstdint>

#include "common/gemm.inl.h"
#include "unrolled_attention/unrolled_attention.h"

namespace fastimpute {

// Some sequences laid side by side: channels of all of them are columns of one matrix, in panels of two vectors (the
// last of one or two). Rows are the frames that any of them has; a sequence that has not one of the frames has zeros
// there, which leave its sums as they are: results do not depend on who shares the tile.
template <class S>
class SequenceTile {
  public:
    using Vec = typename S::Vec;
    static constexpr std::int64_t kLanes = S::kLanes;
    static constexpr std::int64_t kColumns = 2 * kLanes;

    // Frames seen (or missing) in any of the sequences; `keep` is one where the column's own sequence has it so.
    struct Frames {
        std::int32_t* frame = nullptr;
        std::int64_t count = 0;
        std::int64_t padded = 0;
        float* keep = nullptr;
    };
    SequenceTile(const UnrolledAttention<float>& params, const std::int64_t* order, std::int64_t sequences,
                 float* scratch)
        : params_(params),
          order_(order),
          sequences_(sequences),
          channels_(params.channels),
          vectors_(round_up(sequences_ * channels_, kLanes) / kLanes),
          free_(scratch) {
        take_mirrored();
        seen_ = take_frames(false);
        hidden_ = take_frames(true);
        row_ = take(channels_);
    }

  protected:
    static constexpr std::int64_t kLine = 16;

    // ---- memory ----------------------------------------------------------------------------------------------------

    float* take(std::int64_t floats) {
        float* block = free_;
        free_ += round_up(floats, kLine);
        return block;
    }
    float* take_vector(const Frames& frames) { return take(frames.padded * vectors_ * kLanes); }

    bool is_missing(std::int64_t sequence, std::int64_t frame) const {
        return params_.missing[order_[sequence] * params_.missing_stride + frame] != 0;
    }

    Frames take_frames(bool missing) {
        Frames frames;
        frames.frame = reinterpret_cast<std::int32_t*>(take(params_.frames));
        for (std::int64_t frame = 0; frame < params_.frames; ++frame) {
            bool any = false;
            for (std::int64_t i = 0; i < sequences_ && !any; ++i) any = is_missing(i, frame) == missing;
            if (any) frames.frame[frames.count++] = static_cast<std::int32_t>(frame);
        }
        frames.padded = round_up(frames.count, S::kTileRows);
        frames.keep = take_vector(frames);
        each(frames, [&](std::int64_t at, std::int64_t) { S::store(frames.keep + at, S::zero()); });
        for (std::int64_t row = 0; row < frames.count; ++row) {
            for (std::int64_t i = 0; i < sequences_; ++i) {
                const float keep = is_missing(i, frames.frame[row]) == missing ? 1.0f : 0.0f;
                at_row(frames, frames.keep, row, i, [&](std::int64_t, float& cell) { cell = keep; });
            }
        }
        return frames;
    }

    // The head matrix between two sets of frames; rows up to a whole tile are zero. mirrored_[lag] serves lags of both
    // signs.
    float* take_heads(const Frames& rows, const Frames& columns) {
        float* heads = take(rows.padded * columns.count);
        for (std::int64_t i = 0; i < rows.padded; ++i) {
            float* row = heads + i * columns.count;
            const float* by_lag = mirrored_ + (i < rows.count ? rows.frame[i] : 0);
            for (std::int64_t k = 0; k < columns.count; ++k) row[k] = i < rows.count ? by_lag[-columns.frame[k]] : 0.0f;
        }
        return heads;
    }

    void take_mirrored() {
        mirrored_ = take(2 * params_.frames) + params_.frames;
        for (std::int64_t lag = 0; lag < params_.frames; ++lag)
            mirrored_[lag] = mirrored_[-lag] = params_.lag_table[lag];
    }

    // ---- layout ----------------------------------------------------------------------------------------------------

    std::int64_t panels() const { return (vectors_ + 1) / 2; }
    std::int64_t vectors_of(std::int64_t panel) const { return vectors_ - 2 * panel >= 2 ? 2 : 1; }

    std::int64_t place(const Frames& frames, std::int64_t row, std::int64_t column) const {
        const std::int64_t panel = column / kColumns;
        return panel * kColumns * frames.padded + row * vectors_of(panel) * kLanes + column % kColumns;
    }

    // body(place, lane) for each vector of values on `frames`; lane: where its columns lie in the lane tables.
    template <class Body>
    [[gnu::always_inline]] void each(const Frames& frames, const Body& body) const {
        for (std::int64_t panel = 0; panel < panels(); ++panel) {
            const std::int64_t width = vectors_of(panel) * kLanes;
            const std::int64_t begin = panel * kColumns * frames.padded;
            for (std::int64_t column = 0; column < width; column += kLanes) {
                const std::int64_t lane = panel * kColumns + column;
                for (std::int64_t row = 0; row < frames.count; ++row) body(begin + row * width + column, lane);
            }
        }
    }

    // body(channel, cell) for the channels of one sequence on one frame.
    template <class Body>
    [[gnu::always_inline]] void at_row(const Frames& frames, float* values, std::int64_t row, std::int64_t sequence,
                                       const Body& body) const {
        if (panels() == 1) {
            float* cells = values + row * vectors_ * kLanes + sequence * channels_;
            for (std::int64_t c = 0; c < channels_; ++c) body(c, cells[c]);
            return;
        }
        for (std::int64_t c = 0; c < channels_; ++c) body(c, values[place(frames, row, sequence * channels_ + c)]);
    }

    // ---- data in and out -------------------------------------------------------------------------------------------

    // target = the independent modes of values - mean (missing = 0) or of values - alpha mean (missing = 1), zero where
    // the sequence lacks the frame.
    void load(const Frames& frames, const float* values, std::int64_t stride, bool missing, float* target) {
        each(frames, [&](std::int64_t at, std::int64_t) { S::store(target + at, S::zero()); });
        for (std::int64_t i = 0; i < sequences_; ++i) {
            const float weight = missing ? params_.alpha[order_[i]] : 1.0f;
            for (std::int64_t row = 0; row < frames.count; ++row) {
                const std::int64_t frame = frames.frame[row];
                if (is_missing(i, frame) != missing) continue;
                into_modes(values + order_[i] * stride + frame * channels_, frame, weight);
                at_row(frames, target, row, i, [&](std::int64_t c, float& cell) { cell = row_[c]; });
            }
        }
    }

    void into_modes(const float* values, std::int64_t frame, float weight) {
        const float* mean = params_.mean ? params_.mean + frame * channels_ : nullptr;
        for (std::int64_t c = 0; params_.basis && c < channels_; ++c) row_[c] = 0.0f;
        for (std::int64_t c = 0; c < channels_; ++c) {
            const float centred = mean ? values[c] - weight * mean[c] : values[c];
            if (params_.basis == nullptr) {
                row_[c] = centred;
                continue;
            }
            const float* basis = params_.basis + c * channels_;
            for (std::int64_t mode = 0; mode < channels_; ++mode) row_[mode] += centred * basis[mode];
        }
    }

    // The score and the conditional mean of every sequence, from their modes at the frames missing.
    void write(float* scores, float* means) {
        const std::int64_t cells = params_.frames * channels_;
        for (std::int64_t i = 0; i < sequences_; ++i) {
            std::int64_t row = 0;
            for (std::int64_t frame = 0; frame < params_.frames; ++frame) {
                while (row < hidden_.count && hidden_.frame[row] < frame) ++row;
                float* score = params_.score + order_[i] * cells + frame * channels_;
                float* filled = params_.conditional_mean + order_[i] * cells + frame * channels_;
                if (is_missing(i, frame)) {
                    from_modes(scores, row, i, nullptr, score);
                    from_modes(means, row, i, params_.mean ? params_.mean + frame * channels_ : nullptr, filled);
                    continue;
                }
                const float* x = params_.x + order_[i] * params_.x_stride + frame * channels_;
                for (std::int64_t c = 0; c < channels_; ++c) {
                    score[c] = 0.0f;
                    filled[c] = x[c];
                }
            }
        }
    }

    void from_modes(float* values, std::int64_t row, std::int64_t sequence, const float* mean, float* target) {
        at_row(hidden_, values, row, sequence, [&](std::int64_t c, const float& cell) { row_[c] = cell; });
        for (std::int64_t c = 0; c < channels_; ++c) {
            float value = row_[c];
            if (params_.basis != nullptr) {
                value = 0.0f;
                const float* basis = params_.basis + c * channels_;
                for (std::int64_t mode = 0; mode < channels_; ++mode) value += row_[mode] * basis[mode];
            }
            target[c] = mean ? mean[c] + value : value;
        }
    }

    const UnrolledAttention<float>& params_;
    const std::int64_t* order_;
    std::int64_t sequences_, channels_, vectors_;
    float* free_;
    float* mirrored_;
    Frames seen_, hidden_;
    float* row_;
};

}  // namespace fastimpute
