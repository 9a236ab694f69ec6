#pragma once

#include <array>
#include <string_view>
#include <vector>

namespace fastimpute {

// Instruction sets in rising order: each level includes the ones before it.
enum class Isa { kRef = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3 };

inline constexpr int kIsaCount = 4;
inline constexpr std::array<std::string_view, kIsaCount> kIsaNames = {"ref", "avx2", "avx512", "avx512bf16"};

struct CpuFeatures {
    bool avx2 = false;        // AVX2, FMA and F16C, and the system saves ymm
    bool avx512 = false;      // F, BW, DQ and VL, and the system saves zmm and masks
    bool avx512bf16 = false;  // AVX512_BF16 on top
};

std::string_view isa_name(Isa isa);

// Throws std::invalid_argument when `name` is no instruction set or this machine lacks it.
Isa isa_from_name(std::string_view name);

// CPUID and XCR0, read once.
const CpuFeatures& cpu_features();

bool isa_usable(Isa isa);

// Usable instruction sets, best last. FASTIMPUTE_CPU=<name> leaves only that one; an unusable name throws.
std::vector<Isa> usable_isas();
Isa best_isa();

}  // namespace fastimpute
