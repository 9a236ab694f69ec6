#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

// Kernels are templates over a `Lane`: what one thread of a grid may ask of the machine. This one is a GPU's; the tests
// run the same kernels with an emulated one, compiled as plain C++.
#ifndef __CUDACC__
#define __device__
#define __forceinline__ inline
#endif

namespace fastimpute::cuda {

inline constexpr int kWarp = 32;

// Four words that move in one access.
struct alignas(16) FourWords {
    std::uint32_t word[4];
};

// Hardware functions that have other names on the host.
__device__ __forceinline__ float cos_turn(float turns) {
#ifdef __CUDA_ARCH__
    return cospif(2.0f * turns);
#else
    return static_cast<float>(std::cos(6.283185307179586 * static_cast<double>(turns)));
#endif
}

__device__ __forceinline__ std::uint32_t bits_of(float value) {
#ifdef __CUDA_ARCH__
    return __float_as_uint(value);
#else
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
#endif
}

__device__ __forceinline__ float float_of(std::uint32_t bits) {
#ifdef __CUDA_ARCH__
    return __uint_as_float(bits);
#else
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
#endif
}

// With a relative error of 2^-11, as one instruction.
__device__ __forceinline__ float rough_tanh(float value) {
#ifdef __CUDA_ARCH__
    float found;
    asm("tanh.approx.f32 %0, %1;" : "=f"(found) : "f"(value));
    return found;
#else
    return float_of((bits_of(std::tanh(value)) + 0x1000u) & ~0x1FFFu);
#endif
}

__device__ __forceinline__ int count_bits(std::uint32_t word) {
#ifdef __CUDA_ARCH__
    return __popc(word);
#else
    return std::popcount(word);
#endif
}

#ifdef __CUDACC__
struct Lane {
    __device__ int thread() const { return static_cast<int>(threadIdx.x); }
    __device__ int threads() const { return static_cast<int>(blockDim.x); }
    // Asked for where they are used: kept for a loop, they would take registers from the loop's body.
    __device__ int thread_anew() const {
        std::uint32_t index;
        asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
        return static_cast<int>(index);
    }
    __device__ std::int64_t block() const {
        std::uint32_t index;
        asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(index));
        return index;
    }
    __device__ std::int64_t blocks() const {
        std::uint32_t count;
        asm volatile("mov.u32 %0, %%nctaid.x;" : "=r"(count));
        return count;
    }

    __device__ void sync_block() const { __syncthreads(); }
    __device__ void sync_warp() const { __syncwarp(); }
    // What was read from memory is read again after this, rather than kept in registers that are scarce: only a barrier
    // keeps the assembler from it.
    __device__ void forget() const { __syncwarp(); }

    // `members`: the lanes of the warp that take part, the caller among them.
    template <typename T>
    __device__ T shuffle_xor(std::uint32_t members, T value, int distance) const {
        return __shfl_xor_sync(members, value, distance);
    }
    template <typename T>
    __device__ T shuffle(std::uint32_t members, T value, int from) const {
        return __shfl_sync(members, value, from);
    }
    __device__ std::uint32_t add(std::uint32_t members, std::uint32_t value) const {
        return __reduce_add_sync(members, value);
    }

    // Into memory that other blocks write as well. Integers only: sums of floats would depend on the order.
    __device__ void add_to(std::uint64_t* sum, std::uint64_t value) const {
        atomicAdd(reinterpret_cast<unsigned long long*>(sum), static_cast<unsigned long long>(value));
    }
    __device__ void set_bits(std::uint64_t* word, std::uint64_t bits) const {
        atomicOr(reinterpret_cast<unsigned long long*>(word), static_cast<unsigned long long>(bits));
    }

    // Two bfloat16 in a word, `low` in the lower half.
    __device__ std::uint32_t bf16_pair(float low, float high) const {
        std::uint32_t pair;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
        return pair;
    }
    __device__ std::uint32_t half_pair(float low, float high) const {
        std::uint32_t pair;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
        return pair;
    }
    __device__ float half_of(std::uint32_t pair, int which) const {
        float value;
        asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low;}"
            : "=f"(value)
            : "r"(which ? pair >> 16 : pair));
        return value;
    }

    // Four 8 x 8 matrices of 16-bit elements from shared memory. `row`: this lane's row of 16 bytes, row lane % 8 of
    // matrix lane / 8. Out: elements (lane / 4, 2 (lane % 4) + {0, 1}) of each; transposed: of its transpose.
    template <bool kTransposed>
    __device__ void load_matrices(const std::uint16_t* row, std::uint32_t (&out)[4]) const {
        const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
        if constexpr (kTransposed) {
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                         : "r"(address)
                         : "memory");
        } else {
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                         : "r"(address)
                         : "memory");
        }
    }

    // sum += a b for a 16 x 16 tile a and a 16 x 8 tile b of bfloat16, in the fragments of mma.m16n8k16.
    __device__ void multiply(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) const {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }

    // sum += a b for an 8 x 4 tile a and a 4 x 8 tile b of doubles, in the fragments of mma.m8n8k4: a (lane / 4,
    // lane % 4), b (lane % 4, lane / 4), sum (lane / 4, 2 (lane % 4) + {0, 1}).
    __device__ void multiply(double (&sum)[2], double a, double b) const {
        asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
                     : "+d"(sum[0]), "+d"(sum[1])
                     : "d"(a), "d"(b));
    }
};
#endif

}  // namespace fastimpute::cuda
