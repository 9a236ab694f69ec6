#pragma once

#include <cstdint>

#include "diffusion_step/diffusion_step.h"

namespace fastimpute::cuda {

// `diffusion_step` on the current device: addresses are the device's, `stream` is a cudaStream_t. Accesses are 16 bytes
// wide where every array begins on 16 bytes (the mask: 4) and every stride is a multiple of 4, or where windows follow
// on one another without gaps and those of a sample together are a multiple of 4 cells.
void diffusion_step(const DiffusionStep<float>& params, std::uintptr_t stream);

}  // namespace fastimpute::cuda
