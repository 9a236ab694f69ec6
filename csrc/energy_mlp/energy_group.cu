#include <memory>

#include "common/mlp_launch.h"
#include "energy_mlp/energy_body_cuda.h"
#include "energy_mlp/energy_group.cuh"

namespace fastimpute::cuda {
namespace {

constexpr const char* kOp = "energy_mlp";

template <int kInputSteps>
__global__ void __launch_bounds__(2 * kGroup, 1) energy_group_kernel(const EnergyJob job) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(128) std::uint16_t shared[];
    energy_group_block<kInputSteps>(GroupLane{}, job, shared);
#endif
}

// ---- the proof ----

// Lets this thread wait and allocate, also while a stream is being captured into a graph.
class Relaxed {
  public:
    Relaxed() { check_launch(kOp, cudaThreadExchangeStreamCaptureMode(&mode_)); }
    Relaxed(const Relaxed&) = delete;
    Relaxed& operator=(const Relaxed&) = delete;
    ~Relaxed() { cudaThreadExchangeStreamCaptureMode(&mode_); }

  private:
    cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

class OwnStream {
  public:
    OwnStream() { check_launch(kOp, cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
    OwnStream(const OwnStream&) = delete;
    OwnStream& operator=(const OwnStream&) = delete;
    ~OwnStream() { cudaStreamDestroy(stream_); }

    cudaStream_t get() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

struct Free {
    void operator()(void* memory) const { cudaFree(memory); }
};

class DeviceBytes {
  public:
    explicit DeviceBytes(std::size_t bytes) {
        void* memory = nullptr;
        check_launch(kOp, cudaMalloc(&memory, bytes));
        memory_.reset(memory);
    }
    template <typename T>
    DeviceBytes(const std::vector<T>& values, cudaStream_t stream) : DeviceBytes(values.size() * sizeof(T)) {
        check_launch(kOp, cudaMemcpyAsync(get(), values.data(), values.size() * sizeof(T), cudaMemcpyDefault, stream));
    }

    float* get() const { return static_cast<float*>(memory_.get()); }
    void take(std::vector<float>& to, cudaStream_t stream) const {
        check_launch(kOp, cudaMemcpyAsync(to.data(), get(), to.size() * sizeof(float), cudaMemcpyDefault, stream));
    }

  private:
    std::unique_ptr<void, Free> memory_;
};

EnergyAnswer solve_here(EnergyBody body, const EnergyProblem& problem) {
    const Relaxed relaxed;
    const OwnStream own;
    EnergyAnswer answer(problem.dim);
    const DeviceBytes pack(problem.pack, own.get()), x(problem.x, own.get());
    const DeviceBytes modulation(problem.modulation, own.get());
    const DeviceBytes scratch(static_cast<std::size_t>(energy_scratch_bytes(false)));
    const DeviceBytes log_p(answer.log_p, own.get()), score(answer.score, own.get());
    const EnergyMlpCuda call =
        problem.call(x.get(), modulation.get(), pack.get(), log_p.get(), score.get(), scratch.get());
    const auto stream = reinterpret_cast<std::uintptr_t>(own.get());
    if (body == EnergyBody::kWarps) {
        energy_by_warps(call, stream);
    } else {
        energy_by_groups(call, 1, stream);  // one block of two groups, which takes two turns
    }
    log_p.take(answer.log_p, own.get());
    score.take(answer.score, own.get());
    check_launch(kOp, cudaStreamSynchronize(own.get()));
    return answer;
}

bool is_hopper() {
    return device_attribute(kOp, cudaDevAttrComputeCapabilityMajor) == 9 &&
           device_attribute(kOp, cudaDevAttrComputeCapabilityMinor) == 0;
}

}  // namespace

void energy_by_groups(const EnergyMlpCuda& call, int multiprocessors, std::uintptr_t stream) {
    const Layout layout = group_layout(call.dim, call.args.rows, multiprocessors, shared_limit());
    with_group_steps(layout.slab_steps, [&]<int kInputSteps>() {
        launch_blocks(kOp, energy_group_kernel<kInputSteps>, layout, energy_job(call, layout), multiprocessors,
                      stream_of(stream));
    });
}

EnergyBody energy_body(std::int64_t dim, bool gaussian, bool want_hvp) {
    if (!groups_take(dim, gaussian, want_hvp) || !is_hopper()) return EnergyBody::kWarps;
    if (group_layout(dim, 1, 1, shared_limit()).warps == 0) return EnergyBody::kWarps;
    int device = 0;
    check_launch(kOp, cudaGetDevice(&device));
    return groups_proven(device, dim, solve_here) ? EnergyBody::kGroups : EnergyBody::kWarps;
}

}  // namespace fastimpute::cuda
