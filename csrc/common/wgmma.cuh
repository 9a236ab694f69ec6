#pragma once

#include "common/device.cuh"

// Products of a warpgroup (128 neighbouring lanes), the PTX ISA's "asynchronous warpgroup level matrix instructions":
// Hopper's alone, chips before and after it have none.
namespace fastimpute::cuda {

inline constexpr int kGroup = 128;

// Where a product finds its matrix: blocks of 8 x 8 values of 16 bits, 128 bytes each, not swizzled. `inner`, `across`:
// bytes from a block to the next one along the product's inner dimension (the ISA's leading dimension byte offset) and
// across it (stride dimension byte offset), whether a block's rows of 16 bytes run along it or across (transposed). All
// are multiples of 16.
__device__ __forceinline__ std::uint64_t matrix_descriptor(std::uint32_t address, std::uint32_t inner,
                                                           std::uint32_t across) {
    return static_cast<std::uint64_t>((address & 0x3FFFFu) >> 4) | static_cast<std::uint64_t>(inner >> 4) << 16 |
           static_cast<std::uint64_t>(across >> 4) << 32;
}

// Inside the instructions the address is counted in steps of 16 bytes.
__device__ __forceinline__ std::uint64_t moved(std::uint64_t descriptor, std::uint32_t bytes) {
    return descriptor + (bytes >> 4);
}

#ifdef __CUDACC__
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// A lane of a block of one or two warpgroups.
struct GroupLane : Lane {
    // Runs `body`, the `nth` stretch of many, as code of its own: nothing is read for the next stretch before.
    template <typename Body>
    __device__ __forceinline__ void apart(int nth, const Body& body) const {
        std::uint32_t index;
        asm("mov.u32 %0, %%ctaid.z;" : "=r"(index));  // 0, but the assembler does not know: it merges no stretches
        if ((index >> nth & 1) == 0) body();
    }
    // As Lane's, without a shift for the upper half.
    __device__ float half_of(std::uint32_t pair, int which) const {
        float low, high;
        asm("{.reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high;}"
            : "=f"(low), "=f"(high)
            : "r"(pair));
        return which ? high : low;
    }
    __device__ std::uint32_t shared_address(const void* shared) const {
        return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
    }
    // What this lane wrote to shared memory may be read by products, once all lanes of the block have met.
    __device__ void publish() const { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

    // Of two warpgroups one at a time; they take turns, the first one first.
    __device__ void begin_turns() const {
        if (both() && group() == 1) arrive_at(1);
    }
    __device__ void wait_for_turn() const {
        if (both()) wait_at(1 + group());
    }
    __device__ void pass_turn() const {
        if (both()) arrive_at(2 - group());
    }
    __device__ void end_turns() const {
        if (both() && group() == 0) wait_at(1);
    }

    // Products run on their own between `begin_products` and `wait`: until then nobody touches their sums.
    template <int kTiles>
    __device__ void begin_products(float (&sums)[kTiles][4]) const {
        hold(sums);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    }
    template <int kTiles>
    __device__ void wait(float (&sums)[kTiles][4]) const {
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        hold(sums);
    }

    // s = [s +] a b: a of 16 columns in the registers of mma.m16n8k16, warp w of the group having rows 16 w to 16 w +
    // 15; b in shared memory, `kTransposed`: its blocks' rows run across the inner dimension.

    // 64 x 16 by 16 x 256.
    template <bool kTransposed>
    __device__ void multiply(float (&s)[32][4], const std::uint32_t (&a)[4], std::uint64_t b, bool add) const {
        asm volatile(
            "{.reg .pred add; setp.ne.b32 add, %133, 0; wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
            "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
            "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
            "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "
            "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, "
            "%87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, "
            "%103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, "
            "%117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
            "{%128, %129, %130, %131}, %132, add, 1, 1, %134;}"
            : "+f"(s[0][0]), "+f"(s[0][1]), "+f"(s[0][2]), "+f"(s[0][3]), "+f"(s[1][0]), "+f"(s[1][1]), "+f"(s[1][2]),
              "+f"(s[1][3]), "+f"(s[2][0]), "+f"(s[2][1]), "+f"(s[2][2]), "+f"(s[2][3]), "+f"(s[3][0]), "+f"(s[3][1]),
              "+f"(s[3][2]), "+f"(s[3][3]), "+f"(s[4][0]), "+f"(s[4][1]), "+f"(s[4][2]), "+f"(s[4][3]), "+f"(s[5][0]),
              "+f"(s[5][1]), "+f"(s[5][2]), "+f"(s[5][3]), "+f"(s[6][0]), "+f"(s[6][1]), "+f"(s[6][2]), "+f"(s[6][3]),
              "+f"(s[7][0]), "+f"(s[7][1]), "+f"(s[7][2]), "+f"(s[7][3]), "+f"(s[8][0]), "+f"(s[8][1]), "+f"(s[8][2]),
              "+f"(s[8][3]), "+f"(s[9][0]), "+f"(s[9][1]), "+f"(s[9][2]), "+f"(s[9][3]), "+f"(s[10][0]), "+f"(s[10][1]),
              "+f"(s[10][2]), "+f"(s[10][3]), "+f"(s[11][0]), "+f"(s[11][1]), "+f"(s[11][2]), "+f"(s[11][3]),
              "+f"(s[12][0]), "+f"(s[12][1]), "+f"(s[12][2]), "+f"(s[12][3]), "+f"(s[13][0]), "+f"(s[13][1]),
              "+f"(s[13][2]), "+f"(s[13][3]), "+f"(s[14][0]), "+f"(s[14][1]), "+f"(s[14][2]), "+f"(s[14][3]),
              "+f"(s[15][0]), "+f"(s[15][1]), "+f"(s[15][2]), "+f"(s[15][3]), "+f"(s[16][0]), "+f"(s[16][1]),
              "+f"(s[16][2]), "+f"(s[16][3]), "+f"(s[17][0]), "+f"(s[17][1]), "+f"(s[17][2]), "+f"(s[17][3]),
              "+f"(s[18][0]), "+f"(s[18][1]), "+f"(s[18][2]), "+f"(s[18][3]), "+f"(s[19][0]), "+f"(s[19][1]),
              "+f"(s[19][2]), "+f"(s[19][3]), "+f"(s[20][0]), "+f"(s[20][1]), "+f"(s[20][2]), "+f"(s[20][3]),
              "+f"(s[21][0]), "+f"(s[21][1]), "+f"(s[21][2]), "+f"(s[21][3]), "+f"(s[22][0]), "+f"(s[22][1]),
              "+f"(s[22][2]), "+f"(s[22][3]), "+f"(s[23][0]), "+f"(s[23][1]), "+f"(s[23][2]), "+f"(s[23][3]),
              "+f"(s[24][0]), "+f"(s[24][1]), "+f"(s[24][2]), "+f"(s[24][3]), "+f"(s[25][0]), "+f"(s[25][1]),
              "+f"(s[25][2]), "+f"(s[25][3]), "+f"(s[26][0]), "+f"(s[26][1]), "+f"(s[26][2]), "+f"(s[26][3]),
              "+f"(s[27][0]), "+f"(s[27][1]), "+f"(s[27][2]), "+f"(s[27][3]), "+f"(s[28][0]), "+f"(s[28][1]),
              "+f"(s[28][2]), "+f"(s[28][3]), "+f"(s[29][0]), "+f"(s[29][1]), "+f"(s[29][2]), "+f"(s[29][3]),
              "+f"(s[30][0]), "+f"(s[30][1]), "+f"(s[30][2]), "+f"(s[30][3]), "+f"(s[31][0]), "+f"(s[31][1]),
              "+f"(s[31][2]), "+f"(s[31][3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)), "n"(kTransposed ? 1 : 0));
    }

    // 64 x 16 by 16 x 176.
    template <bool kTransposed>
    __device__ void multiply(float (&s)[22][4], const std::uint32_t (&a)[4], std::uint64_t b, bool add) const {
        asm volatile(
            "{.reg .pred add; setp.ne.b32 add, %93, 0; wgmma.mma_async.sync.aligned.m64n176k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
            "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
            "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
            "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "
            "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, "
            "%87}, "
            "{%88, %89, %90, %91}, %92, add, 1, 1, %94;}"
            : "+f"(s[0][0]), "+f"(s[0][1]), "+f"(s[0][2]), "+f"(s[0][3]), "+f"(s[1][0]), "+f"(s[1][1]), "+f"(s[1][2]),
              "+f"(s[1][3]), "+f"(s[2][0]), "+f"(s[2][1]), "+f"(s[2][2]), "+f"(s[2][3]), "+f"(s[3][0]), "+f"(s[3][1]),
              "+f"(s[3][2]), "+f"(s[3][3]), "+f"(s[4][0]), "+f"(s[4][1]), "+f"(s[4][2]), "+f"(s[4][3]), "+f"(s[5][0]),
              "+f"(s[5][1]), "+f"(s[5][2]), "+f"(s[5][3]), "+f"(s[6][0]), "+f"(s[6][1]), "+f"(s[6][2]), "+f"(s[6][3]),
              "+f"(s[7][0]), "+f"(s[7][1]), "+f"(s[7][2]), "+f"(s[7][3]), "+f"(s[8][0]), "+f"(s[8][1]), "+f"(s[8][2]),
              "+f"(s[8][3]), "+f"(s[9][0]), "+f"(s[9][1]), "+f"(s[9][2]), "+f"(s[9][3]), "+f"(s[10][0]), "+f"(s[10][1]),
              "+f"(s[10][2]), "+f"(s[10][3]), "+f"(s[11][0]), "+f"(s[11][1]), "+f"(s[11][2]), "+f"(s[11][3]),
              "+f"(s[12][0]), "+f"(s[12][1]), "+f"(s[12][2]), "+f"(s[12][3]), "+f"(s[13][0]), "+f"(s[13][1]),
              "+f"(s[13][2]), "+f"(s[13][3]), "+f"(s[14][0]), "+f"(s[14][1]), "+f"(s[14][2]), "+f"(s[14][3]),
              "+f"(s[15][0]), "+f"(s[15][1]), "+f"(s[15][2]), "+f"(s[15][3]), "+f"(s[16][0]), "+f"(s[16][1]),
              "+f"(s[16][2]), "+f"(s[16][3]), "+f"(s[17][0]), "+f"(s[17][1]), "+f"(s[17][2]), "+f"(s[17][3]),
              "+f"(s[18][0]), "+f"(s[18][1]), "+f"(s[18][2]), "+f"(s[18][3]), "+f"(s[19][0]), "+f"(s[19][1]),
              "+f"(s[19][2]), "+f"(s[19][3]), "+f"(s[20][0]), "+f"(s[20][1]), "+f"(s[20][2]), "+f"(s[20][3]),
              "+f"(s[21][0]), "+f"(s[21][1]), "+f"(s[21][2]), "+f"(s[21][3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)), "n"(kTransposed ? 1 : 0));
    }

    // 64 x 16 by 16 x 96.
    template <bool kTransposed>
    __device__ void multiply(float (&s)[12][4], const std::uint32_t (&a)[4], std::uint64_t b, bool add) const {
        asm volatile(
            "{.reg .pred add; setp.ne.b32 add, %53, 0; wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
            "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
            "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}, "
            "{%48, %49, %50, %51}, %52, add, 1, 1, %54;}"
            : "+f"(s[0][0]), "+f"(s[0][1]), "+f"(s[0][2]), "+f"(s[0][3]), "+f"(s[1][0]), "+f"(s[1][1]), "+f"(s[1][2]),
              "+f"(s[1][3]), "+f"(s[2][0]), "+f"(s[2][1]), "+f"(s[2][2]), "+f"(s[2][3]), "+f"(s[3][0]), "+f"(s[3][1]),
              "+f"(s[3][2]), "+f"(s[3][3]), "+f"(s[4][0]), "+f"(s[4][1]), "+f"(s[4][2]), "+f"(s[4][3]), "+f"(s[5][0]),
              "+f"(s[5][1]), "+f"(s[5][2]), "+f"(s[5][3]), "+f"(s[6][0]), "+f"(s[6][1]), "+f"(s[6][2]), "+f"(s[6][3]),
              "+f"(s[7][0]), "+f"(s[7][1]), "+f"(s[7][2]), "+f"(s[7][3]), "+f"(s[8][0]), "+f"(s[8][1]), "+f"(s[8][2]),
              "+f"(s[8][3]), "+f"(s[9][0]), "+f"(s[9][1]), "+f"(s[9][2]), "+f"(s[9][3]), "+f"(s[10][0]), "+f"(s[10][1]),
              "+f"(s[10][2]), "+f"(s[10][3]), "+f"(s[11][0]), "+f"(s[11][1]), "+f"(s[11][2]), "+f"(s[11][3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)), "n"(kTransposed ? 1 : 0));
    }

    // 64 x 16 by 16 x 32.
    template <bool kTransposed>
    __device__ void multiply(float (&s)[4][4], const std::uint32_t (&a)[4], std::uint64_t b, bool add) const {
        asm volatile(
            "{.reg .pred add; setp.ne.b32 add, %21, 0; wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
            "{%16, %17, %18, %19}, %20, add, 1, 1, %22;}"
            : "+f"(s[0][0]), "+f"(s[0][1]), "+f"(s[0][2]), "+f"(s[0][3]), "+f"(s[1][0]), "+f"(s[1][1]), "+f"(s[1][2]),
              "+f"(s[1][3]), "+f"(s[2][0]), "+f"(s[2][1]), "+f"(s[2][2]), "+f"(s[2][3]), "+f"(s[3][0]), "+f"(s[3][1]),
              "+f"(s[3][2]), "+f"(s[3][3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)), "n"(kTransposed ? 1 : 0));
    }

  private:
    __device__ bool both() const { return threads() > kGroup; }
    __device__ int group() const { return static_cast<int>(static_cast<unsigned>(thread()) / kGroup); }
    __device__ void arrive_at(int barrier) const { asm volatile("bar.arrive %0, 256;" ::"r"(barrier) : "memory"); }
    __device__ void wait_at(int barrier) const { asm volatile("bar.sync %0, 256;" ::"r"(barrier) : "memory"); }
    // Values are where the program says they are: nothing is moved past this.
    template <int kTiles>
    __device__ void hold(float (&sums)[kTiles][4]) const {
#pragma unroll
        for (int i = 0; i < 4 * kTiles; ++i) asm volatile("" : "+f"(sums[i / 4][i % 4])::"memory");
    }
};
#endif
#endif

}  // namespace fastimpute::cuda
