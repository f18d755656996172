// Blocks for kernels that work on rows: threads along a row in x, rows in y, so that short rows waste no threads.
#pragma once

#include "comm/device/kernel.cuh"

namespace switchyard::cuda {

inline constexpr int row_block_threads = 256;

inline dim3 row_block(std::int64_t width, int at_once) {
  unsigned along = 8;
  while (along < row_block_threads && std::int64_t{along} * at_once < width) along *= 2;
  return dim3(along, row_block_threads / along);
}
inline unsigned row_blocks(std::int64_t rows, dim3 block) {
  return blocks_for(rows, block.y);
}

// The row of this thread, and where in it the thread begins and how far it steps, in elements.
struct RowThread {
  std::int64_t row;
  int begin;
  int step;
};
template <int N>
__device__ __forceinline__ RowThread row_thread() {
  return {std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y, static_cast<int>(threadIdx.x) * N,
          static_cast<int>(blockDim.x) * N};
}

}  // namespace switchyard::cuda
