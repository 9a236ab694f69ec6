#include "energy_mlp/energy_mlp.h"

#include <algorithm>

#include "common/errors.h"
#include "common/mlp_checks.h"
#include "common/mlp_kernels.h"
#include "common/mlp_pack.h"
#include "common/parallel_for.h"
#include "common/scratch.h"

namespace fastimpute {
namespace {

constexpr std::string_view kOp = "energy_mlp";

void check(const MlpPack& pack, const EnergyMlpArgs<float>& args) {
    if (pack.head() != Head::kEnergy) throw_invalid(kOp, "pack", "of the energy head", std::string_view("direct head"));
    check_rows(kOp, args.rows);
    check_modulation(kOp, args.modulation, args.rows);
    check_matrix(kOp, "x", args.x, args.rows, args.x_stride, pack.dim());
    check_matrix(kOp, "log_p", args.log_p, args.rows, 1, 1);
    check_matrix(kOp, "score", args.score, args.rows, args.score_stride, pack.dim());
    if (args.want_hvp) check_matrix(kOp, "hvp", args.hvp, args.rows, args.hvp_stride, pack.dim());
    if (args.vector) check_matrix(kOp, "vector", args.vector, args.rows, args.vector_stride, pack.dim());
}

}  // namespace

void energy_mlp(const MlpPack& pack, int threads, const EnergyMlpArgs<float>& args) {
    check(pack, args);
    if (pack.kernels() == nullptr) {
        energy_mlp_ref(pack.weights(), args);
        return;
    }
    const MlpKernels& kernels = *pack.kernels();
    const PackedMlp& mlp = pack.packed();
    const std::int64_t block = args.want_hvp ? kernels.block_rows_hvp : kernels.block_rows;
    const std::int64_t scratch = kernels.energy_scratch(mlp, std::min(block, args.rows), args.want_hvp);
    parallel_for(0, args.rows, block, threads, [&](std::int64_t begin, std::int64_t end, int) {
        kernels.energy_block(mlp, args, begin, end, thread_scratch(scratch));
    });
}

}  // namespace fastimpute
