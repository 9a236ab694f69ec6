#include "dit_block/dit_block.h"

#include <string>
#include <string_view>

#include "common/errors.h"
#include "common/parallel_for.h"
#include "common/scratch.h"
#include "dit_block/dit_pack.h"

namespace fastimpute {
namespace {

constexpr std::string_view kOp = "dit_block";

void check_address(std::string_view name, const void* data) {
    if (data == nullptr) throw_invalid(kOp, name, "an address", std::string_view("null"));
}

void check_count(std::string_view name, std::int64_t count, std::int64_t most) {
    if (count < 0 || count > most) {
        throw_invalid(kOp, name, "in [0, " + std::to_string(most) + "]", static_cast<long long>(count));
    }
}

// Rows shared by the sequences.
void check_shared(std::string_view name, std::int64_t rows, std::int64_t sequences) {
    if (rows < 1 || sequences % rows != 0) {
        throw_invalid(kOp, name, "a divisor of sequences = " + std::to_string(sequences), static_cast<long long>(rows));
    }
}

void check(const DitBlockArgs<float>& args) {
    check_address("x", args.x);
    check_address("out", args.out);
    check_address("modulation", args.modulation);
    check_shared("modulation_rows", args.modulation_rows, args.sequences);
    if (args.bias != nullptr) check_shared("bias_rows", args.bias_rows, args.sequences);
    if (args.memory_tokens > 0) {
        check_address("memory", args.memory);
        check_shared("memory_rows", args.memory_rows, args.sequences);
    }
}

}  // namespace

void dit_block(const DitPack& pack, int threads, const DitBlockArgs<float>& args) {
    if (args.sequences < 0) throw_invalid(kOp, "sequences", "at least 0", static_cast<long long>(args.sequences));
    check_count("tokens", args.tokens, kMaxDitTokens);
    check_count("memory_tokens", args.memory_tokens, kMaxDitTokens);
    if (args.sequences == 0 || args.tokens == 0) return;
    check(args);
    if (pack.kernels() == nullptr) {
        dit_block_ref(pack.weights(), args);
        return;
    }
    const DitKernels& kernels = *pack.kernels();
    const std::int64_t scratch = kernels.scratch(pack.packed(), args.tokens, args.memory_tokens);
    parallel_for(0, args.sequences, 1, threads, [&](std::int64_t begin, std::int64_t, int) {
        kernels.sequence(pack.packed(), args, begin, thread_scratch(scratch));
    });
}

}  // namespace fastimpute
