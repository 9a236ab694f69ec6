#pragma once

#include <cstdint>

#include "particle_step/particle_step.h"

namespace fastimpute::cuda {

// `particle_step` on the current device: addresses are the device's, `stream` is a cudaStream_t. Accesses are 16 bytes
// wide where dim and every stride are multiples of 4 and every array begins on 16 bytes (the mask: 4).
void particle_step(const ParticleStep<float>& params, std::uintptr_t stream);

}  // namespace fastimpute::cuda
