#include "common/errors.h"
#include "diffusion_step/diffusion_step.h"

namespace fastimpute {
namespace {

constexpr const char* kOp = "diffusion_step";

void check_size(const char* argument, std::int64_t size) {
    if (size < 0) throw_invalid(kOp, argument, "at least 0", static_cast<long long>(size));
}

void check_stride(const char* argument, std::int64_t stride, std::int64_t least) {
    if (stride < least) throw_invalid(kOp, argument, "at least the row length", static_cast<long long>(stride));
}

}  // namespace

template <typename Real>
void check_diffusion_step(const DiffusionStep<Real>& params) {
    check_size("samples", params.samples);
    check_size("windows", params.windows);
    check_size("dim", params.dim);
    if (!(params.spread >= 0)) throw_invalid(kOp, "spread", "at least 0", static_cast<double>(params.spread));
    if (params.samples == 0 || params.windows == 0 || params.dim == 0) return;
    const bool complete = params.v && params.denoised && params.missing && params.v_new;
    if (!complete) throw_invalid(kOp, "addresses", "non-null", "null");
    check_stride("v_stride", params.v_stride, params.dim);
    check_stride("denoised_stride", params.denoised_stride, params.dim);
    check_stride("missing_stride", params.missing_stride, params.dim);
    check_stride("v_new_stride", params.v_new_stride, params.dim);
    if (params.previous != nullptr) {
        check_stride("previous_stride", params.previous_stride, params.dim);
    } else if (params.earlier != 0) {
        throw_invalid(kOp, "previous", "given when earlier is not zero", "null");
    }
    if (params.spread > 0) {
        if (params.noise.keys == nullptr) throw_invalid(kOp, "noise", "given when spread is positive", "null");
        check_noise(kOp, params.noise, params.dim, params.samples);
    }
}

template void check_diffusion_step(const DiffusionStep<float>&);
template void check_diffusion_step(const DiffusionStep<double>&);

}  // namespace fastimpute
