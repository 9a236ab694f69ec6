#include "score_mlp/score_mlp.h"

#include <algorithm>

#include "common/errors.h"
#include "common/mlp_checks.h"
#include "common/mlp_kernels.h"
#include "common/mlp_pack.h"
#include "common/parallel_for.h"
#include "common/scratch.h"

namespace fastimpute {
namespace {

constexpr std::string_view kOp = "score_mlp";

void check(const MlpPack& pack, const ScoreMlpArgs<float>& args) {
    if (pack.head() != Head::kDirect) throw_invalid(kOp, "pack", "of the direct head", std::string_view("energy head"));
    check_rows(kOp, args.rows);
    check_modulation(kOp, args.modulation, args.rows);
    check_matrix(kOp, "x", args.x, args.rows, args.x_stride, pack.dim());
    check_matrix(kOp, "sigma", args.sigma, args.rows, 1, 1);
    check_matrix(kOp, "score", args.score, args.rows, args.score_stride, pack.dim());
    for (std::int64_t i = 0; i < args.rows; ++i) {
        if (!(args.sigma[i] > 0)) throw_invalid(kOp, "sigma", "positive", static_cast<double>(args.sigma[i]));
    }
}

}  // namespace

void score_mlp(const MlpPack& pack, int threads, const ScoreMlpArgs<float>& args) {
    check(pack, args);
    if (pack.kernels() == nullptr) {
        score_mlp_ref(pack.weights(), args);
        return;
    }
    const MlpKernels& kernels = *pack.kernels();
    const std::int64_t block = kernels.block_rows;
    const std::int64_t scratch = kernels.score_scratch(pack.packed(), std::min(block, args.rows));
    parallel_for(0, args.rows, block, threads, [&](std::int64_t begin, std::int64_t end, int) {
        kernels.score_block(pack.packed(), args, begin, end, thread_scratch(scratch));
    });
}

}  // namespace fastimpute
