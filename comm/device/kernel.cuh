// What kernels share: element types, 16-byte accesses, sums over warps and blocks in a fixed order.
#pragma once

#include "comm/base/dtype.h"
#include "comm/base/error.h"
#include "comm/device/cuda.h"

#include <cstdint>
#include <utility>

#include <cuda_bf16.h>

namespace switchyard::cuda {

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float value) {
  return value;
}
__device__ __forceinline__ float to_float(bf16 value) {
  return __bfloat162float(value);
}
template <class T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float value) {
  return __float2bfloat16_rn(value);
}

// Elements that one thread reads or writes at once: 16 bytes.
template <class T>
inline constexpr int vector_size = 16 / static_cast<int>(sizeof(T));

template <class T, int N = vector_size<T>>
struct alignas(sizeof(T) * N) Vector {
  T at[N];

  static __device__ __forceinline__ Vector load(const T* from) { return *reinterpret_cast<const Vector*>(from); }
  __device__ __forceinline__ void store(T* to) const { *reinterpret_cast<Vector*>(to) = *this; }
};

// Whether rows of `width` elements that begin at `data` can be read in whole vectors.
template <class T>
bool in_vectors(const T* data, std::int64_t width) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && width % vector_size<T> == 0;
}

inline constexpr int warp_size = 32;
inline constexpr unsigned whole_warp = 0xffffffffU;

// Every lane gets the sum, over a butterfly: the same order in every lane and every run.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = warp_size / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(whole_warp, value, offset);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int offset = warp_size / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(whole_warp, value, offset));
  }
  return value;
}

// Every thread of a block of `Threads` gets the sum. scratch: shared memory for Threads / 32 floats; it may be used
// again after the next __syncthreads().
template <int Threads>
__device__ __forceinline__ float block_sum(float value, float* scratch) {
  constexpr int warps = Threads / warp_size;
  static_assert(Threads % warp_size == 0 && warps <= warp_size);
  value = warp_sum(value);
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  if (lane == 0) scratch[threadIdx.x / warp_size] = value;
  __syncthreads();
  return warp_sum(lane < warps ? scratch[lane] : 0.0F);
}

// The shared memory whose size the launch gave, 16-byte aligned at least.
#ifdef __CUDACC__
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}
#else
template <class T>
T* dynamic_shared() {
  return static_cast<T*>(cuda_emulation::dynamic_shared());
}
#endif

// f.operator()<T>() for the type that lies behind a dtype of activations.
template <class F>
void with_float_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::F32:
      return f.template operator()<float>();
    case DType::BF16:
      return f.template operator()<bf16>();
    default:
      fail(ErrorKind::Runtime, "there is no kernel for elements of type {}", name_of(dtype));
  }
}

}  // namespace switchyard::cuda
