#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#include "common/device.cuh"

// A grid on the host: every thread of a block is a fibre that runs until it meets the others. A collective operation
// waits until all its members have brought their operands, so a lane that fails to come is found, as a wrong index is.
namespace emulated {

inline constexpr std::size_t kOperandBytes = 64;

// Meetings are counted apart where their members may have met among themselves more or less often.
enum Meeting : int { kInWarp = 0, kInBlock = 1, kInGroup = 2, kTurnOfFirst = 3, kTurnOfSecond = 4, kMeetingKinds = 5 };

class Block {
  public:
    Block(int threads, std::function<void(int)> body) : body_(std::move(body)), fibers_(threads) {
        for (int i = 0; i < threads; ++i) {
            Fiber& fiber = fibers_[i];
            fiber.stack.resize(kStackBytes);
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack.data();
            fiber.context.uc_stack.ss_size = fiber.stack.size();
            fiber.context.uc_link = &scheduler_;
            makecontext(&fiber.context, reinterpret_cast<void (*)()>(&Block::enter), 1, i);
        }
    }

    void run() {
        running_ = this;
        for (bool progress = true; progress;) {
            progress = false;
            for (int i = 0; i < static_cast<int>(fibers_.size()); ++i) {
                if (fibers_[i].done || !met(fibers_[i])) continue;
                fibers_[i].waits_for.clear();
                current_ = i;
                swapcontext(&scheduler_, &fibers_[i].context);
                progress = true;
            }
        }
        for (const Fiber& fiber : fibers_) {
            if (!fiber.done) throw std::logic_error("lanes wait for one that never comes");
        }
    }

    int current() const { return current_; }
    int threads() const { return static_cast<int>(fibers_.size()); }

    // Brings `operand`, waits for all of `members`, then gives what each of them brought.
    template <typename T>
    std::vector<T> exchange(const std::vector<int>& members, const T& operand, Meeting kind_of = kInWarp) {
        static_assert(sizeof(T) <= kOperandBytes);
        Fiber& own = fibers_[current_];
        own.kind = kind_of;
        Meetings& meetings = own.meetings[own.kind];
        std::memcpy(meetings.operand[meetings.count % 2], &operand, sizeof(T));
        const std::int64_t meeting = meetings.count++;
        meetings.members = members;
        own.waits_for = members;
        const int kind = own.kind;
        swapcontext(&own.context, &scheduler_);
        std::vector<T> brought(members.size());
        for (std::size_t k = 0; k < members.size(); ++k)
            std::memcpy(&brought[k], fibers_[members[k]].meetings[kind].operand[meeting % 2], sizeof(T));
        return brought;
    }

    // As if it had met them, without waiting for those who do.
    void arrive(const std::vector<int>& members, Meeting kind) {
        Meetings& meetings = fibers_[current_].meetings[kind];
        meetings.count++;
        meetings.members = members;
    }

  private:
    static constexpr std::size_t kStackBytes = 256 * 1024;

    struct Meetings {
        std::vector<int> members;
        std::int64_t count = 0;
        alignas(16) char operand[2][kOperandBytes];
    };
    struct Fiber {
        ucontext_t context;
        std::vector<char> stack;
        std::vector<int> waits_for;
        int kind = 0;
        Meetings meetings[kMeetingKinds];
        bool done = false;
    };

    // Members meet when each has come as often as the waiting one, or already gone on from there.
    bool met(const Fiber& fiber) const {
        const Meetings& own = fiber.meetings[fiber.kind];
        for (const int other : fiber.waits_for) {
            const Meetings& theirs = fibers_[other].meetings[fiber.kind];
            if (theirs.count < own.count) return false;
            if (theirs.count == own.count && theirs.members != own.members)
                throw std::logic_error("lanes meet with different partners");
        }
        return true;
    }

    static void enter(int index) {
        running_->body_(index);
        running_->fibers_[index].done = true;
    }

    static inline Block* running_ = nullptr;

    std::function<void(int)> body_;
    std::vector<Fiber> fibers_;
    ucontext_t scheduler_{};
    int current_ = 0;
};

struct Grid {
    std::int64_t block = 0;
    std::int64_t blocks = 1;
    Block* threads = nullptr;
};

inline std::uint32_t bf16_bits(float value) {
    const std::uint32_t bits = fastimpute::cuda::bits_of(value);
    return (bits + 0x7FFFu + (bits >> 16 & 1)) >> 16;
}

inline float bf16_value(std::uint32_t bits) { return fastimpute::cuda::float_of(bits << 16); }

inline std::uint32_t half_bits(float value) {
    const auto half = static_cast<_Float16>(value);
    std::uint16_t bits;
    std::memcpy(&bits, &half, sizeof(bits));
    return bits;
}

// What common/device.cuh says of Lane.
class Lane {
  public:
    explicit Lane(const Grid& grid) : grid_(&grid) {}

