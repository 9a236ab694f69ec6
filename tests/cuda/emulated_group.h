#pragma once

#include <array>
#include <map>
#include <tuple>

#include "common/wgmma.cuh"
#include "emulated_lane.h"

// Warpgroups on the host. A product reads its matrix where the descriptor says, by the PTX ISA's canonical layouts
// without swizzling, and its sums change no sooner than when they are waited for.
namespace emulated {

// A device that does not do what we think it does.
inline bool ignores_transposition = false;

inline constexpr std::uint32_t kSharedBegin = 0x400;  // where a block's shared memory begins on a device

// A block of warpgroups: its shared memory, and what its lanes are about.
class GroupBlock {
  public:
    struct Product {
        float* sums;
        bool add;
        std::vector<float> values;
    };
    struct Own {
        bool published = false;
        bool multiplies = false;
        std::vector<Product> products;
        std::uint64_t asked = 0;  // what products, as a number
    };

    GroupBlock(const std::uint16_t* shared, std::size_t bytes, int threads)
        : shared_(shared), bytes_(bytes), own_(threads) {}

    std::uint32_t address_of(const void* place) const {
        return kSharedBegin +
               static_cast<std::uint32_t>(static_cast<const char*>(place) - reinterpret_cast<const char*>(shared_));
    }
    Own& own(int thread) { return own_[thread]; }

    // Element (k, n) of a product's matrix at [n * 16 + k]. Kept: nobody writes to what has been published.
    const std::vector<float>& matrix(std::uint64_t descriptor, bool asked_transposed, int columns) {
        const bool transposed = asked_transposed && !ignores_transposition;
        std::vector<float>& found = matrices_[{descriptor, transposed, columns}];
        if (!found.empty()) return found;
        if (descriptor >> 46 != 0) throw std::logic_error("a descriptor with a base offset or swizzling");
        const auto field = [&](int bit) { return static_cast<std::uint32_t>(descriptor >> bit & 0x3FFF) << 4; };
        const std::uint32_t start = field(0), leading = field(16), stride = field(32);
        for (int n = 0; n < columns; ++n) {
            for (int k = 0; k < 16; ++k) {
                const int inside = transposed ? k % 8 * 16 + n % 8 * 2 : n % 8 * 16 + k % 8 * 2;
                found.push_back(bf16_value(at(start + n / 8 * stride + k / 8 * leading + inside)));
            }
        }
        return found;
    }

  private:
    std::uint16_t at(std::uint32_t address) const {
        if (address < kSharedBegin || address + 2 > kSharedBegin + bytes_)
            throw std::logic_error("a product reads outside the block's shared memory");
        return shared_[(address - kSharedBegin) / 2];
    }

    const std::uint16_t* shared_;
    std::size_t bytes_;
    std::vector<Own> own_;
    std::map<std::tuple<std::uint64_t, bool, int>, std::vector<float>> matrices_;
};

// What common/wgmma.cuh says of GroupLane.
class GroupLane : public Lane {
  public:
    GroupLane(const Grid& grid, GroupBlock& block) : Lane(grid), block_(&block) {}

    template <typename Body>
    void apart(int, const Body& body) const {
        body();
    }
    std::uint32_t shared_address(const void* shared) const { return block_->address_of(shared); }
    void publish() const { own().published = true; }

    void begin_turns() const {
        if (both() && group() == 1) grid_->threads->arrive(all_threads(), kTurnOfFirst);
    }
    void wait_for_turn() const {
        if (both()) wait_at(group() == 0 ? kTurnOfFirst : kTurnOfSecond);
    }
    void pass_turn() const {
        if (both()) grid_->threads->arrive(all_threads(), group() == 0 ? kTurnOfSecond : kTurnOfFirst);
    }
    void end_turns() const {
        if (both() && group() == 0) wait_at(kTurnOfFirst);
    }

    template <int kTiles>
    void begin_products(float (&)[kTiles][4]) const {
        own().multiplies = true;
    }
    template <bool kTransposed, int kTiles>
    void multiply(float (&sums)[kTiles][4], const std::uint32_t (&a)[4], std::uint64_t b, bool add) const {
        if (!own().multiplies) throw std::logic_error("a product before begin_products");
        if (!own().published) throw std::logic_error("a product of what nobody published");
        const auto rows = grid_->threads->exchange(members_of(0xFFFFFFFFu), std::array{a[0], a[1], a[2], a[3]});
        const std::vector<float>& matrix = block_->matrix(b, kTransposed, 8 * kTiles);
        GroupBlock::Product product{&sums[0][0], add, {}};
        for (int i = 0; i < 4 * kTiles; ++i) {
            const int row = thread() % 32 / 4 + i % 4 / 2 * 8;
            const float* const right = &matrix[(i / 4 * 8 + thread() % 4 * 2 + i % 2) * 16];
            float sum = 0;
            for (int k = 0; k < 16; ++k) {
                const std::uint32_t pair = rows[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
                sum += bf16_value(k % 2 ? pair >> 16 : pair & 0xFFFFu) * right[k];
            }
            product.values.push_back(sum);
        }
        own().products.push_back(std::move(product));
        own().asked = own().asked * 31 + b + (kTransposed ? 7 : 0) + kTiles;
    }
    template <int kTiles>
    void wait(float (&)[kTiles][4]) const {
        for (const std::uint64_t asked : grid_->threads->exchange(group_members(), own().asked, kInGroup)) {
            if (asked != own().asked) throw std::logic_error("the lanes of a group ask for different products");
        }
        for (const GroupBlock::Product& product : own().products) {
            for (std::size_t i = 0; i < product.values.size(); ++i)
                product.sums[i] = (product.add ? product.sums[i] : 0.0f) + product.values[i];
        }
        own().products.clear();
        own().multiplies = false;
    }

  private:
    bool both() const { return threads() > fastimpute::cuda::kGroup; }
    int group() const { return thread() / fastimpute::cuda::kGroup; }
    void wait_at(Meeting turn) const { grid_->threads->exchange(all_threads(), 0, turn); }
    GroupBlock::Own& own() const { return block_->own(thread()); }
    std::vector<int> group_members() const {
        std::vector<int> members(fastimpute::cuda::kGroup);
        for (int i = 0; i < fastimpute::cuda::kGroup; ++i) members[i] = group() * fastimpute::cuda::kGroup + i;
        return members;
    }

    GroupBlock* block_;
};

// body(lane) for every thread of every block, in `shared` memory of its own.
template <typename Body>
void launch_groups(std::int64_t blocks, int threads, std::vector<fastimpute::cuda::FourWords>& shared,
                   const Body& body) {
    for (std::int64_t index = 0; index < blocks; ++index) {
        Grid grid{index, blocks, nullptr};
        GroupBlock groups(reinterpret_cast<const std::uint16_t*>(shared.data()), shared.size() * sizeof(shared[0]),
                          threads);
        Block block(threads, [&](int) { body(GroupLane(grid, groups)); });
        grid.threads = &block;
        block.run();
    }
}

}  // namespace emulated
