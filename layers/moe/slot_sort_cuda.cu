// A counting sort that keeps the order of tokens. Slots lie in tiles of one warp each: each tile counts its slots by
// expert, one block turns the counts into the places where each tile's slots of each expert begin, and each tile then
// gives its slots their places one after the other.
#include "comm/device/kernel.cuh"
#include "layers/moe/slot_sort_cuda.h"
#include "layers/ops/row_blocks.cuh"
#include "layers/ops/running_sum.cuh"

namespace switchyard::cuda {
namespace {

constexpr int warps = 4;  // a block: tiles
constexpr int threads = warps * warp_size;
constexpr int tile_slots = 256;

// Lanes with the same expert as this one; `bits`: how many an expert's number has.
__device__ __forceinline__ unsigned lanes_alike(int expert, int bits) {
  unsigned alike = whole_warp;
  for (int b = 0; b < bits; ++b) {
    const int bit = (expert >> b) & 1;
    const unsigned set = __ballot_sync(whole_warp, bit);
    alike &= bit != 0 ? set : ~set;
  }
  return alike;
}

// Goes through a tile in its order. place(slot, expert, count): `count` slots of this expert came before in the tile.
template <class Place>
__device__ __forceinline__ void for_slots_of_tile(const std::int32_t* __restrict__ experts, std::int64_t slots,
                                                  int expert_count, int bits, std::int64_t tile, int* seen,
                                                  const Place& place) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  for (int e = lane; e < expert_count; e += warp_size) seen[e] = 0;
  __syncwarp();
  const std::int64_t begin = tile * tile_slots;
  for (int i = 0; i < tile_slots; i += warp_size) {
    const std::int64_t slot = begin + i + lane;
    const std::int32_t chosen = slot < slots ? experts[slot] : -1;
    const bool known = chosen >= 0 && chosen < expert_count;
    const int expert = known ? chosen : expert_count;
    const unsigned alike = lanes_alike(expert, bits);
    const unsigned below = alike & ((1U << lane) - 1U);
    if (known) place(slot, expert, seen[expert] + __popc(below));
    __syncwarp();
    if (known && below == 0) seen[expert] += __popc(alike);
    __syncwarp();
  }
}

// counts: [E, tiles]
__global__ void __launch_bounds__(threads)
    count_kernel(const std::int32_t* __restrict__ experts, std::int64_t slots, int expert_count, int bits,
                 std::int64_t tiles, std::int32_t* __restrict__ counts) {
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  const std::int64_t tile = std::int64_t{blockIdx.x} * warps + warp;
  if (tile >= tiles) return;
  int* const seen = dynamic_shared<int>() + warp * (expert_count + 1);
  for_slots_of_tile(experts, slots, expert_count, bits, tile, seen, [](std::int64_t, int, int) {});
  for (int e = static_cast<int>(threadIdx.x) % warp_size; e < expert_count; e += warp_size) {
    counts[e * tiles + tile] = seen[e];
  }
}

// In place: counts, [E, tiles], become where each begins. begin: [E + 1]
__global__ void __launch_bounds__(running_sum_threads)
    scan_kernel(std::int32_t* __restrict__ counts, int expert_count, std::int64_t tiles,
                std::int32_t* __restrict__ begin) {
  const std::int32_t all = running_sum(
      expert_count * tiles, [&](std::int64_t i) { return counts[i]; },
      [&](std::int64_t i, std::int32_t before) { counts[i] = before; });
  for (int e = static_cast<int>(threadIdx.x); e < expert_count; e += running_sum_threads) begin[e] = counts[e * tiles];
  if (threadIdx.x == 0) begin[expert_count] = all;
}

__global__ void __launch_bounds__(threads)
    place_kernel(const std::int32_t* __restrict__ experts, const float* __restrict__ weights, std::int64_t slots,
                 int top_k, int expert_count, int bits, std::int64_t tiles, const std::int32_t* __restrict__ first,
                 std::int32_t* __restrict__ token, float* __restrict__ weight, std::int32_t* __restrict__ place) {
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  const std::int64_t tile = std::int64_t{blockIdx.x} * warps + warp;
  if (tile >= tiles) return;
  int* const seen = dynamic_shared<int>() + warp * (expert_count + 1);
  for_slots_of_tile(experts, slots, expert_count, bits, tile, seen, [&](std::int64_t slot, int expert, int count) {
    const std::int32_t to = first[expert * tiles + tile] + count;
    token[to] = static_cast<std::int32_t>(slot / top_k);
    weight[to] = weights[slot];
    place[slot] = to;
  });
}

// A thread a token: places in ascending order. K is small.
__global__ void __launch_bounds__(threads) list_kernel(const std::int32_t* __restrict__ place, std::int64_t tokens,
                                                       int top_k, std::int32_t* __restrict__ lists) {
  const std::int64_t t = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (t >= tokens) return;
  for (int k = 0; k < top_k; ++k) {
    const std::int32_t mine = place[t * top_k + k];
    int below = 0;
    for (int other = 0; other < top_k; ++other) {
      const std::int32_t there = place[t * top_k + other];
      below += there < mine || (there == mine && other < k) ? 1 : 0;
    }
    lists[t * top_k + below] = mine;
  }
}

// residual: null for none.
template <bool Weighted, class T, int N>
__global__ void __launch_bounds__(row_block_threads)
    combine_kernel(const T* __restrict__ rows, const float* __restrict__ weight, const std::int32_t* __restrict__ lists,
                   const T* __restrict__ residual, std::int64_t tokens, int top_k, int width, T* __restrict__ y) {
  const RowThread me = row_thread<N>();
  if (me.row >= tokens) return;
  const std::int32_t* const list = lists + me.row * top_k;
  for (int i = me.begin; i < width; i += me.step) {
    float sum[N] = {};
#pragma unroll 4
    for (int k = 0; k < top_k; ++k) {
      const std::int32_t from = list[k];
      if (from < 0) continue;
      const auto v = Vector<T, N>::load(rows + std::int64_t{from} * width + i);
      const float factor = Weighted ? weight[from] : 1.0F;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float value = to_float(v.at[e]);
        // Rounded, not fused with the sum.
        sum[e] += Weighted ? to_float(from_float<T>(__fmul_rn(factor, value))) : value;
      }
    }
    Vector<T, N> out;
#pragma unroll
    for (int e = 0; e < N; ++e) out.at[e] = from_float<T>(sum[e]);
    if (residual != nullptr) {
      const auto stream = Vector<T, N>::load(residual + me.row * width + i);
#pragma unroll
      for (int e = 0; e < N; ++e) out.at[e] = from_float<T>(to_float(out.at[e]) + to_float(stream.at[e]));
    }
    out.store(y + me.row * width + i);
  }
}

