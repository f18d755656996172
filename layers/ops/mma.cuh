// Tensor cores: the PTX instructions mma.m16n8k16 (bf16 in, fp32 sums), ldmatrix and cp.async. Without nvcc the same
// operations stand here as the PTX ISA's tables give them ("Matrix Fragments for mma.m16n8k16", "ldmatrix"), over the
// emulator's exchange between lanes, so that a kernel's idea of a fragment is tested against the tables.
//
// Fragments of a warp, lane = 4 g + t:
//   A [16 rows, 16 k], each with its right neighbour:
//     r0: (g, 2t), r1: (g + 8, 2t), r2: (g, 2t + 8), r3: (g + 8, 2t + 8)
//   B [16 k, 8 columns], each with the next k:
//     r0: (k = 2t, column g), r1: (k = 2t + 8, column g)
//   C [16 rows, 8 columns]:
//     c0, c1: (g, 2t), (g, 2t + 1); c2, c3: (g + 8, 2t), (g + 8, 2t + 1)
#pragma once

#include "comm/device/kernel.cuh"

#include <cstdint>

#ifndef __CUDACC__
#include <cstring>
#include <vector>

#include <wgmma_emulated.h>
#endif

namespace switchyard::cuda {

struct FragmentA {
  std::uint32_t r[4];
};
struct FragmentB {
  std::uint32_t r[2];
};
struct FragmentC {
  float c[4];
};

#ifdef __CUDACC__

// Two neighbours of a fragment in one register, the first in the low half.
__device__ __forceinline__ std::uint32_t pack_bf16(float first, float second) {
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
  return packed;
}

// 2^x to within 2 units in the last place; 0 where the result would be subnormal.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// c += a b
__device__ __forceinline__ void mma(FragmentC& c, const FragmentA& a, const FragmentB& b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c.c[0]), "+f"(c.c[1]), "+f"(c.c[2]), "+f"(c.c[3])
      : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
}

__device__ __forceinline__ std::uint32_t shared_address(const void* in_shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(in_shared));
}

// Four 8x8 matrices; lane 8 i + j gives the address of row j of matrix i, 16 bytes. r[i] is this lane's part of matrix
// i: row g, columns 2t and 2t + 1; transposed: rows 2t and 2t + 1 of column g.
__device__ __forceinline__ void load_matrices(std::uint32_t (&r)[4], const bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&r)[4], const bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// Starts a copy of `Bytes` bytes (4 or 16, aligned) from global to shared memory, of zeros where not `valid`.
template <int Bytes>
__device__ __forceinline__ void copy_async(void* to_shared, const void* from, bool valid) {
  static_assert(Bytes == 4 || Bytes == 16);
  const int size = valid ? Bytes : 0;
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)), "l"(from), "r"(size)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to_shared)), "l"(from), "r"(size)
                 : "memory");
  }
}
// Ends a group of this thread's copies.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits for this thread's groups but the last `Pending`; a barrier then shows the copies to the other threads.
template <int Pending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

#else

inline std::uint32_t pack_bf16(float first, float second) {
  return std::uint32_t{__bfloat16_as_ushort(__float2bfloat16_rn(first))} |
         std::uint32_t{__bfloat16_as_ushort(__float2bfloat16_rn(second))} << 16;
}
inline float half_of(std::uint32_t packed, unsigned which) {
  return __bfloat162float(__ushort_as_bfloat16(static_cast<unsigned short>(packed >> (16 * which))));
}
inline float fast_exp2(float x) {
  return exp2f(x);
}

inline void mma(FragmentC& c, const FragmentA& a, const FragmentB& b) {
  struct Both {
    FragmentA a;
    FragmentB b;
  };
  const Both mine{a, b};
  const auto& lanes = cuda_emulation::warp_gather(&mine);
  const auto given = [&](unsigned lane) { return cuda_emulation::value_of_lane<Both>(lanes, lane); };
  const unsigned g = cuda_emulation::lane() / 4, t = cuda_emulation::lane() % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = i < 2 ? g : g + 8, column = 2 * t + i % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const float left = half_of(given(row % 8 * 4 + k % 8 / 2).a.r[row / 8 + k / 8 * 2], k % 2);
      const float right = half_of(given(column * 4 + k % 8 / 2).b.r[k / 8], k % 2);
      c.c[i] = fmaf(left, right, c.c[i]);
    }
  }
}

// A GPU faults where an address is no multiple of the size.
inline void check_aligned(const void* address, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes == 0) return;
  cuda_emulation::fail_in_kernel("a row of a matrix or a copy is not aligned", std::source_location::current());
}

inline void load_matrices(std::uint32_t (&r)[4], const bf16* row) {
  check_aligned(row, 16);
  const auto& rows = cuda_emulation::warp_gather(&row);
  const unsigned g = cuda_emulation::lane() / 4, t = cuda_emulation::lane() % 4;
  for (unsigned i = 0; i < 4; ++i) {
    std::memcpy(&r[i], cuda_emulation::value_of_lane<const bf16*>(rows, 8 * i + g) + 2 * t, 4);
  }
}
inline void load_matrices_transposed(std::uint32_t (&r)[4], const bf16* row) {
  check_aligned(row, 16);
  const auto& rows = cuda_emulation::warp_gather(&row);
  const unsigned g = cuda_emulation::lane() / 4, t = cuda_emulation::lane() % 4;
  for (unsigned i = 0; i < 4; ++i) {
    for (unsigned j = 0; j < 2; ++j) {
      const bf16* const from = cuda_emulation::value_of_lane<const bf16*>(rows, 8 * i + 2 * t + j) + g;
      std::memcpy(reinterpret_cast<char*>(&r[i]) + 2 * j, from, 2);
    }
  }
}

// Copies are made when they are waited for, and not before: until then their place holds 0xff.
struct PendingCopy {
  void* to;
  const void* from;
  std::size_t bytes;
  bool valid;
};
using CopyGroups = std::vector<std::vector<PendingCopy> >;  // of one thread; the last is open
inline CopyGroups& copy_groups() {
  static std::vector<CopyGroups> of_thread(1024, CopyGroups(1));
  return of_thread[threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)];
}
template <int Bytes>
void copy_async(void* to_shared, const void* from, bool valid) {
  check_aligned(to_shared, Bytes);
  check_aligned(from, Bytes);
  std::memset(to_shared, 0xff, Bytes);
  cuda_emulation::begins_to_write_shared(to_shared, Bytes);
  copy_groups().back().push_back({to_shared, from, Bytes, valid});
}
inline void commit_copies() {
  copy_groups().emplace_back();
}
template <int Pending>
void wait_for_copies() {
  CopyGroups& groups = copy_groups();
  while (groups.size() > Pending + 1) {
    for (const PendingCopy& copy : groups.front()) {
      copy.valid ? void(std::memcpy(copy.to, copy.from, copy.bytes)) : void(std::memset(copy.to, 0, copy.bytes));
      cuda_emulation::wrote_shared(copy.to, copy.bytes);
    }
    groups.erase(groups.begin());
  }
}

#endif

}  // namespace switchyard::cuda
