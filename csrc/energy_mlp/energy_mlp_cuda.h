#pragma once

#include <cstdint>

#include "energy_mlp/energy_mlp.h"

namespace fastimpute::cuda {

// `energy_mlp` with bfloat16 operands and float32 sums on the current device: addresses are the device's, `pack` (of
// pack_mlp) begins on 16 bytes, `stream` is a cudaStream_t. modulation.index is not checked. `scratch` is for this call
// alone and holds at least energy_scratch_bytes on this device.
struct EnergyMlpCuda {
    EnergyMlpArgs<float> args;
    std::int64_t dim;
    const void* pack;
    const float* precision;  // the Gaussian part; null: none
    const float* mean;
    void* scratch;
    std::int64_t scratch_bytes;
};
std::int64_t energy_scratch_bytes(bool want_hvp);
void energy_mlp(const EnergyMlpCuda& call, std::uintptr_t stream);

}  // namespace fastimpute::cuda
