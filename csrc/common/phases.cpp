#include "common/phases.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

namespace fastimpute {
namespace {

constexpr int kSpins = 2000;  // about 30 microseconds, then other threads get the core

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

class Job {
  public:
    Job(std::vector<Phase> phases, int helpers)
        : phases_(std::move(phases)), counters_(phases_.size()), vacancies_(helpers) {}

    // Takes part until all is done. Callables are entered only with a task in hand, which the caller waits for: a
    // helper that comes late finds none left and touches nothing but this job.
    void work(int worker) {
        for (std::size_t i = 0; i < phases_.size(); ++i) {
            Counter& counter = counters_[i];
            const std::int64_t tasks = phases_[i].tasks;
            for (std::int64_t task = counter.next++; task < tasks; task = counter.next++) {
                if (!failed_.load(std::memory_order_relaxed)) run(phases_[i], task, worker);
                counter.done.fetch_add(1, std::memory_order_acq_rel);
            }
            for (int spins = 0; counter.done.load(std::memory_order_acquire) < tasks; ++spins) {
                spins < kSpins ? pause() : std::this_thread::yield();
            }
        }
    }

    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }

    // Under the pool's lock: the number of the next helper, and whether there is room for more.
    int enter() { return ++entered_; }
    bool full() const { return entered_ >= vacancies_; }

  private:
    struct alignas(64) Counter {
        std::atomic<std::int64_t> next{0};
        std::atomic<std::int64_t> done{0};
    };

    void run(const Phase& phase, std::int64_t task, int worker) {
        try {
            phase.body(task, worker);
        } catch (...) {
            if (!failed_.exchange(true)) error_ = std::current_exception();
        }
    }

    std::vector<Phase> phases_;
    std::vector<Counter> counters_;
    std::atomic<bool> failed_{false};
    std::exception_ptr error_;
    int vacancies_;
    int entered_ = 0;
};

// Threads that sleep until there is a job. Never destroyed: they may outlive static objects.
class Pool {
  public:
    static Pool& instance() {
        static Pool& pool = *new Pool;
        return pool;
    }

    void offer(const std::shared_ptr<Job>& job, int helpers) {
        const std::lock_guard lock(mutex_);
        for (; threads_ < helpers; ++threads_) std::thread([this] { serve(); }).detach();
        open_.push_back(job);
        helpers == 1 ? offered_.notify_one() : offered_.notify_all();
    }

    void withdraw(const std::shared_ptr<Job>& job) {
        const std::lock_guard lock(mutex_);
        std::erase(open_, job);
    }

  private:
    [[noreturn]] void serve() {
        for (;;) {
            std::unique_lock lock(mutex_);
            offered_.wait(lock, [this] { return !open_.empty(); });
            const std::shared_ptr<Job> job = open_.front();
            const int worker = job->enter();
            if (job->full()) open_.pop_front();
            lock.unlock();
            job->work(worker);
        }
    }

    std::mutex mutex_;
    std::condition_variable offered_;
    std::deque<std::shared_ptr<Job>> open_;
    int threads_ = 0;
};

}  // namespace

void run_phases(std::vector<Phase> phases, int threads) {
    std::int64_t most = 1;
    for (const Phase& phase : phases) most = std::max(most, phase.tasks);
    const int helpers = static_cast<int>(std::min<std::int64_t>(threads, most)) - 1;
    if (helpers < 1) {
        for (const Phase& phase : phases) {
            for (std::int64_t task = 0; task < phase.tasks; ++task) phase.body(task, 0);
        }
        return;
    }
    const auto job = std::make_shared<Job>(std::move(phases), helpers);
    Pool::instance().offer(job, helpers);
    job->work(0);
    Pool::instance().withdraw(job);
    job->rethrow();
}

}  // namespace fastimpute
