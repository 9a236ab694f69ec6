// unrolled_attention's kernel over emulated lanes.

#include <vector>

#include "common/mlp_pack_cuda.h"
#include "emulated_lane.h"
#include "unrolled_attention/unrolled_attention.cuh"

namespace fastimpute::cuda {

void unrolled_attention(const UnrolledAttentionCuda& call, std::uintptr_t) {
    check_unrolled_attention(call, shared_limit());
    const UnrolledAttention<float>& args = call.args;
    if (args.sequences == 0 || args.frames == 0 || args.channels == 0) return;
    with_sequence_shape(args.frames, [&]<class Shape>() {
        const UnrolledJob job = {call, layout_of<Shape>(args.channels)};
        const std::int64_t blocks = (args.sequences + job.layout.sequences - 1) / job.layout.sequences;
        std::vector<Quad> shared(job.layout.shared_bytes / sizeof(Quad), Quad{{NAN, NAN, NAN, NAN}});
        emulated::launch(blocks, job.layout.warps * kWarp, [&](const emulated::Lane& lane) {
            unrolled_attention_block<Shape>(lane, job, reinterpret_cast<float*>(shared.data()));
        });
    });
}

}  // namespace fastimpute::cuda
