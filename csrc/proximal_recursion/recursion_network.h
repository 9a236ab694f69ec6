#pragma once

#include "proximal_recursion/proximal_recursion.cuh"

namespace fastimpute::cuda {

template <class Network>
RecursionJob<Network> recursion_job(const RecursionCuda& call, const RecursionPlan& plan, const RecursionRows& rows,
                                    const Network& network) {
    return {network,
            call.args,
            rows,
            plan.tile_patches,
            static_cast<int>(call.args.patches()),
            static_cast<int>(call.args.dim()),
            plan.layout.warps,
            static_cast<int>(plan.tiles),
            static_cast<int>(plan.tile_rows),
            static_cast<int>(plan.stride),
            plan.layout.shared_bytes,
            static_cast<float>(kOverlapMost / static_cast<double>(call.cover))};
}

// Calls body.operator()<Warp>(job) for the call's head, with H v where gamma asks for it.
template <class Lane, typename Body>
void with_recursion_job(const RecursionCuda& call, const RecursionPlan& plan, const RecursionRows& rows,
                        const Body& body) {
    const ProximalRecursionArgs<float>& args = call.args;
    const std::int64_t count = plan.blocks * plan.tile_rows;
    const MlpCuda weights = unpack_mlp(call.head, args.dim(), call.pack).with_gaussian(call.precision, call.mean);
    const Modulation<float> modulation = {args.modulation, args.modulation_rows, rows.modulation_index};
    if (call.head == Head::kDirect) {
        const ScoreMlpArgs<float> own = {count,      rows.x,         plan.stride, rows.sigma,
                                         modulation, rows.direction, plan.stride};
        const ScoreJob network = {own, weights, plan.layout.slab_steps};
        body.template operator()<ScoreWarp<Lane>>(recursion_job(call, plan, rows, network));
        return;
    }
    const bool hvp = args.gamma > 0;
    const EnergyMlpArgs<float> own = {count, rows.x,     plan.stride,    modulation,  nullptr,  0,
                                      hvp,   rows.log_p, rows.direction, plan.stride, rows.hvp, plan.stride};
    const EnergyJob network = {own, weights, rows.kept, plan.layout.slab_steps};
    const auto job = recursion_job(call, plan, rows, network);
    hvp ? body.template operator()<EnergyWarp<Lane, true>>(job)
        : body.template operator()<EnergyWarp<Lane, false>>(job);
}

}  // namespace fastimpute::cuda
