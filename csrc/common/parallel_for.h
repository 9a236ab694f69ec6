#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

namespace fastimpute {

// Calls body(chunk_begin, chunk_end, worker) for [begin, end) cut at multiples of `grain`, chunks handed out
// dynamically to `threads` workers (worker in [0, threads), for scratch). Cuts never depend on `threads`, so neither do
// results. The first exception stops further chunks and is thrown again in the caller. For baseline files only:
// instantiated with AVX flags, the library code it pulls in could replace the baseline's at link.
template <typename Body>
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain, int threads, const Body& body) {
    if (begin >= end) return;
    grain = std::max<std::int64_t>(grain, 1);
    const std::int64_t chunks = (end - begin + grain - 1) / grain;
    const int workers = static_cast<int>(std::min<std::int64_t>(std::max(threads, 1), chunks));
    const auto run_chunk = [&](std::int64_t chunk, int worker) {
        const std::int64_t first = begin + chunk * grain;
        body(first, std::min(first + grain, end), worker);
    };
    if (workers == 1) {
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) run_chunk(chunk, 0);
        return;
    }

    std::exception_ptr error;
    std::atomic<bool> failed{false};
#pragma omp parallel for num_threads(workers) schedule(dynamic, 1)
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        if (failed.load(std::memory_order_relaxed)) continue;
        try {
            run_chunk(chunk, omp_get_thread_num());
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
    }
    if (error) std::rethrow_exception(error);
}

}  // namespace fastimpute
