// The kernel of grouped_gemm_cuda.h's products and how it is launched, for tiles of any kind. Blocks of threads find
// their tiles from the groups' bounds, which may be known to the device alone: the grid is made for the most tiles that
// there can be. Tiles are handed out in an order in which those that run at a time share rows and weights in the
// second-level cache.
#pragma once

#include "layers/ops/kernel_lists.cuh"
#include "layers/ops/product_operands.cuh"
#include "layers/ops/product_results.cuh"
#include "layers/ops/tensor_cores_cuda.h"
#include "layers/ops/tile_order.cuh"

#include <limits>

namespace switchyard::cuda {

struct GemmArguments {
  const void* x;
  void* y;
  int rows, n, k;  // rows of x: bounds that lie outside are cut
  int groups;
  int column_tiles;
  const std::int32_t* row_begin;  // nullptr: it is in the lists
  unsigned row_begin_list, weight_list;
  bool y_in_bf16, y_in_pieces, y_in_vectors, accumulate;
  KernelLists lists;
};
static_assert(sizeof(GemmArguments) <= 4000);

struct TilePlace {
  int group;  // -1: there are no more tiles
  int row, rows, column;
};

// The place of tile number `tile`. All lanes of a warp come here together and look at 32 groups at a time.
template <class Tile>
__device__ __forceinline__ TilePlace find_tile(const GemmArguments& args, const std::int32_t* row_begin, int tile) {
  constexpr int height = Tile::tile_rows;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  int before = 0;  // tiles of the groups before
  for (int base = 0; base < args.groups; base += warp_size) {
    int begin = 0, end = 0;
    if (base + lane < args.groups) {
      begin = greater_of(row_begin[base + lane], 0);
      end = lesser_of(row_begin[base + lane + 1], args.rows);
    }
    const int mine = begin < end ? (end - begin + height - 1) / height * args.column_tiles : 0;
    int upto = mine;
#pragma unroll
    for (int offset = 1; offset < warp_size; offset *= 2) {
      const int other = __shfl_up_sync(whole_warp, upto, static_cast<unsigned>(offset));
      if (lane >= offset) upto += other;
    }
    const unsigned votes = __ballot_sync(whole_warp, tile < before + upto);
    if (votes == 0) {
      before += __shfl_sync(whole_warp, upto, warp_size - 1);
      continue;
    }
    const int found = __ffs(static_cast<int>(votes)) - 1;
    begin = __shfl_sync(whole_warp, begin, found);
    end = __shfl_sync(whole_warp, end, found);
    const int number = tile - before - __shfl_sync(whole_warp, upto - mine, found);
    const TileNumber at = banded_tile<2048 / height>(number, (end - begin + height - 1) / height, args.column_tiles);
    const int row = begin + at.row * height;
    return {base + found, row, lesser_of(height, end - row), at.column * Tile::tile_columns};
  }
  return {-1, 0, 0, 0};
}

// One tile of y, of which sums of one group's rows and columns are made.
template <class Tile, bool BLines>
struct TileWork {
  using T = typename Tile::Element;
  TilePlace place;
  Operand<T> a, b;

  __device__ __forceinline__ TileWork(const GemmArguments& args, int number) {
    place = find_tile<Tile>(
        args, args.row_begin != nullptr ? args.row_begin : args.lists.at<std::int32_t>(args.row_begin_list), number);
    if (!exists()) return;
    const auto* const weight = static_cast<const T*>(args.lists.at<const void*>(args.weight_list)[place.group]);
    a = {static_cast<const T*>(args.x) + std::int64_t{place.row} * args.k, args.k, place.rows};
    b = {weight + (BLines ? std::int64_t{place.column} * args.k : place.column), BLines ? args.k : args.n,
         lesser_of(Tile::tile_columns, args.n - place.column)};
  }
  __device__ __forceinline__ bool exists() const { return place.group >= 0; }

  __device__ __forceinline__ void begin_sums(const GemmArguments& args, Tile& tile) const {
    if (args.accumulate) {
      with_y(args, [&](const auto& y) { start_from(tile, y); });
    } else {
      start_from_zero(tile);
    }
  }
  __device__ __forceinline__ void store_sums(const GemmArguments& args, Tile& tile) const {
    with_y(args, [&](const auto& y) { store(tile, y); });
  }

 private:
  // f(the part of y)
  template <class F>
  __device__ __forceinline__ void with_y(const GemmArguments& args, const F& f) const {
    const std::int64_t first = std::int64_t{place.row} * args.n + place.column;
    if (sizeof(T) == sizeof(bf16) && args.y_in_bf16) {
      f(ResultPart<bf16>{static_cast<bf16*>(args.y) + first, args.n, place.rows, b.lines, args.y_in_pieces,
                         args.y_in_vectors});
    } else {
      f(ResultPart<float>{static_cast<float*>(args.y) + first, args.n, place.rows, b.lines, args.y_in_pieces});
    }
  }
};

template <class Tile, bool BLines, bool Aligned>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    grouped_gemm_kernel(const __grid_constant__ GemmArguments args) {
  auto* const shared = dynamic_shared<typename Tile::Element>();
  for (int number = static_cast<int>(blockIdx.x);; number += static_cast<int>(gridDim.x)) {
    const TileWork<Tile, BLines> work(args, number);
    if (!work.exists()) return;
    Tile tile;
    work.begin_sums(args, tile);
    tile.template multiply<true, BLines, Aligned>(shared, work.a, work.b, PlainPositions{args.k});
    work.store_sums(args, tile);
    __syncthreads();  // before the next tile's operands take the place of this one's
  }
}

// What a launch needs beside its arguments.
struct GemmLaunch {
  Device* device;
  GemmArguments args;
  TensorCores cores;
  bool b_by_lines, aligned;
  std::int64_t most_row_tiles_of_128, most_row_tiles_of_64;
};

// rounds: of as many blocks as fit at a time there are so many at the most; blocks then take more than one tile.
template <class Tile>
void launch_kernel(void (*kernel)(GemmArguments), const GemmLaunch& wanted, std::int64_t row_tiles, int rounds) {
  GemmArguments args = wanted.args;
  args.column_tiles = (args.n + Tile::tile_columns - 1) / Tile::tile_columns;
  const std::int64_t tiles = row_tiles * args.column_tiles;
  require(tiles <= std::numeric_limits<int>::max() / 2, "grouped_gemm: {} rows and {} columns are too many", args.rows,
          args.n);
  const std::int64_t most = std::int64_t{multiprocessors(*wanted.device)} * Tile::blocks * rounds;
  launch(stream_of(*wanted.device), kernel, blocks_for(tiles, 1, most), Tile::threads, Tile::shared_bytes, args);
}
// Blocks take their tiles by turns only where there are far more tiles than fit at a time: until then the device hands
// them out as blocks end, which evens out what is uneven.
template <class Tile, bool BLines, bool Aligned>
void launch_tiles(const GemmLaunch& wanted, std::int64_t row_tiles) {
  launch_kernel<Tile>(grouped_gemm_kernel<Tile, BLines, Aligned>, wanted, row_tiles, 16);
}

// With wgmma, on a device of compute capability 9.0: grouped_gemm_hopper_cuda.cu.
void launch_on_hopper(const GemmLaunch& wanted);

}  // namespace switchyard::cuda
