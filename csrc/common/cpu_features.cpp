#include "common/cpu_features.h"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fastimpute {
namespace {

#if defined(__x86_64__)
bool bit(std::uint32_t word, int index) { return ((word >> index) & 1u) != 0; }

// Register state the operating system saves: the processor may know zmm while the system does not.
std::uint64_t read_xcr0() {
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<std::uint64_t>(high) << 32) | low;
}

CpuFeatures probe() {
    CpuFeatures found;
    std::uint32_t a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
    const bool fma = bit(c, 12);
    const bool osxsave = bit(c, 27);
    const bool avx = bit(c, 28);
    const bool f16c = bit(c, 29);
    if (!osxsave || !avx) return found;

    const std::uint64_t xcr0 = read_xcr0();
    constexpr std::uint64_t kYmmState = 0x6;   // xmm, ymm
    constexpr std::uint64_t kZmmState = 0xe6;  // and opmask, upper zmm, zmm16-31
    if ((xcr0 & kYmmState) != kYmmState) return found;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
    const std::uint32_t sub_leaves = a;
    found.avx2 = bit(b, 5) && fma && f16c;
    found.avx512 =
        found.avx2 && (xcr0 & kZmmState) == kZmmState && bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31);
    if (found.avx512 && sub_leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) found.avx512bf16 = bit(a, 5);
    return found;
}
#else
CpuFeatures probe() { return {}; }
#endif

std::string usable_names() {
    std::string names;
    for (int level = 0; level < kIsaCount; ++level) {
        if (!isa_usable(static_cast<Isa>(level))) continue;
        if (!names.empty()) names += ", ";
        names += kIsaNames[level];
    }
    return names;
}

}  // namespace

std::string_view isa_name(Isa isa) { return kIsaNames[static_cast<int>(isa)]; }

const CpuFeatures& cpu_features() {
    static const CpuFeatures found = probe();
    return found;
}

bool isa_usable(Isa isa) {
    switch (isa) {
        case Isa::kRef:
            return true;
        case Isa::kAvx2:
            return cpu_features().avx2;
        case Isa::kAvx512:
            return cpu_features().avx512;
        case Isa::kAvx512Bf16:
            return cpu_features().avx512bf16;
    }
    return false;
}

Isa isa_from_name(std::string_view name) {
    for (int level = 0; level < kIsaCount; ++level) {
        if (name == kIsaNames[level] && isa_usable(static_cast<Isa>(level))) return static_cast<Isa>(level);
    }
    throw std::invalid_argument("instruction set must be one this machine can run (" + usable_names() + "), got '" +
                                std::string(name) + "'");
}

std::vector<Isa> usable_isas() {
    const char* forced = std::getenv("FASTIMPUTE_CPU");
    if (forced != nullptr && *forced != '\0') {
        try {
            return {isa_from_name(forced)};
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument(std::string("FASTIMPUTE_CPU: ") + error.what());
        }
    }
    std::vector<Isa> usable;
    for (int level = 0; level < kIsaCount; ++level) {
        if (isa_usable(static_cast<Isa>(level))) usable.push_back(static_cast<Isa>(level));
    }
    return usable;
}

Isa best_isa() { return usable_isas().back(); }

}  // namespace fastimpute
