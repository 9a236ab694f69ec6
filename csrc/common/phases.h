#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace fastimpute {

// Tasks [0, tasks) that may run in any order and side by side; `worker` in [0, threads), for scratch.
struct Phase {
    std::int64_t tasks;
    std::function<void(std::int64_t task, int worker)> body;
};

// Runs phases one after another, tasks handed out dynamically to the caller and up to threads - 1 helpers. For work of
// a millisecond in several phases: the caller never waits for a helper to arrive, only for tasks that one has begun, so
// that a busy core costs little more than its own help. (OpenMP's barriers wait for the whole team, phase by phase.)
// The first exception ends the work and is thrown again in the caller. For baseline files only, see parallel_for.h.
void run_phases(std::vector<Phase> phases, int threads);

}  // namespace fastimpute
