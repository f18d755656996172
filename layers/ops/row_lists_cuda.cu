// Which slots name each row: counts, their running sum, slots put into their lists in any order, and each list sorted,
// so that the result does not depend on which thread came first.
#include "comm/device/kernel.cuh"
#include "layers/ops/rows_cuda.h"
#include "layers/ops/running_sum.cuh"

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;
constexpr int in_registers = 8;  // of a list, per lane

__device__ __forceinline__ std::int64_t first_of_grid() {
  return std::int64_t{blockIdx.x} * threads + threadIdx.x;
}

__global__ void __launch_bounds__(threads) count_kernel(const std::int32_t* __restrict__ row, std::int64_t slots,
                                                        std::int64_t rows, std::int32_t* __restrict__ counts) {
  for (std::int64_t i = first_of_grid(); i < slots; i += std::int64_t{gridDim.x} * threads) {
    const std::int32_t named = row[i];
    if (named >= 0 && named < rows) atomicAdd(&counts[named], 1);
  }
}

// begin[r] = counts[0] + ... + counts[r - 1]; counts becomes 0.
__global__ void __launch_bounds__(running_sum_threads)
    scan_kernel(std::int32_t* __restrict__ counts, std::int64_t rows, std::int32_t* __restrict__ begin) {
  const std::int32_t all = running_sum(
      rows, [&](std::int64_t r) { return counts[r]; },
      [&](std::int64_t r, std::int32_t before) {
        begin[r] = before;
        counts[r] = 0;
      });
  if (threadIdx.x == 0) begin[rows] = all;
}

__global__ void __launch_bounds__(threads)
    place_kernel(const std::int32_t* __restrict__ row, std::int64_t slots, std::int64_t rows,
                 const std::int32_t* __restrict__ begin, std::int32_t* __restrict__ cursors,
                 std::int32_t* __restrict__ order) {
  for (std::int64_t i = first_of_grid(); i < slots; i += std::int64_t{gridDim.x} * threads) {
    const std::int32_t named = row[i];
    if (named >= 0 && named < rows) order[begin[named] + atomicAdd(&cursors[named], 1)] = static_cast<std::int32_t>(i);
  }
}

// A warp a row. A slot's place in a short list is how many of the list are below it; a long list is found anew, by
// going through all slots in their order (there cannot be many long ones).
__global__ void __launch_bounds__(threads)
    sort_kernel(const std::int32_t* __restrict__ row, std::int64_t slots, std::int64_t rows,
                const std::int32_t* __restrict__ begin, std::int32_t* order) {
  const std::int64_t r = first_of_grid() / warp_size;
  if (r >= rows) return;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  std::int32_t* const list = order + begin[r];
  const int count = begin[r + 1] - begin[r];
  if (count <= 1) return;
  if (count <= in_registers * warp_size) {
    std::int32_t slot[in_registers];
    int place[in_registers];
#pragma unroll
    for (int k = 0; k < in_registers; ++k) {
      slot[k] = k * warp_size + lane < count ? list[k * warp_size + lane] : 0;
      place[k] = 0;
    }
    for (int other = 0; other < count; ++other) {
      const std::int32_t value = list[other];
#pragma unroll
      for (int k = 0; k < in_registers; ++k) place[k] += value < slot[k] ? 1 : 0;
    }
    __syncwarp();  // all have read the list
#pragma unroll
    for (int k = 0; k < in_registers; ++k) {
      if (k * warp_size + lane < count) list[place[k]] = slot[k];
    }
    return;
  }
  int found = 0;
  for (std::int64_t i = 0; i < slots; i += warp_size) {
    const bool mine = i + lane < slots && row[i + lane] == r;
    const unsigned votes = __ballot_sync(whole_warp, mine ? 1 : 0);
    if (mine) list[found + __popc(votes & ((1U << lane) - 1U))] = static_cast<std::int32_t>(i + lane);
    found += __popc(votes);
  }
}

}  // namespace

void make_row_lists(Device& device, const std::int32_t* row, std::int64_t slots, std::int64_t rows, std::int32_t* order,
                    std::int32_t* begin, std::int32_t* cursors) {
  const cudaStream_t stream = stream_of(device);
  const unsigned blocks = blocks_for(slots, threads, std::int64_t{multiprocessors(device)} * 8);
  device.fill(cursors, 0, Bytes(rows * static_cast<std::int64_t>(sizeof(std::int32_t))), device.stream());
  launch(stream, count_kernel, blocks, threads, 0, row, slots, rows, cursors);
  launch(stream, scan_kernel, 1, running_sum_threads, 0, cursors, rows, begin);
  launch(stream, place_kernel, blocks, threads, 0, row, slots, rows, begin, cursors, order);
  if (slots > 0) {
    launch(stream, sort_kernel, blocks_for(rows, threads / warp_size), threads, 0, row, slots, rows, begin, order);
  }
}

}  // namespace switchyard::cuda
