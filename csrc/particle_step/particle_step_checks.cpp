#include "common/errors.h"
#include "particle_step/particle_step.h"

namespace fastimpute {
namespace {

constexpr const char* kOp = "particle_step";

void check_stride(const char* argument, std::int64_t stride, std::int64_t least) {
    if (stride < least) throw_invalid(kOp, argument, "at least the row length", static_cast<long long>(stride));
}

}  // namespace

template <typename Real>
void check_particle_step(const ParticleStep<Real>& params) {
    if (params.rows < 0) throw_invalid(kOp, "rows", "at least 0", static_cast<long long>(params.rows));
    if (params.dim < 0) throw_invalid(kOp, "dim", "at least 0", static_cast<long long>(params.dim));
    if (!(params.eta >= 0)) throw_invalid(kOp, "eta", "at least 0", static_cast<double>(params.eta));
    if (params.rows == 0 || params.dim == 0) return;
    const bool complete = params.x && params.direction && params.missing && params.x_new;
    if (!complete) throw_invalid(kOp, "addresses", "non-null", "null");
    check_stride("x_stride", params.x_stride, params.dim);
    check_stride("direction_stride", params.direction_stride, params.dim);
    check_stride("missing_stride", params.missing_stride, params.dim);
    check_stride("x_new_stride", params.x_new_stride, params.dim);
    if (params.moments.m != nullptr) {
        if (params.moments.v == nullptr) throw_invalid(kOp, "moments", "given as a pair", "only the first");
        check_stride("m_stride", params.moments.m_stride, params.dim);
        check_stride("v_stride", params.moments.v_stride, params.dim);
    }
    if (params.noise.keys != nullptr) check_noise(kOp, params.noise, params.dim, 1);
}

template void check_particle_step(const ParticleStep<float>&);
template void check_particle_step(const ParticleStep<double>&);

}  // namespace fastimpute
