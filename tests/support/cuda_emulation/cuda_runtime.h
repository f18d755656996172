// The part of CUDA's runtime and of its C++ that this project's kernels use, emulated on the CPU (see emulation.h).
#pragma once

#include "tests/support/cuda_emulation/emulation.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>

// NOLINTBEGIN: the names are CUDA's

#define __global__
#define __host__
#define __device__
#define __constant__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

// clang-format off
struct uint3 { unsigned x, y, z; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) double2 { double x, y; };
struct alignas(16) longlong2 { long long x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
// clang-format on

inline uint3 threadIdx{}, blockIdx{};
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

inline void __syncthreads(const std::source_location& place = std::source_location::current()) {
  cuda_emulation::block_barrier(place);
}
inline void __syncwarp(unsigned = 0xffffffffu, const std::source_location& place = std::source_location::current()) {
  cuda_emulation::warp_barrier(place);
}
inline void __threadfence() {}

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32,
              const std::source_location& place = std::source_location::current()) {
  const unsigned segment = cuda_emulation::lane() & ~(unsigned(width) - 1);
  return cuda_emulation::shuffle_from(value, mask, true, segment + (unsigned(from) & (unsigned(width) - 1)), place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  const std::source_location& place = std::source_location::current()) {
  const unsigned lane = cuda_emulation::lane(), from = lane ^ unsigned(bits);
  const bool inside = from < (lane & ~(unsigned(width) - 1)) + unsigned(width);
  return cuda_emulation::shuffle_from(value, mask, inside, from, place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                 const std::source_location& place = std::source_location::current()) {
  const unsigned lane = cuda_emulation::lane(), segment = lane & ~(unsigned(width) - 1);
  return cuda_emulation::shuffle_from(value, mask, lane >= segment + by, lane - by, place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                   const std::source_location& place = std::source_location::current()) {
  const unsigned lane = cuda_emulation::lane(), segment = lane & ~(unsigned(width) - 1);
  return cuda_emulation::shuffle_from(value, mask, lane + by < segment + unsigned(width), lane + by, place);
}
inline unsigned __ballot_sync(unsigned mask, int holds,
                              const std::source_location& place = std::source_location::current()) {
  if (mask != 0xffffffffu) cuda_emulation::fail_in_kernel("a vote with a partial mask is not emulated", place);
  const cuda_emulation::WarpPointers& lanes = cuda_emulation::warp_gather(&holds, place);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (lanes[lane] != nullptr && cuda_emulation::value_of_lane<int>(lanes, lane) != 0) votes |= 1u << lane;
  }
  return votes;
}
inline int __any_sync(unsigned mask, int holds, const std::source_location& place = std::source_location::current()) {
  return __ballot_sync(mask, holds, place) != 0;
}

// One thread runs at a time: a read and a write are atomic. That they are meant to be is for who looks for races.
template <class T, class F>
T atomic_change(T* at, const F& changed) {
  T before;
  __atomic_load(at, &before, __ATOMIC_RELAXED);
  T after = changed(before);
  __atomic_store(at, &after, __ATOMIC_RELAXED);
  return before;
}
template <class T>
T atomicAdd(T* to, T value) {
  return atomic_change(to, [&](T before) { return before + value; });
}
template <class T>
T atomicMax(T* to, T value) {
  return atomic_change(to, [&](T before) { return before > value ? before : value; });
}
template <class T>
T atomicMin(T* to, T value) {
  return atomic_change(to, [&](T before) { return before < value ? before : value; });
}
template <class T>
T atomicOr(T* to, T value) {
  return atomic_change(to, [&](T before) { return before | value; });
}
template <class T>
T atomicExch(T* to, T value) {
  return atomic_change(to, [&](T) { return value; });
}
template <class T>
T atomicCAS(T* to, T expected, T value) {
  return atomic_change(to, [&](T before) { return before == expected ? value : before; });
}

template <class T>
T __ldg(const T* from) {
  return *from;
}
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __clz(int x) {
  return x == 0 ? 32 : __builtin_clz(unsigned(x));
}
inline float __int_as_float(int x) {
  float y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
inline int __float_as_int(float x) {
  int y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
inline unsigned __float_as_uint(float x) {
  return unsigned(__float_as_int(x));
}
inline float __uint_as_float(unsigned x) {
  return __int_as_float(int(x));
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline long long __double2ll_rn(double x) {
  return std::llrint(x);
}
inline long long __float2ll_rn(float x) {
  return std::llrint(x);
}
inline double __longlong_as_double(long long x) {
  double y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
inline long long __double_as_longlong(double x) {
  long long y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
// The C library declares these names for itself and keeps them; <cmath> is behind us.
#define __expf(x) expf(x)
#define __exp2f(x) exp2f(x)
#define __logf(x) logf(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};
enum : unsigned { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
enum : unsigned { cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
enum : unsigned { cudaHostAllocDefault = 0 };

struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  std::size_t sharedMemPerBlockOptin;
  int multiProcessorCount;
  int major, minor;
};

enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaStreamCaptureModeRelaxed = 2,
};

struct CUstream_st;
struct CUevent_st;
struct CUgraph_st;
struct CUgraphExec_st;
using cudaGraph_t = CUgraph_st*;
using cudaGraphExec_t = CUgraphExec_st*;
using cudaStream_t = CUstream_st*;
using cudaEvent_t = CUevent_st*;

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes);
cudaError_t cudaMalloc(void** memory, std::size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMallocHost(void** memory, std::size_t bytes);
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemsetAsync(void* memory, int byte, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaDeviceGetStreamPriorityRange(int* lowest, int* highest);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
// Kernels are ordinary functions here, and every size of shared memory that a GPU has is allowed.
template <class F>
cudaError_t cudaFuncSetAttribute(F*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

template <class T>
cudaError_t cudaMalloc(T** memory, std::size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(memory), bytes);
}
template <class T>
cudaError_t cudaMallocHost(T** memory, std::size_t bytes) {
  return cudaMallocHost(reinterpret_cast<void**>(memory), bytes);
}

// NOLINTEND
