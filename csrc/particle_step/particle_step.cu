#include "common/launch.h"
#include "particle_step/particle_step.cuh"
#include "particle_step/particle_step_cuda.h"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "particle_step";
constexpr int kThreads = 256;

template <int kWide, bool kAdam, bool kNoise>
__global__ void __launch_bounds__(kThreads) particle_step_kernel(const ParticleStep<float> params) {
    particle_step_cells<kWide, kAdam, kNoise>(Lane{}, params);
}

template <int kWide, bool kAdam, bool kNoise>
void launch(const ParticleStep<float>& params, cudaStream_t stream) {
    const std::int64_t accesses = params.rows * (params.dim / kWide);
    const dim3 grid = grid_of(kOp, accesses, kThreads * kAccesses<kAdam>);
    particle_step_kernel<kWide, kAdam, kNoise><<<grid, kThreads, 0, stream>>>(params);
}

template <int kWide>
void launch(const ParticleStep<float>& params, cudaStream_t stream) {
    const bool adam = params.moments.m != nullptr;
    const bool noise = params.noise.keys != nullptr;
    if (adam && noise) return launch<kWide, true, true>(params, stream);
    if (adam) return launch<kWide, true, false>(params, stream);
    if (noise) return launch<kWide, false, true>(params, stream);
    launch<kWide, false, false>(params, stream);
}

bool wide(const ParticleStep<float>& params) {
    const AdamMoments<float>& moments = params.moments;
    const bool strides =
        (params.dim | params.x_stride | params.direction_stride | params.missing_stride | params.x_new_stride) % 4 == 0;
    const bool rows = aligned(params.x, 16) && aligned(params.direction, 16) && aligned(params.x_new, 16) &&
                      aligned(params.missing, 4);
    const bool adam = moments.m == nullptr || ((moments.m_stride | moments.v_stride) % 4 == 0 &&
                                               aligned(moments.m, 16) && aligned(moments.v, 16));
    return strides && rows && adam;
}

}  // namespace

void particle_step(const ParticleStep<float>& params, std::uintptr_t stream) {
    check_particle_step(params);
    if (params.rows == 0 || params.dim == 0) return;
    if (params.dim >= 0x7FFFFFFF) throw_invalid(kOp, "dim", "below 2^31 - 1", static_cast<long long>(params.dim));
    wide(params) ? launch<4>(params, stream_of(stream)) : launch<1>(params, stream_of(stream));
    check_launch(kOp, cudaGetLastError());
}

}  // namespace fastimpute::cuda