template <bool Weighted>
void combine(const Tensor& rows, const SortedSlots& sorted, const Tensor& residual, const Tensor& y) {
  with_float_type(y.dtype(), [&]<class T>() {
    const auto* const from = static_cast<const T*>(rows.raw());
    auto* const to = static_cast<T*>(y.raw());
    const auto* const stream = static_cast<const T*>(residual.raw());  // null where it is undefined
    const bool whole = in_vectors(from, y.cols()) && in_vectors(to, y.cols()) && in_vectors(stream, y.cols());
    const auto kernel = whole ? combine_kernel<Weighted, T, vector_size<T>> : combine_kernel<Weighted, T, 1>;
    const dim3 block = row_block(y.cols(), whole ? vector_size<T> : 1);
    launch(stream_of(y.device()), kernel, row_blocks(y.rows(), block), block, 0, from, sorted.weight.f32(),
           sorted.lists.i32(), stream, y.rows(), static_cast<int>(sorted.lists.dim(1)), static_cast<int>(y.cols()), to);
  });
}

// A warp a slot. Each lane has read what it writes over.
template <class T, int N>
__global__ void __launch_bounds__(row_block_threads)
    combine_backward_kernel(const T* __restrict__ dy, const std::int32_t* __restrict__ token,
                            const float* __restrict__ weight, std::int64_t slots, std::int64_t tokens, int width,
                            T* __restrict__ rows, float* __restrict__ dweight) {
  const std::int64_t slot = std::int64_t{blockIdx.x} * (row_block_threads / warp_size) + threadIdx.x / warp_size;
  if (slot >= slots) return;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const std::int32_t named = token[slot];
  const bool known = named >= 0 && named < tokens;
  float sum = known ? 0.0F : nanf("");
  if (known) {
    const float factor = weight[slot];
    const T* const from = dy + std::int64_t{named} * width;
    T* const row = rows + slot * width;
#pragma unroll 4
    for (int i = lane * N; i < width; i += warp_size * N) {
      const auto slope = Vector<T, N>::load(from + i);
      const auto value = Vector<T, N>::load(row + i);
      Vector<T, N> out;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float d = to_float(slope.at[e]);
        sum = fmaf(d, to_float(value.at[e]), sum);
        out.at[e] = from_float<T>(factor * d);
      }
      out.store(row + i);
    }
  }
  sum = warp_sum(sum);
  if (lane == 0) dweight[slot] = sum;
}

