// The sums of what comes before each of many counts, by one block.
#pragma once

#include "comm/device/kernel.cuh"

#include <cstdint>

namespace switchyard::cuda {

inline constexpr int running_sum_threads = 1024;

// For a kernel of one block of running_sum_threads: give(i, sum) for each i < size, where sum is count(0) + ... +
// count(i - 1); count(i) is asked once, by the thread that gives. Every thread gets the sum of all.
template <class Count, class Give>
__device__ __forceinline__ std::int32_t running_sum(std::int64_t size, const Count& count, const Give& give) {
  __shared__ std::int32_t warp_totals[warp_size];
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  const auto inclusive = [&](std::int32_t value) {
#pragma unroll
    for (int by = 1; by < warp_size; by *= 2) {
      const std::int32_t below = __shfl_up_sync(whole_warp, value, static_cast<unsigned>(by));
      if (lane >= by) value += below;
    }
    return value;
  };
  // Strips of a count a thread, so that neighbours read neighbours; `before` runs on from strip to strip.
  std::int32_t before = 0;
  for (std::int64_t strip = 0; strip < size; strip += running_sum_threads) {
    const std::int64_t i = strip + threadIdx.x;
    const std::int32_t mine = i < size ? count(i) : 0;
    const std::int32_t in_warp = inclusive(mine);
    if (lane == warp_size - 1) warp_totals[warp] = in_warp;
    __syncthreads();
    const std::int32_t totals = inclusive(warp_totals[lane]);
    const std::int32_t below = __shfl_sync(whole_warp, totals, warp == 0 ? 0 : warp - 1);
    const std::int32_t all = __shfl_sync(whole_warp, totals, warp_size - 1);
    if (i < size) give(i, before + (warp == 0 ? 0 : below) + in_warp - mine);
    before += all;
    __syncthreads();
  }
  return before;
}

}  // namespace switchyard::cuda
