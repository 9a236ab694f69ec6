#include "dispatch.h"

#include <array>

#include "common/errors.h"
#include "common/mlp_kernels.h"

namespace fastimpute {
namespace {

#if defined(__x86_64__)
constexpr std::array<Kernels, kIsaCount> kTable = {{
    {ref::spt_weights_group<float>, ref::particle_step_rows<float>},  // ref
    {avx2::spt_weights_group, avx2::particle_step_rows},              // avx2
    {avx512::spt_weights_group, avx512::particle_step_rows},          // avx512
    {avx512::spt_weights_group, avx512::particle_step_rows},          // avx512bf16
}};
#else
constexpr std::array<Kernels, 1> kTable = {{{ref::spt_weights_group<float>, ref::particle_step_rows<float>}}};
#endif

}  // namespace

const MlpKernels* find_mlp_kernels(Isa isa, Precision precision) {
    (void)precision;
    throw_invalid("MlpPack", "isa", "one with network kernels", isa_name(isa));
}

const Kernels& kernels(Isa isa) { return kTable.at(static_cast<std::size_t>(isa)); }

}  // namespace fastimpute
