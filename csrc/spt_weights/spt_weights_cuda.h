#pragma once

#include <cstdint>

#include "spt_weights/spt_weights.h"

namespace fastimpute::cuda {

// `spt_weights` on the current device: addresses are the device's, `stream` is a cudaStream_t. Groups of any size up to
// 2^31 - 1; those above 512 take one block each. Same bits for any number of groups.
void spt_weights(const SptWeights<float>& params, std::uintptr_t stream);

}  // namespace fastimpute::cuda
