#pragma once

#include <cstdint>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/mlp_pack.h"
#include "proximal_recursion/proximal_recursion.h"

namespace fastimpute {

// Whether any cell of the patch is missing.
bool has_missing(const ProximalRecursionArgs<float>& args, std::int64_t patch);

// One worker's particles: gathers up to `capacity` patches from the series and takes them through all iterations, in
// its own buffers. Reused from task to task. With more than one thread the network's row blocks are spread over them:
// for groups that are fewer than the threads.
class Particles {
  public:
    Particles(const MlpPack& pack, const ProximalRecursionArgs<float>& args, std::int64_t capacity);

    void use_threads(int threads) { threads_ = threads; }

    // x (count, dim): the particles' rows, gathered, moved and left there. `mass`: given when the weights stay, else
    // written; with moving weights the patches are one whole group, consecutive, and their log_w is updated.
    void run(const std::int64_t* patches, std::int64_t count, float* x, float* mass);

  private:
    void gather(const std::int64_t* patches, float* x);
    void evaluate(const float* x);
    void evaluate_energy(const float* x);
    void evaluate_direct(const float* x);
    void update_weights(std::int64_t first_patch, float* mass);
    void step(std::int64_t iteration, float* x, const float* mass);

    const MlpPack& pack_;
    const ProximalRecursionArgs<float>& args_;
    int threads_ = 1;
    std::int64_t dim_;
    std::int64_t count_ = 0;
    std::vector<std::int64_t> modulation_index_, noise_keys_;
    std::vector<float> log_p_, score_sq_, sigma_;
    std::vector<std::uint8_t> missing_;
    AlignedBuffer<float> direction_, hvp_, moment1_, moment2_;
};

}  // namespace fastimpute
