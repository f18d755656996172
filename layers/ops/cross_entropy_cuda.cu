// Loss and gradient of a row of logits by one block of threads: one pass for maximum and sum together (the running
// softmax of Milakov and Gimelshein, 2018), one that turns the logits into their gradient. The second goes backwards,
// so that what was read last, and lies in the caches, is read first.
#include "comm/device/kernel.cuh"
#include "layers/ops/cross_entropy_cuda.h"

#include <cmath>

namespace switchyard::cuda {
namespace {

constexpr int threads = 512;
constexpr int warps = threads / warp_size;
constexpr int loads = 4;  // in flight for a thread

// The largest number of some, and the sum of exp(number - largest).
struct Running {
  float highest;
  float sum;
};

// exp(from - to) for from <= to, and 1 where both are the same infinity.
__device__ __forceinline__ float rescale(float from, float to) {
  return from == to ? 1.0F : __expf(from - to);
}
__device__ __forceinline__ Running joined(const Running& a, const Running& b) {
  Running both;
  both.highest = fmaxf(a.highest, b.highest);
  both.sum = a.sum * rescale(a.highest, both.highest) + b.sum * rescale(b.highest, both.highest);
  return both;
}
// Both lanes of a pair form the same sum, because a + b = b + a.
__device__ __forceinline__ Running joined_over_warp(Running mine) {
#pragma unroll
  for (int offset = warp_size / 2; offset > 0; offset /= 2) {
    Running other;
    other.highest = __shfl_xor_sync(whole_warp, mine.highest, offset);
    other.sum = __shfl_xor_sync(whole_warp, mine.sum, offset);
    mine = joined(mine, other);
  }
  return mine;
}

template <class T, int N>
__device__ __forceinline__ void take(Running& running, const Vector<T, N>& x) {
  float highest = running.highest;
#pragma unroll
  for (int i = 0; i < N; ++i) highest = fmaxf(highest, to_float(x.at[i]));
  running.sum *= rescale(running.highest, highest);
  running.highest = highest;
  // Nothing but -infinity so far adds nothing; NaN stays what it is.
  const float shift = highest == -INFINITY ? 0.0F : highest;
#pragma unroll
  for (int i = 0; i < N; ++i) running.sum += __expf(to_float(x.at[i]) - shift);
}

template <class T, int N, bool backward>
__global__ void __launch_bounds__(threads)
    cross_entropy_kernel(T* all_logits, const int* targets, std::int64_t vocabulary, float scale, float* losses) {
  __shared__ Running of_warps[warps];
  const std::int64_t row = blockIdx.x;
  T* const logits = all_logits + row * vocabulary;
  const int target = targets[row];
  const std::int64_t first = std::int64_t{threadIdx.x} * N;
  constexpr std::int64_t step = std::int64_t{threads} * N;
  if (target < 0) {
    if (threadIdx.x == 0) losses[row] = 0;
    if constexpr (backward) {
      Vector<T, N> zeros;
#pragma unroll
      for (int i = 0; i < N; ++i) zeros.at[i] = from_float<T>(0.0F);
      for (std::int64_t at = first; at < vocabulary; at += step) zeros.store(logits + at);
    }
    return;
  }
  const float wanted = target < vocabulary ? to_float(logits[target]) : NAN;

  Running running{-INFINITY, 0};
  std::int64_t at = first;
  for (; at + (loads - 1) * step < vocabulary; at += loads * step) {
    Vector<T, N> x[loads];
#pragma unroll
    for (int i = 0; i < loads; ++i) x[i] = Vector<T, N>::load(logits + at + i * step);
#pragma unroll
    for (int i = 0; i < loads; ++i) take(running, x[i]);
  }
  for (; at < vocabulary; at += step) take(running, Vector<T, N>::load(logits + at));

  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  running = joined_over_warp(running);
  if (lane == 0) of_warps[threadIdx.x / warp_size] = running;
  __syncthreads();
  running = joined_over_warp(of_warps[lane % warps]);
  // Every warp's part was taken warp_size / warps times.
  const float sum = running.sum * (static_cast<float>(warps) / warp_size);
  const float highest = running.highest;
  if (threadIdx.x == 0) losses[row] = logf(sum) + (highest - wanted);
  if constexpr (backward) {
    const float factor = scale / sum;
    const auto turn = [&](Vector<T, N> x, std::int64_t begin) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float own = begin + i == target ? scale : 0.0F;
        x.at[i] = from_float<T>(fmaf(__expf(to_float(x.at[i]) - highest), factor, -own));
      }
      x.store(logits + begin);
    };
    // Down from where the first pass ended.
    for (at -= step; at - (loads - 1) * step >= 0; at -= loads * step) {
      Vector<T, N> x[loads];
#pragma unroll
      for (int i = 0; i < loads; ++i) x[i] = Vector<T, N>::load(logits + at - i * step);
#pragma unroll
      for (int i = 0; i < loads; ++i) turn(x[i], at - i * step);
    }
    for (; at >= 0; at -= step) turn(Vector<T, N>::load(logits + at), at);
  }
}

template <class T, bool backward>
void run(const Tensor& logits, const Tensor& targets, float scale, const Tensor& losses) {
  T* const memory = static_cast<T*>(logits.raw());
  const std::int64_t vocabulary = logits.dim(1);
  const auto kernel = in_vectors(memory, vocabulary) ? cross_entropy_kernel<T, vector_size<T>, backward>
                                                     : cross_entropy_kernel<T, 1, backward>;
  launch(stream_of(logits.device()), kernel, blocks_for(logits.dim(0), 1), threads, 0, memory, targets.i32(),
         vocabulary, scale, losses.f32());
}

}  // namespace

void cross_entropy_rows(const Tensor& logits, const Tensor& targets, Tensor losses) {
  with_float_type(logits.dtype(), [&]<class T>() { run<T, false>(logits, targets, 0, losses); });
}

void cross_entropy_rows_backward(Tensor logits, const Tensor& targets, float scale, Tensor losses) {
  with_float_type(logits.dtype(), [&]<class T>() { run<T, true>(logits, targets, scale, losses); });
}

}  // namespace switchyard::cuda
