#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/mlp.h"
#include "proximal_recursion/proximal_recursion.h"

namespace fastimpute::cuda {

// `proximal_recursion` with bfloat16 operands and float32 sums in the network, on the current device: one launch for
// all iterations of all patches, behind a memset, and a small one that averages. Addresses of `args` are the device's,
// what they hold is not checked; `pack` (of pack_mlp) begins on 16 bytes, `scratch` on 64, and is for this call alone.
//
// The overlaps are summed in integers, so that no order shows: 2^-36 is the least they tell apart. A patch whose mass
// or mass times value is not finite, or 2^26 / cover and above, makes its missing cells NaN.
struct RecursionCuda {
    ProximalRecursionArgs<float> args;
    Head head;
    std::int64_t cover;  // most patches that share a cell, or more
    const void* pack;
    const float* precision;  // the Gaussian part; null: none
    const float* mean;
    void* scratch;
    std::int64_t scratch_bytes;
};

// Bytes of scratch for a call on the current device; its addresses are not read.
std::int64_t recursion_scratch_bytes(const RecursionCuda& call);
// Why the kernel cannot share weights (with a finite rho or a reference measure) in such groups; none when it can.
std::optional<std::string> group_refusal(std::int64_t group);
// Throws std::invalid_argument naming the argument; reads no address.
void check_recursion_call(const RecursionCuda& call);
void proximal_recursion(const RecursionCuda& call, std::uintptr_t stream);

}  // namespace fastimpute::cuda
