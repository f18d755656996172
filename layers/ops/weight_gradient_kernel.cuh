// The kernel of grouped_gemm_cuda.h's weight gradients and how it is launched, for tiles of any kind. A block of
// threads has one tile of one weight: it forms the sum over a segment's rows in registers and adds it to the gradient
// from there, segment by segment.
#pragma once

#include "layers/ops/kernel_lists.cuh"
#include "layers/ops/product_operands.cuh"
#include "layers/ops/product_results.cuh"
#include "layers/ops/tensor_cores_cuda.h"
#include "layers/ops/tile_order.cuh"

#include <limits>
#include <type_traits>

namespace switchyard::cuda {

struct GradientArguments {
  const void* dy;
  const void* x;
  int rows, n, k;
  int row_tiles, column_tiles;                // of one weight
  const std::int32_t* bounds;                 // [ranges + 1], ranges that follow each other; nullptr: see the lists
  unsigned range_begin_list, range_end_list;  // [ranges]
  unsigned segment_begin_list;                // [segments + 1], ranges
  unsigned group_begin_list;                  // [groups + 1], segments
  unsigned sum_list;                          // [groups]
  bool sums_in_pieces, goes_on;
  KernelLists lists;
};
static_assert(sizeof(GradientArguments) <= 4000);

// Positions that are the rows of the ranges of one segment, one after the other: what a sum consists of, and in which
// steps it is formed, does not hang on where its rows lie. What of the ranges lies outside of x is left out. Bounds are
// looked up when they are needed, which is seldom: registers are dear.
class SegmentPositions {
 public:
  __device__ SegmentPositions(const GradientArguments& args, int segment) : args_(args) {
    const auto* const begin = args.lists.at<std::int32_t>(args.segment_begin_list) + segment;
    next_ = begin[0];
    for (int range = next_; range < begin[1]; ++range) count += bounds(range).size;
  }
  int count = 0;

  __device__ __forceinline__ int row(int p) {
    if (p >= count) return -1;
    while (p >= until_) {
      const Bounds range = bounds(next_++);
      shift_ = range.begin - until_;
      until_ += range.size;
    }
    return p + shift_;
  }

 private:
  struct Bounds {
    int begin, size;
  };
  __device__ __forceinline__ Bounds bounds(int range) const {
    const bool follow = args_.bounds != nullptr;
    const int begin = (follow ? args_.bounds : args_.lists.at<std::int32_t>(args_.range_begin_list))[range];
    const int end = (follow ? args_.bounds + 1 : args_.lists.at<std::int32_t>(args_.range_end_list))[range];
    const int from = greater_of(begin, 0);
    return {from, greater_of(lesser_of(end, args_.rows) - from, 0)};
  }
  const GradientArguments& args_;
  int next_;       // the range after the one that the thread is in
  int until_ = 0;  // positions before it
  int shift_ = 0;  // from a position to its row
};

template <class Tile, bool Aligned>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks_by_positions)
    weight_gradient_kernel(const __grid_constant__ GradientArguments args) {
  using T = typename Tile::Element;
  T* const shared = dynamic_shared<T>();
  const int tiles = args.row_tiles * args.column_tiles;
  const int group = static_cast<int>(blockIdx.x) / tiles;
  const TileNumber place =
      banded_tile<16>(static_cast<int>(blockIdx.x) - group * tiles, args.row_tiles, args.column_tiles);
  const int row = place.row * Tile::tile_rows, column = place.column * Tile::tile_columns;
  // The part of the sums that begins at `sums`.
  const auto part = [&](auto* sums) {
    return ResultPart<std::remove_pointer_t<decltype(sums)>>{sums + std::int64_t{row} * args.k + column, args.k,
                                                             args.n - row, args.k - column, args.sums_in_pieces};
  };
  const auto* const group_begin = args.lists.at<std::int32_t>(args.group_begin_list) + group;
  for (int s = group_begin[0]; s < group_begin[1]; ++s) {
    const SegmentPositions positions(args, s);
    if (positions.count == 0) continue;
    const auto* const sum = args.lists.at<DeviceSum>(args.sum_list) + group;
    Tile tile;
    if (args.goes_on) {
      start_from(tile, part(sum->plain));
    } else {
      start_from_zero(tile);
    }
    const Operand<T> a{static_cast<const T*>(args.dy) + row, args.n, args.n - row};
    const Operand<T> b{static_cast<const T*>(args.x) + column, args.k, args.k - column};
    tile.template multiply<false, false, Aligned>(shared, a, b, positions);
    if (args.goes_on) {
      store(tile, part(sum->plain));
    } else if (sum->exact != nullptr) {
      add_with(tile, part(sum->exact), [&](float partial) { return sum->fixed(partial); });
    } else {
      add_with(tile, part(sum->plain), [](float partial) { return partial; });
    }
    __syncthreads();  // before the next segment's rows take the place of this one's
  }
}

template <class Tile, bool Aligned>
void launch_tiles(Device& device, GradientArguments args, std::int64_t groups) {
  args.row_tiles = (args.n + Tile::tile_rows - 1) / Tile::tile_rows;
  args.column_tiles = (args.k + Tile::tile_columns - 1) / Tile::tile_columns;
  const std::int64_t tiles = groups * args.row_tiles * args.column_tiles;
  require(tiles <= std::numeric_limits<int>::max(), "weight_gradient: {} weights of [{}, {}] are too many", groups,
          args.n, args.k);
  launch(stream_of(device), weight_gradient_kernel<Tile, Aligned>, static_cast<unsigned>(tiles), Tile::threads,
         Tile::shared_bytes, args);
}

// With wgmma, on a device of compute capability 9.0: weight_gradient_hopper_cuda.cu. in_vectors: rows of dy and x are
// copied 16 bytes at a time.
void launch_on_hopper(Device& device, const GradientArguments& args, std::int64_t groups, bool in_vectors,
                      TensorCores cores);

}  // namespace switchyard::cuda