    int thread() const { return grid_->threads->current(); }
    int thread_anew() const { return thread(); }
    int threads() const { return grid_->threads->threads(); }
    std::int64_t block() const { return grid_->block; }
    std::int64_t blocks() const { return grid_->blocks; }

    void sync_block() const { grid_->threads->exchange(all_threads(), 0, kInBlock); }
    void sync_warp() const { grid_->threads->exchange(members_of(0xFFFFFFFFu), 0); }

    void forget() const {}

    template <typename T>
    T shuffle_xor(std::uint32_t members, T value, int distance) const {
        const std::vector<int> who = members_of(members);
        const std::vector<T> brought = grid_->threads->exchange(who, value);
        for (std::size_t k = 0; k < who.size(); ++k) {
            if (who[k] == (thread() ^ distance)) return brought[k];
        }
        throw std::logic_error("shuffle from a lane that is no member");
    }
    template <typename T>
    T shuffle(std::uint32_t members, T value, int from) const {
        const std::vector<int> who = members_of(members);
        const std::vector<T> brought = grid_->threads->exchange(who, value);
        for (std::size_t k = 0; k < who.size(); ++k) {
            if (who[k] % 32 == from) return brought[k];
        }
        throw std::logic_error("shuffle from a lane that is no member");
    }
    std::uint32_t add(std::uint32_t members, std::uint32_t value) const {
        std::uint32_t sum = 0;
        for (const std::uint32_t part : grid_->threads->exchange(members_of(members), value)) sum += part;
        return sum;
    }

    void add_to(std::uint64_t* sum, std::uint64_t value) const { *sum += value; }
    void set_bits(std::uint64_t* word, std::uint64_t bits) const { *word |= bits; }

    std::uint32_t bf16_pair(float low, float high) const { return bf16_bits(low) | bf16_bits(high) << 16; }
    std::uint32_t half_pair(float low, float high) const { return half_bits(low) | half_bits(high) << 16; }
    float half_of(std::uint32_t pair, int which) const {
        const auto bits = static_cast<std::uint16_t>(which ? pair >> 16 : pair);
        _Float16 half;
        std::memcpy(&half, &bits, sizeof(half));
        return static_cast<float>(half);
    }

    template <bool kTransposed>
    void load_matrices(const std::uint16_t* row, std::uint32_t (&out)[4]) const {
        if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) throw std::logic_error("matrix row not on 16 bytes");
        const auto rows = grid_->threads->exchange(members_of(0xFFFFFFFFu), row);
        const int own = thread() % 32;
        for (int matrix = 0; matrix < 4; ++matrix) {
            const auto element = [&](int i, int j) -> std::uint32_t {
                return kTransposed ? rows[8 * matrix + j][i] : rows[8 * matrix + i][j];
            };
            out[matrix] = element(own / 4, own % 4 * 2) | element(own / 4, own % 4 * 2 + 1) << 16;
        }
    }

    void multiply(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) const {
        struct Operands {
            std::uint32_t a[4];
            std::uint32_t b[2];
        };
        const auto brought =
            grid_->threads->exchange(members_of(0xFFFFFFFFu), Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
        const auto half = [](std::uint32_t pair, int which) { return bf16_value(which ? pair >> 16 : pair & 0xFFFFu); };
        const int own = thread() % 32;
        for (int i = 0; i < 4; ++i) {
            const int row = own / 4 + i / 2 * 8;
            const int column = own % 4 * 2 + i % 2;
            for (int k = 0; k < 16; ++k) {
                const int part = k / 8;
                const float left = half(brought[row % 8 * 4 + k % 8 / 2].a[row / 8 + 2 * part], k % 2);
                const float right = half(brought[column * 4 + k % 8 / 2].b[part], k % 2);
                sum[i] += left * right;
            }
        }
    }

    void multiply(double (&sum)[2], double a, double b) const {
        struct Operands {
            double a, b;
        };
        const auto brought = grid_->threads->exchange(members_of(0xFFFFFFFFu), Operands{a, b});
        const int own = thread() % 32;
        for (int i = 0; i < 2; ++i) {
            for (int k = 0; k < 4; ++k) sum[i] += brought[own / 4 * 4 + k].a * brought[(own % 4 * 2 + i) * 4 + k].b;
        }
    }

  protected:
    std::vector<int> members_of(std::uint32_t mask) const {
        std::vector<int> members;
        const int first = thread() / 32 * 32;
        for (int i = 0; i < 32; ++i) {
            if (mask >> i & 1) members.push_back(first + i);
        }
        return members;
    }
    std::vector<int> all_threads() const {
        std::vector<int> members(threads());
        for (int i = 0; i < threads(); ++i) members[i] = i;
        return members;
    }

    const Grid* grid_;
};

// body(lane) for every thread of every block.
template <typename Body>
void launch(std::int64_t blocks, int threads, const Body& body) {
    for (std::int64_t index = 0; index < blocks; ++index) {
        Grid grid{index, blocks, nullptr};
        Block block(threads, [&](int) { body(Lane(grid)); });
        grid.threads = &block;
        block.run();
    }
}

}  // namespace emulated
