#include "proximal_recursion/proximal_recursion.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "common/mlp_kernels.h"
#include "common/parallel_for.h"
#include "proximal_recursion/overlap_average.h"
#include "proximal_recursion/particles.h"

namespace fastimpute {
namespace {

constexpr std::int64_t kWaveFloats = std::int64_t{4} << 20;  // 16 MB of particles at a time
constexpr std::int64_t kScanPatches = 256;

// Runs the patches in waves: tasks of a wave in parallel into one buffer, which is then averaged in the patches' order.
class Recursion {
  public:
    Recursion(const MlpPack& pack, int threads, const ProximalRecursionArgs<float>& args)
        : pack_(pack),
          threads_(std::max(threads, 1)),
          args_(args),
          average_(args),
          task_rows_(args.eta_w > 0 ? args.group : kernel_rows()) {
        task_rows_ = std::min(task_rows_, std::max<std::int64_t>(args.patches(), 1));
        const std::int64_t tasks = std::max<std::int64_t>(kWaveFloats / (task_rows_ * args.dim()), threads_);
        wave_rows_ = std::min(tasks * task_rows_, (args.patches() + task_rows_ - 1) / task_rows_ * task_rows_);
        x_ = AlignedBuffer<float>(static_cast<std::size_t>(wave_rows_ * args.dim()));
        mass_.resize(static_cast<std::size_t>(wave_rows_));
        missing_.resize(static_cast<std::size_t>(wave_rows_));
        workers_.resize(static_cast<std::size_t>(threads_));
    }

    void run() {
        start_weights(args_);
        for (std::int64_t begin = 0; begin < args_.patches(); begin += wave_rows_) {
            choose(begin, std::min(begin + wave_rows_, args_.patches()));
            move();
            for (std::size_t i = 0; i < chosen_.size(); ++i) {
                average_.add(chosen_[i], x_.data() + static_cast<std::int64_t>(i) * args_.dim(), mass_[i]);
            }
        }
        average_.finish();
    }

  private:
    std::int64_t kernel_rows() const {
        const MlpKernels* kernels = pack_.kernels();
        if (kernels == nullptr) return 64;
        return args_.gamma > 0 ? kernels->block_rows_hvp : kernels->block_rows;
    }

    // The patches of [begin, end) that have to move. With moving weights all: each is part of its group's sum.
    void choose(std::int64_t begin, std::int64_t end) {
        if (args_.eta_w > 0) {
            chosen_.resize(static_cast<std::size_t>(end - begin));
            std::iota(chosen_.begin(), chosen_.end(), begin);
            return;
        }
        parallel_for(begin, end, kScanPatches, threads_, [&](std::int64_t first, std::int64_t last, int) {
            for (std::int64_t patch = first; patch < last; ++patch) {
                missing_[static_cast<std::size_t>(patch - begin)] = has_missing(args_, patch);
            }
        });
        chosen_.clear();
        for (std::int64_t patch = begin; patch < end; ++patch) {
            if (missing_[static_cast<std::size_t>(patch - begin)]) chosen_.push_back(patch);
        }
    }

    void move() {
        for (std::size_t i = 0; i < chosen_.size(); ++i) mass_[i] = start_mass(chosen_[i]);
        const auto count = static_cast<std::int64_t>(chosen_.size());
        // One of the two levels is parallel: tasks, or the network inside a task where there are too few of them.
        const bool within = (count + task_rows_ - 1) / task_rows_ < threads_;
        const int inner = within ? threads_ : 1;
        parallel_for(0, count, task_rows_, within ? 1 : threads_,
                     [&](std::int64_t first, std::int64_t last, int worker) {
                         Particles& particles = worker_particles(worker, inner);
                         particles.run(chosen_.data() + first, last - first, x_.data() + first * args_.dim(),
                                       mass_.data() + first);
                     });
    }

    Particles& worker_particles(int worker, int threads) {
        std::optional<Particles>& particles = workers_[static_cast<std::size_t>(worker)];
        if (!particles) particles.emplace(pack_, args_, task_rows_);
        particles->use_threads(threads);
        return *particles;
    }

    // B w before the first iteration.
    float start_mass(std::int64_t patch) const {
        const std::int64_t first = patch / args_.group * args_.group;
        const auto size = static_cast<double>(std::min(args_.group, args_.patches() - first));
        return args_.log_ref ? static_cast<float>(std::exp(static_cast<double>(args_.log_w[patch])) * size) : 1.0f;
    }

    const MlpPack& pack_;
    int threads_;
    const ProximalRecursionArgs<float>& args_;
    OverlapAverage average_;
    std::int64_t task_rows_;
    std::int64_t wave_rows_ = 0;
    AlignedBuffer<float> x_;
    std::vector<float> mass_;
    std::vector<std::uint8_t> missing_;
    std::vector<std::int64_t> chosen_;
    std::vector<std::optional<Particles>> workers_;
};

}  // namespace

void proximal_recursion(const MlpPack& pack, int threads, const ProximalRecursionArgs<float>& args) {
    check_recursion(args, pack.head(), pack.dim());
    Recursion(pack, threads, args).run();
}

}  // namespace fastimpute
