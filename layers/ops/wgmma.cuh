// The tensor cores of compute capability 9.0: wgmma.mma_async (bf16 in, fp32 sums), which a warpgroup, 128 threads from
// a multiple of 128, gives together, and which reads both operands from shared memory while the threads go on. Code
// that includes this is compiled for sm_90a. Without nvcc the same operations are emulated
// (tests/support/cuda_emulation).
//
// An operand lies in squares of 64 lines and 64 positions, 8 KiB each, rows of 128 bytes: a row is a line ("by lines",
// the PTX ISA's K-major) or a position (MN-major). The 16-byte unit u of row r is at u xor (r mod 8), the swizzle of
// 128 bytes, so that neither eight rows of a unit nor the eight units of a row meet in a bank. Squares begin at
// multiples of 1024 bytes and follow each other along the lines.
//
// Sums [64, N] of a warpgroup: warp w has rows 16 w to 16 w + 15; lane 4 g + t has, of each 8 columns j, c[4 j] and
// c[4 j + 1]: (g, 2t) and (g, 2t + 1); c[4 j + 2] and c[4 j + 3]: (g + 8, 2t) and (g + 8, 2t + 1).
#pragma once

#include "layers/ops/mma.cuh"

#include <cstdint>

namespace switchyard::cuda {

// How wgmma finds a matrix in shared memory (the PTX ISA's "Matrix Descriptor Format"): all in units of 16 bytes.
struct SharedMatrix {
  std::uint64_t bits;

  __device__ __forceinline__ SharedMatrix at(unsigned bytes) const { return {bits + (bytes >> 4)}; }
};
inline constexpr unsigned square_bytes = 64 * 64 * sizeof(bf16);

// The first 16 positions of squares that begin at `address`. Eight rows are 1024 bytes. The step from one square to the
// next lines' matters by positions alone: by lines these are the next eight rows.
__device__ __forceinline__ SharedMatrix shared_matrix(std::uint32_t address) {
  constexpr std::uint64_t swizzle_of_128_bytes = 1;
  return {std::uint64_t{(address & 0x3ffffU) >> 4} | std::uint64_t{square_bytes >> 4} << 16 |
          std::uint64_t{1024 >> 4} << 32 | swizzle_of_128_bytes << 62};
}
// From 16 positions to the next.
template <bool ByLines>
inline constexpr unsigned next_positions = ByLines ? 16 * sizeof(bf16) : 16 * 128;

#ifdef __CUDACC__

// What this thread has written to shared memory, copies that it has waited for too, is there for wgmma: then a barrier,
// then wgmma.
__device__ __forceinline__ void show_to_wgmma() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// A plain store to memory that wgmma reads.
template <class V>
__device__ __forceinline__ void store_for_wgmma(const V& v, bf16* to) {
  v.store(to);
}

// The sums are those that the threads' registers hold: before the first wgmma, and again after they were touched.
__device__ __forceinline__ void begin_wgmma() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Ends a group of products.
__device__ __forceinline__ void commit_wgmma() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits for all groups but the last `Pending`: what they read may be written again.
template <int Pending>
__device__ __forceinline__ void wait_for_wgmma() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
// Waits for all: the sums may be touched. The compiler, which knows of no wait, must not read them before.
template <int Size>
__device__ __forceinline__ void wait_for_sums(float (&c)[Size]) {
  wait_for_wgmma<0>();
#pragma unroll
  for (int i = 0; i < Size; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// clang-format off
#define SWITCHYARD_SUMS_8(i) \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define SWITCHYARD_SUMS_32(i) \
  SWITCHYARD_SUMS_8(i), SWITCHYARD_SUMS_8(i + 8), SWITCHYARD_SUMS_8(i + 16), SWITCHYARD_SUMS_8(i + 24)
#define SWITCHYARD_NAMES_0 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SWITCHYARD_NAMES_32 \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SWITCHYARD_NAMES_64 \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define SWITCHYARD_NAMES_96 \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
// The predicate says that the sums are added to.
#define SWITCHYARD_WGMMA(columns, names, a, b, turn_a, turn_b)                                          \
  "{\n.reg .pred added;\nsetp.eq.u32 added, 0, 0;\n"                                                    \
  "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32.bf16.bf16 {" names "}, " a ", " b ", added, 1, 1, " \
  turn_a ", " turn_b ";\n}"
// clang-format on

// c += a b, 16 positions; under way when this returns. All threads of a warpgroup come here together.
template <int N, bool AByLines, bool BByLines>
__device__ __forceinline__ void wgmma(float (&c)[N / 2], SharedMatrix a, SharedMatrix b) {
  static_assert(N == 64 || N == 128 || N == 256);
  if constexpr (N == 64) {
    asm volatile(SWITCHYARD_WGMMA("64", SWITCHYARD_NAMES_0, "%32", "%33", "%34", "%35")
                 : SWITCHYARD_SUMS_32(0)
                 : "l"(a.bits), "l"(b.bits), "n"(AByLines ? 0 : 1), "n"(BByLines ? 0 : 1)
                 : "memory");
  } else if constexpr (N == 128) {
    asm volatile(SWITCHYARD_WGMMA("128", SWITCHYARD_NAMES_0 ", " SWITCHYARD_NAMES_32, "%64", "%65", "%66", "%67")
                 : SWITCHYARD_SUMS_32(0), SWITCHYARD_SUMS_32(32)
                 : "l"(a.bits), "l"(b.bits), "n"(AByLines ? 0 : 1), "n"(BByLines ? 0 : 1)
                 : "memory");
  } else {
    asm volatile(
        SWITCHYARD_WGMMA("256",
                         SWITCHYARD_NAMES_0 ", " SWITCHYARD_NAMES_32 ", " SWITCHYARD_NAMES_64 ", " SWITCHYARD_NAMES_96,
                         "%128", "%129", "%130", "%131")
        : SWITCHYARD_SUMS_32(0), SWITCHYARD_SUMS_32(32), SWITCHYARD_SUMS_32(64), SWITCHYARD_SUMS_32(96)
        : "l"(a.bits), "l"(b.bits), "n"(AByLines ? 0 : 1), "n"(BByLines ? 0 : 1)
        : "memory");
  }
}

#undef SWITCHYARD_WGMMA
#undef SWITCHYARD_NAMES_96
#undef SWITCHYARD_NAMES_64
#undef SWITCHYARD_NAMES_32
#undef SWITCHYARD_NAMES_0
#undef SWITCHYARD_SUMS_32
#undef SWITCHYARD_SUMS_8

#else

inline void show_to_wgmma() {
  cuda_emulation::fence_async_proxy();
}
template <class V>
void store_for_wgmma(const V& v, bf16* to) {
  v.store(to);
  cuda_emulation::wrote_shared(to, sizeof(v));
}
inline std::uint32_t shared_address(const void* in_shared) {
  return cuda_emulation::shared_address(in_shared);
}
inline void begin_wgmma() {
  cuda_emulation::wgmma_fence();
}
inline void commit_wgmma() {
  cuda_emulation::wgmma_commit();
}
template <int Pending>
void wait_for_wgmma() {
  cuda_emulation::wgmma_wait(Pending);
}
template <int Size>
void wait_for_sums(float (&)[Size]) {
  cuda_emulation::wgmma_wait(0);
}
template <int N, bool AByLines, bool BByLines>
void wgmma(float (&c)[N / 2], SharedMatrix a, SharedMatrix b,
           const std::source_location& place = std::source_location::current()) {
  cuda_emulation::wgmma({c, N, {a.bits, !AByLines}, {b.bits, !BByLines}}, place);
}

#endif

}  // namespace switchyard::cuda