__global__ void __launch_bounds__(threads)
    unsort_kernel(const float* __restrict__ sorted, const std::int32_t* __restrict__ place, std::int64_t slots,
                  float* __restrict__ y) {
  const std::int64_t slot = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (slot < slots) y[slot] = place[slot] < 0 ? nanf("") : sorted[place[slot]];
}

}  // namespace

void sort_slots(const Tensor& experts, const Tensor& weights, const SortedSlots& sorted) {
  Device& device = experts.device();
  const cudaStream_t stream = stream_of(device);
  const std::int64_t slots = experts.size();
  if (slots == 0) {
    device.fill(sorted.begin.raw(), 0, Bytes(sorted.begin.size() * size_of(DType::I32)), device.stream());
    return;
  }
  const std::int64_t tiles = (slots + tile_slots - 1) / tile_slots;
  const int top_k = static_cast<int>(experts.dim(1));
  const int expert_count = static_cast<int>(sorted.begin.size()) - 1;
  int bits = 1;
  while ((1 << bits) <= expert_count) ++bits;  // expert_count itself stands for none
  const std::size_t shared = usize(warps * (expert_count + 1)) * sizeof(int);
  auto* const counts = static_cast<std::int32_t*>(device.workspace(Bytes(expert_count * tiles * size_of(DType::I32))));
  const unsigned blocks = blocks_for(tiles, warps);
  device.fill(sorted.place.raw(), 0xff, Bytes(slots * size_of(DType::I32)), device.stream());
  launch(stream, count_kernel, blocks, threads, shared, experts.i32(), slots, expert_count, bits, tiles, counts);
  launch(stream, scan_kernel, 1, running_sum_threads, 0, counts, expert_count, tiles, sorted.begin.i32());
  launch(stream, place_kernel, blocks, threads, shared, experts.i32(), weights.f32(), slots, top_k, expert_count, bits,
         tiles, counts, sorted.token.i32(), sorted.weight.f32(), sorted.place.i32());
  launch(stream, list_kernel, blocks_for(experts.dim(0), threads), threads, 0, sorted.place.i32(), experts.dim(0),
         top_k, sorted.lists.i32());
}

void combine_slots(const Tensor& rows, const SortedSlots& sorted, const Tensor& residual, Tensor y) {
  combine<true>(rows, sorted, residual, y);
}

void combine_slots_backward(const Tensor& dy, const SortedSlots& sorted, Tensor rows, Tensor dweight) {
  with_float_type(dy.dtype(), [&]<class T>() {
    const auto* const from = static_cast<const T*>(dy.raw());
    auto* const to = static_cast<T*>(rows.raw());
    const bool whole = in_vectors(from, dy.cols()) && in_vectors(to, dy.cols());
    const auto kernel = whole ? combine_backward_kernel<T, vector_size<T>> : combine_backward_kernel<T, 1>;
    launch(stream_of(dy.device()), kernel, blocks_for(rows.dim(0), row_block_threads / warp_size), row_block_threads, 0,
           from, sorted.token.i32(), sorted.weight.f32(), rows.dim(0), dy.dim(0), static_cast<int>(dy.cols()), to,
           dweight.f32());
  });
}

void sum_slots(const Tensor& rows, const SortedSlots& sorted, Tensor y) {
  combine<false>(rows, sorted, Tensor(), y);
}

void unsort(const Tensor& values, const SortedSlots& sorted, Tensor y) {
  const std::int64_t slots = y.size();
  launch(stream_of(y.device()), unsort_kernel, blocks_for(slots, threads), threads, 0, values.f32(), sorted.place.i32(),
         slots, y.f32());
}

}  // namespace switchyard::cuda
