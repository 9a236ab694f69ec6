#include "dit_block/dit_block.h"

#include <string_view>

#include "common/parallel_for.h"
#include "common/scratch.h"
#include "dit_block/dit_checks.h"
#include "dit_block/dit_pack.h"

namespace fastimpute {
namespace {

constexpr std::string_view kOp = "dit_block";

}  // namespace

void dit_block(const DitPack& pack, int threads, const DitBlockArgs<float>& args) {
    if (!check_dit_counts(kOp, args)) return;
    check_dit_inputs(kOp, args);
    check_dit_address(kOp, "out", args.out);
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
