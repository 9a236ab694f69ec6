#include "dispatch.h"

#include <array>

#include "common/errors.h"
#include "common/mlp_kernels.h"
#include "dit_block/dit_pack.h"
#include "energy_mlp/energy_mlp.h"
#include "score_matching/score_matching.h"
#include "score_mlp/score_mlp.h"
#include "unrolled_attention/unrolled_attention.h"

namespace fastimpute {
namespace {

#if defined(__x86_64__)
constexpr std::array<Kernels, kIsaCount> kTable = {{
    {ref::spt_weights_group<float>, ref::particle_step_rows<float>, ref::diffusion_step_rows<float>,
     ref::ball_windows<float>, ref::gaussian_conditional_group<float>, ref::gaussian_whitening_window<float>},  // ref
    {avx2::spt_weights_group, avx2::particle_step_rows, avx2::diffusion_step_rows, avx2::ball_windows,
     avx2::gaussian_conditional_group, avx2::gaussian_whitening_window},  // avx2
    {avx512::spt_weights_group, avx512::particle_step_rows, avx512::diffusion_step_rows, avx512::ball_windows,
     avx512::gaussian_conditional_group, avx512::gaussian_whitening_window},  // avx512
    {avx512::spt_weights_group, avx512::particle_step_rows, avx512::diffusion_step_rows, avx512::ball_windows,
     avx512::gaussian_conditional_group, avx512::gaussian_whitening_window},  // avx512bf16
}};
#else
constexpr std::array<Kernels, 1> kTable = {
    {{ref::spt_weights_group<float>, ref::particle_step_rows<float>, ref::diffusion_step_rows<float>,
      ref::ball_windows<float>, ref::gaussian_conditional_group<float>, ref::gaussian_whitening_window<float>}}};
#endif

}  // namespace

const MlpKernels* find_mlp_kernels(Isa isa, Precision precision) {
#if defined(__x86_64__)
    // Blocks are whole tiles of rows: 8 under AVX-512, 6 under AVX2.
    static constexpr MlpKernels kAvx2{
        {8, 1, 1}, 60, 30, avx2::energy_scratch, avx2::energy_block, avx2::score_scratch, avx2::score_block};
    static constexpr MlpKernels kAvx512{
        {16, 3, 1}, 64, 32, avx512::energy_scratch, avx512::energy_block, avx512::score_scratch, avx512::score_block};
    static constexpr MlpKernels kAvx512Bf16{{16, 3, 2},
                                            64,
                                            32,
                                            avx512bf16::energy_scratch,
                                            avx512bf16::energy_block,
                                            avx512bf16::score_scratch,
                                            avx512bf16::score_block};
    if (precision == Precision::kBf16 && isa == Isa::kAvx512Bf16) return &kAvx512Bf16;
    if (precision == Precision::kFp32 && isa >= Isa::kAvx512) return &kAvx512;
    if (precision == Precision::kFp32 && isa == Isa::kAvx2) return &kAvx2;
#endif
    if (precision == Precision::kBf16) throw_invalid("MlpPack", "isa", "avx512bf16 for bf16", isa_name(isa));
    throw_invalid("MlpPack", "isa", "one with network kernels", isa_name(isa));
}

const ScoreMatchingKernels& score_matching_kernels(Isa isa) {
#if defined(__x86_64__)
    // Slices are whole tiles of rows; a chunk's activations (8 rows of floats each) fit the last level of cache.
    static constexpr ScoreMatchingKernels kAvx2{{8, 1, 1}, 30, 540, avx2::score_matching_slice, avx2::outer_block};
    static constexpr ScoreMatchingKernels kAvx512{
        {16, 3, 1}, 32, 512, avx512::score_matching_slice, avx512::outer_block};
    if (isa >= Isa::kAvx512) return kAvx512;
    if (isa == Isa::kAvx2) return kAvx2;
#endif
    throw_invalid("score_matching", "isa", "one with network kernels", isa_name(isa));
}

const UnrolledKernels& find_unrolled_kernels(Isa isa) {
    static constexpr UnrolledKernels kRef{1, ref::unrolled_scratch, ref::unrolled_solve<float>};
#if defined(__x86_64__)
    static constexpr UnrolledKernels kAvx2{16, avx2::unrolled_scratch, avx2::unrolled_solve};
    static constexpr UnrolledKernels kAvx512{32, avx512::unrolled_scratch, avx512::unrolled_solve};
    if (isa >= Isa::kAvx512) return kAvx512;
    if (isa == Isa::kAvx2) return kAvx2;
#endif
    return kRef;
}

const DitKernels* find_dit_kernels(Isa isa, Precision precision) {
#if defined(__x86_64__)
    static constexpr DitKernels kAvx2{4, 1, avx2::dit_scratch, avx2::dit_sequence};
    static constexpr DitKernels kAvx512{8, 1, avx512::dit_scratch, avx512::dit_sequence};
    static constexpr DitKernels kAvx512Bf16{8, 2, avx512bf16::dit_scratch, avx512bf16::dit_sequence};
    if (precision == Precision::kBf16 && isa == Isa::kAvx512Bf16) return &kAvx512Bf16;
    if (precision == Precision::kFp32 && isa >= Isa::kAvx512) return &kAvx512;
    if (precision == Precision::kFp32 && isa == Isa::kAvx2) return &kAvx2;
#endif
    if (precision == Precision::kBf16) throw_invalid("DitPack", "isa", "avx512bf16 for bf16", isa_name(isa));
    throw_invalid("DitPack", "isa", "one with block kernels", isa_name(isa));
}

const Kernels& kernels(Isa isa) { return kTable.at(static_cast<std::size_t>(isa)); }

}  // namespace fastimpute
